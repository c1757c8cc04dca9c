"""From recordings to the patches and side inputs of one training step."""
