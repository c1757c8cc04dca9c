"""The general model: trained on generated scenes alone, for specimens that were never recorded."""
