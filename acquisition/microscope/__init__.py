"""Micro-Manager's core, started or found, its settings, and what is acquired."""
