"""The operating system's own job that starts the night: one file for each system."""
