"""Scores of an image against its truth; the truth's own max − min is the range everywhere.

Owns the definitions, so that evaluation, retraining and benchmarks mean the same by a number.
"""

from __future__ import annotations

from math import log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_squared_error(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the mean squared difference, in float64."""
    return float(((image.astype(np.float64) - truth.astype(np.float64)) ** 2).mean())


def span(truth: NDArray[Any]) -> float:
    """Return max − min of the truth: the range of all scores."""
    return float(truth.max()) - float(truth.min())


def psnr_db(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite where the image equals the truth."""
    error = mean_squared_error(image, truth)
    return 10 * log10(span(truth) ** 2 / error) if error > 0 else float("inf")


def nrmse(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the root of the mean squared error over the range."""
    return sqrt(mean_squared_error(image, truth)) / span(truth)


def ssim_map(image: NDArray[Any], truth: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
    """Return the structural similarity and its map (Y, X), with a 7×7 window.

    Wang et al. 2004, doi:10.1109/TIP.2003.819861.
    """
    from skimage.metrics import structural_similarity

    edge = min(7, *(size - 1 + size % 2 for size in truth.shape))
    mean, local = structural_similarity(
        truth.astype(np.float64),
        image.astype(np.float64),
        win_size=edge,
        data_range=span(truth),
        full=True,
    )
    return float(mean), local
