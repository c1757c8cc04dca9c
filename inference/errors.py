"""The exception family of inference."""

from __future__ import annotations

from pathlib import Path

from ..errors import QuietscopeError


class InferenceError(QuietscopeError, RuntimeError):
    """A model cannot be opened or cannot be run."""


class BundleError(InferenceError):
    """A model bundle is missing, incomplete, altered or of another version."""


class FrameMismatchError(InferenceError):
    """Frames that the model cannot take: shape, pixel type or number of context frames."""


class ProviderError(InferenceError):
    """The execution provider that was asked for is not the one that runs."""


def unusable_model(name: Path | str, error: Exception) -> BundleError:
    """Return the error for a graph that ONNX Runtime refuses, with its reason."""
    import onnxruntime

    reason = str(error).strip().splitlines()[0]
    return BundleError(
        f"{name}: cannot be run by ONNX Runtime {onnxruntime.__version__} ({reason}); "
        "train the model anew with this version of quietscope"
    )
