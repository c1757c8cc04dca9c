"""One picture of many samples of the posterior: their mean, or the most probable one.

Owns both estimates. Where samples come from is `draw_samples`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import InferenceError

Estimate = Literal["mmse", "map"]
"""The mean has the least squared error; where samples disagree it lies between them, and need not
be a picture that could have been. The mode is one."""
WINDOW_PX = 7
"""Edge of what is compared around a pixel: neighbours take their values from the same samples."""
BANDWIDTHS: tuple[float, ...] = tuple(np.geomspace(1.0, 0.2, 12).tolist())
"""Of the mean shift, in units of the samples' own scatter: from where all count to the nearest."""
LEAST_SCATTER = 1e-6
"""ADU: where all samples agree nothing is to be found."""
MOST_BYTES = 2**30
"""That the samples of a frame may take, and what is computed of them as much again."""


def require_estimate(name: str) -> None:
    """Raise InferenceError if there is no estimate of that name."""
    if name not in get_args(Estimate):
        known = " or ".join(get_args(Estimate))
        raise InferenceError(f"estimate is {name!r}, expected {known}")


def require_memory(samples: int, frame_shape: tuple[int, int]) -> None:
    """Raise InferenceError if so many samples of a frame cannot be held at a time."""
    pixels = frame_shape[0] * frame_shape[1]
    most = max(1, MOST_BYTES // (4 * pixels))
    if samples > most:
        raise InferenceError(
            f"samples is {samples}, of which an estimate of {frame_shape[0]}x{frame_shape[1]} "
            f"pixels can take at most {most}; give fewer, or write the samples (no --estimate)"
        )


def estimate_of(samples: NDArray[np.float32], estimate: Estimate) -> NDArray[np.float32]:
    """Return the estimate (Y, X) of samples (S, Y, X), in their unit."""
    if estimate == "map":
        return mode_of(samples)
    mean: NDArray[np.float32] = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def mode_of(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the most probable picture (Y, X) of samples (S, Y, X): the MAP estimate.

    A mean shift from the samples' mean, its kernel narrowed from step to step, as DivNoising's
    authors find it in overlapping tiles (Prakash et al. 2021, arXiv:2006.06072). Here each pixel
    has a window of its own, so that there are no seams.
    """
    found: NDArray[np.float32] = samples.mean(axis=0)
    scatter = np.maximum(_around(samples.var(axis=0)), LEAST_SCATTER**2)
    weights = np.empty_like(samples)  # the only other array of that size, changed in place
    for bandwidth in BANDWIDTHS:
        for sample, away in zip(samples, weights, strict=True):
            away[:] = _around((sample - found) ** 2)
        weights -= weights.min(axis=0)
        weights /= -2 * bandwidth**2 * scatter
        np.exp(weights, out=weights)
        found = np.einsum("syx,syx->yx", weights, samples) / weights.sum(axis=0)
    return found


def _around(squares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over the window of each pixel."""
    mean: NDArray[np.float32] = ndimage.uniform_filter(squares, WINDOW_PX, mode="reflect")
    return np.maximum(mean, 0)  # a running sum may fall below zero by rounding
