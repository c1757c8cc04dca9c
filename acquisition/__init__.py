"""The microscope, the stream of frames, and what a person sees while it runs."""
