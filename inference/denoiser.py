"""The boundary behind which every denoiser stands: arrays in, arrays out."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle


@runtime_checkable
class KnowsPixels(Protocol):
    """A denoiser that may know the single pixels of its camera."""

    @property
    def pixel_maps(self) -> NDArray[np.float32] | None:
        """(1, 3, Y, X) of `PixelMaps.correction` for its frames; None where all count alike."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """Something that turns observations into an estimate of the signal.

    A denoiser is built for one frame shape and used from one thread at a time.
    """

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) in pixels."""
        ...

    @property
    def context_frames(self) -> int:
        """How many further frames it wants, 0 for single-frame models.

        First the T preceding ones, then the newest of each other channel.
        """
        ...

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Estimate the signal of the newest frame.

        Parameters
        ----------
        observations
            (1 + further frames, Y, X) in the camera's own pixel type, ADU, newest first; not
            changed. A further frame that does not exist (the first frames of a run, a gap) is all
            zeros: never a copy of the newest one, which a blind-spot network must not see twice.
        out
            (2, Y, X) float32, written in place: `out[0]` the estimate (posterior mean) in ADU,
            `out[1]` its standard deviation in ADU (zero where a denoiser gives none).

        Raises
        ------
        FrameMismatchError
            If shape or pixel type is not what the denoiser was built for.
        """
        ...

    def close(self) -> None:
        """Release what the denoiser holds. May be called more than once."""
        ...


@runtime_checkable
class RunsBundle(Protocol):
    """A denoiser that runs the model of a bundle, and says what it takes and where it runs."""

    @property
    def bundle(self) -> Bundle:
        """The model."""
        ...

    @property
    def pixel_type(self) -> np.dtype[Any]:
        """Of the observations that it takes."""
        ...

    @property
    def provider(self) -> str:
        """What runs it, by ONNX Runtime's name."""
        ...


class DenoiserFactory(Protocol):
    """Builds a denoiser for a frame shape: a class, say, whose argument is the shape."""

    context_frames: int

    def __call__(self, frame_shape: tuple[int, int], /) -> Denoiser:
        """Return a denoiser for frames (Y, X)."""
        ...
