"""From trained weights to a bundle that is known to run, and its report."""
