"""The version of this program, for everything that says so. Imports nothing."""

__version__ = "0.1.0"
