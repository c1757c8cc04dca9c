"""Filters that weigh a pixel against the mean and variance of its neighbourhood.

Owns Wiener's filter in its adaptive form, Lee's local statistics with the camera's own noise, and
Lee's sigma filter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]

SIGMA_EDGE_PX = 7
SIGMA_FEWEST = 3
"""Lee's own choice: where no more pixels than these are within reach, the pixel is an outlier and
the mean of its eight neighbours takes its place."""


def wiener(image: FloatImage, strength: float) -> NDArray[Any]:
    """Return the adaptive Wiener estimate in windows of `strength` pixels, for noise of unit σ.

    Notes
    -----
    m + max(v − 1, 0)/max(v, 1) · (x − m), with the mean m and the variance v of the window (Lim
    1990, Two-Dimensional Signal and Image Processing, p. 548).
    """
    # Not SciPy's, which takes what lies beyond the frame for darkness: an offset then makes every
    # border an edge, which is left as noisy as it is.
    mean, variance = local_statistics(image, _odd(strength))
    gain = np.maximum(variance - 1, 0) / np.maximum(variance, 1)
    return np.asarray(mean + gain * (image - mean))


def lee(
    image: FloatImage, strength: float, noise_variance: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """Return Lee's linear estimate from local statistics, in the camera's own units.

    Parameters
    ----------
    image
        (Y, X), not stabilised.
    strength
        Edge of the window, pixels.
    noise_variance
        Var[x | s] at a signal, elementwise.

    Notes
    -----
    m + v_s/(v_s + σ²(m)) · (x − m), where m and v are mean and variance of the window and
    v_s = max(v − σ²(m), 0) is what the noise does not explain. With σ² constant it is Lee's
    additive case, with σ² ∝ m² his multiplicative one (Lee 1980, doi:10.1109/TPAMI.1980.4766994);
    with the camera's σ²(m) it holds for photon noise (Kuan et al. 1985,
    doi:10.1109/TPAMI.1985.4767641).
    """
    mean, variance = local_statistics(image, _odd(strength))
    noise = noise_variance(mean)
    signal = np.maximum(variance - noise, 0)
    total = signal + noise
    gain = np.divide(signal, total, out=np.zeros_like(signal), where=total > 0)
    return np.asarray(mean + gain * (image - mean))


def local_statistics(
    image: FloatImage, edge: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of a square of `edge` pixels around every pixel."""
    from scipy.ndimage import uniform_filter

    # About the overall mean: squares of an offset would drown the variance.
    level = float(image.mean())
    centred = image.astype(np.float64) - level
    mean = uniform_filter(centred, edge, mode="reflect")
    variance = np.maximum(uniform_filter(centred**2, edge, mode="reflect") - mean**2, 0)
    return mean + level, variance


def lee_sigma(image: FloatImage, strength: float) -> NDArray[Any]:
    """Return the mean of the pixels around that differ by at most `strength` σ, for unit noise.

    Windows of 7×7 pixels (Lee 1983, doi:10.1016/0734-189X(83)90047-6).
    """
    reach = SIGMA_EDGE_PX // 2
    padded = np.pad(
        image.astype(np.float64), reach, mode="reflect" if min(image.shape) > reach else "edge"
    )
    height, width = image.shape
    total, count, ring = np.zeros(image.shape), np.zeros(image.shape), np.zeros(image.shape)
    for dy in range(SIGMA_EDGE_PX):
        for dx in range(SIGMA_EDGE_PX):
            there = padded[dy : dy + height, dx : dx + width]
            within = np.abs(there - image) <= strength
            total += np.where(within, there, 0)
            count += within
            if (dy, dx) != (reach, reach) and max(abs(dy - reach), abs(dx - reach)) == 1:
                ring += there
    return np.where(count > SIGMA_FEWEST, total / count, ring / 8)


def _odd(edge: float) -> int:
    return max(3, 2 * round((edge - 1) / 2) + 1)
