"""Whole stacks at once, on this machine or on a cluster."""
