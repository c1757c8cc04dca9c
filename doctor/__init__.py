"""`quietscope doctor`: what this machine and its Micro-Manager have, and what is missing."""
