"""Stacks of frames in and out of files: open, write, whole or not at all."""
