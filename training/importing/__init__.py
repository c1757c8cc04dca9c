"""Models that others trained, as bundles: from BioImage.IO packages and CAREamics' checkpoints."""
