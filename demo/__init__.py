"""`quietscope demo`: the whole job on the demo camera."""
