"""Filters that need no training: the yardstick of every network."""
