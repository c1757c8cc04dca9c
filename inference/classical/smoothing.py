"""Averages and medians of a neighbourhood: what every other filter has to beat.

Owns the mean, the Gaussian, the median, and the identity, which is the yardstick's zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


def identity(image: FloatImage, strength: float) -> NDArray[Any]:
    """Return the image as it is."""
    return image


def mean(image: FloatImage, strength: float) -> NDArray[Any]:
    """Return the mean of a square of `strength` pixels; its outermost pixels count in part."""
    from scipy.ndimage import convolve1d

    # Between odd edges the outermost pixels have a weight below one: strengths are continuous.
    reach = int(np.ceil((strength - 1) / 2))
    weights = np.clip((strength - 1) / 2 - np.abs(np.arange(-reach, reach + 1)) + 1, 0, 1)
    weights /= weights.sum()
    rows = convolve1d(image, weights, axis=0, mode="reflect")
    return np.asarray(convolve1d(rows, weights, axis=1, mode="reflect"))


def gaussian(image: FloatImage, strength: float) -> NDArray[Any]:
    """Convolve with a Gaussian of standard deviation `strength`, pixels."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, strength, mode="reflect"))


def median(image: FloatImage, strength: float) -> NDArray[Any]:
    """Return the median of a disc of radius `strength` pixels; 1.5 is a square of 3×3."""
    from scipy.ndimage import median_filter

    reach = int(strength)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(median_filter(image, footprint=y**2 + x**2 <= strength**2, mode="reflect"))
