"""How strongly to filter, told from the noisy frame alone.

Owns the choice by J-invariance: a filter that must predict a pixel without seeing it cannot gain
by keeping the pixel's noise, so that its error on the noisy frame ranks strengths as its error on
the signal would (Batson & Royer 2019, arXiv:1901.11365). The library's masks do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHOSEN_ON_PX = 320
"""Edge of the middle of a frame on which strengths are tried: 6,000 masked pixels."""
LEAST_PX = 16
"""Smaller frames have too few pixels to tell; the middle strength is taken."""


def chosen_strength(
    filtered: Callable[[NDArray[np.float32], float], NDArray[Any]],
    strengths: Sequence[float],
    image: NDArray[np.float32],
) -> float:
    """Return the one of `strengths` that predicts hidden pixels of a noisy image best.

    Parameters
    ----------
    filtered
        The filter, in the units of `image`.
    strengths
        In rising order.
    image
        (Y, X), as noisy as what will be filtered.
    """
    if len(strengths) == 1:
        return strengths[0]
    part = _middle(image)
    if min(part.shape) < LEAST_PX or part.min() == part.max():
        return strengths[len(strengths) // 2]
    from skimage.restoration import calibrate_denoiser

    _, (tested, losses) = calibrate_denoiser(
        part.astype(np.float64),
        lambda pixels, strength: filtered(pixels.astype(np.float32), strength),
        {"strength": list(strengths)},
        extra_output=True,
    )
    return float(tested[int(np.nanargmin(losses))]["strength"])


def _middle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    starts = [max(0, (size - CHOSEN_ON_PX) // 2) for size in image.shape]
    rows, columns = (slice(start, start + CHOSEN_ON_PX) for start in starts)
    return image[rows, columns]
