"""A teacher's lesson: what it sees of a recording, and the pictures that a student learns from."""
