"""The exception family of inference."""

from __future__ import annotations

from ..errors import QuietscopeError


class InferenceError(QuietscopeError, RuntimeError):
    """A model cannot be opened or cannot be run."""


class BundleError(InferenceError):
    """A model bundle is missing, incomplete, altered or of another version."""


class FrameMismatchError(InferenceError):
    """Frames that the model cannot take: shape, pixel type or number of context frames."""


class ProviderError(InferenceError):
    """The execution provider that was asked for is not the one that runs."""
