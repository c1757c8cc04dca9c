"""The general model: it ships with the program and has never seen anybody's specimen.

Owns the shipped files, and what makes an ordinary model bundle of them for a calibrated camera. It
was trained on generated scenes (`training.general`); running it is the business of whoever runs
bundles.
"""
