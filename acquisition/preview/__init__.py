"""What a person sees while it runs, in a process of its own."""
