"""What single pixels of a camera do: offset, variance and gain maps, hot and dead pixels.

Owns the maps and how they are measured from dark frames and light levels. Every pixel of an sCMOS
camera has its own amplifier (Huang et al. 2013, Nature Methods 10:653, doi:10.1038/nmeth.2488).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .noise_model import FloatArray
from .repeats import LevelStatistics

HOT_SIGMA = 6.0
DEAD_RESPONSE = 0.5
"""A pixel that sees less than this share of what the others see is called dead."""
EVEN_FIELD = 0.1
"""Spread of brightness about its neighbourhood up to which a level is an evenly lit field."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelMaps:
    """Per-pixel properties over one region of the sensor, (Y, X) each.

    Attributes
    ----------
    offset_adu, variance_adu2
        Mean and temporal variance without light.
    response
        Response to light over that of the pixels around it; None without an evenly lit level.
    hot, dead
        Pixels that are far noisier or brighter without light, or do not respond.
    """

    offset_adu: FloatArray
    variance_adu2: FloatArray
    response: FloatArray | None
    hot: NDArray[np.bool_]
    dead: NDArray[np.bool_]

    @property
    def noise_adu(self) -> FloatArray:
        """Standard deviation without light, ADU."""
        noise: FloatArray = np.sqrt(self.variance_adu2)
        return noise

    @property
    def usable(self) -> FloatArray:
        """1 where a pixel is neither hot nor dead."""
        sound: FloatArray = 1.0 - (self.hot | self.dead).astype(np.float64)
        return sound


def pixel_maps(dark: LevelStatistics, levels: Sequence[LevelStatistics]) -> PixelMaps:
    """Measure the maps; the response from the brightest level, against its local median."""
    response = _response(dark, levels)
    return PixelMaps(
        offset_adu=dark.mean_adu,
        variance_adu2=dark.variance_adu2,
        response=response,
        hot=_outliers(dark),
        dead=np.zeros(dark.mean_adu.shape, bool) if response is None else response < DEAD_RESPONSE,
    )


def _outliers(dark: LevelStatistics) -> NDArray[np.bool_]:
    variance, mean = dark.variance_adu2, dark.mean_adu
    typical = float(np.median(variance))
    # The variance of one pixel is known to √(3/N) from differences of N frames.
    spread = max(_robust_sigma(variance), typical * np.sqrt(3 / dark.frames))
    shift = max(_robust_sigma(mean), np.sqrt(max(typical, 1e-12) / dark.frames))
    hot: NDArray[np.bool_] = (variance > typical + HOT_SIGMA * spread) | (
        np.abs(mean - np.median(mean)) > HOT_SIGMA * shift
    )
    return hot


def _robust_sigma(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _response(dark: LevelStatistics, levels: Sequence[LevelStatistics]) -> FloatArray | None:
    from scipy.ndimage import median_filter

    if not levels:
        return None
    brightest = max(levels, key=lambda level: level.mean)
    light = brightest.mean_adu - dark.mean_adu
    around = median_filter(light, size=9, mode="nearest")
    if float(np.median(light)) <= 10 * np.sqrt(dark.variance):
        return None
    response: FloatArray = light / np.maximum(around, 1e-9)
    if _robust_sigma(response) > EVEN_FIELD:
        return None  # a scene, not an even field: its structure is not the camera's
    return response
