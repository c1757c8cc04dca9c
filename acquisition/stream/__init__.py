"""The stages between the camera and the disk, and the counts of every frame."""
