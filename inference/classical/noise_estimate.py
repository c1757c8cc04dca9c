"""The noise of a frame whose camera is not calibrated, told from the frame."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

_MEDIAN_OF_NORMAL = 0.6745
_SCATTER_OF_DIFFERENCE = 6.0
"""Root of the sum of squares of (1 −2 1)ᵀ(1 −2 1)."""


def estimated_noise_adu(image: NDArray[np.float32]) -> float:
    """Estimate the standard deviation of white noise in (Y, X), 0 where the frame is too small.

    The second difference along both axes leaves noise and little else (Immerkær 1996,
    doi:10.1006/cviu.1996.0060); its median is not moved by edges. Where most pixels are dark the
    median says nothing, and the mean is taken.
    """
    if min(image.shape) < 3:
        return 0.0
    along_y = image[:-2] - 2 * image[1:-1] + image[2:]
    difference = along_y[:, :-2] - 2 * along_y[:, 1:-1] + along_y[:, 2:]
    size = np.abs(difference, dtype=np.float64)
    typical = float(np.median(size)) / _MEDIAN_OF_NORMAL
    return (typical or sqrt(pi / 2) * float(size.mean())) / _SCATTER_OF_DIFFERENCE
