"""Pixels that do not belong to the rest: stuck, hot, or far noisier than the others.

Owns how they are told apart from chance. Single pixels' variances of N frames follow a χ²
distribution that is wide and skewed for few frames; limits and medians are those of that
distribution, so that few repeats do not make good pixels bad.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from .level_statistics import LevelStatistics
from .noise_model import FloatArray

CHANCE = 0.1
"""How many good pixels of a frame may be taken for hot."""
HOT_VARIANCE = 10.0
"""Of a hot pixel over that of the typical one: three times its noise, or more."""
FEW_CODES_ADU2 = 0.25
"""A pixel whose noise is less than half a grey value is not hot: rounding makes its variance rare
steps, which follow no χ²."""
HOT_OFFSET = 3.0
"""Offset of a hot pixel from the others, in units of the noise without light."""
HOT_SIGMA = 6.0
MOST_STUCK = 0.01
"""Share of the pixels; more is no fault of single pixels but a recording without noise."""
MOST_STUCK_OF_ONE = 1e-3
"""The same where one recording is all there is: parts of its scene may be saturated."""
BINS = 24


def degrees_of_freedom(frames: int) -> float:
    """Return those of a variance from the N − 1 differences of consecutive frames.

    Von Neumann et al. 1941, doi:10.1214/aoms/1177731677: its relative variance is
    (3N − 4)/(N − 1)² for independent Gaussian noise.
    """
    return 2 * (frames - 1) ** 2 / (3 * frames - 4)


def typical_variance(variances: FloatArray, frames: int) -> float:
    """Return the variance of the typical pixel: the median, without its lean to small values."""
    freedom = degrees_of_freedom(frames)
    return float(np.median(variances)) * freedom / float(scipy.stats.chi2.median(freedom))


def highest_by_chance(pixels: int, frames: int) -> float:
    """Return how many times its true variance the noisiest of many alike pixels may show."""
    freedom = degrees_of_freedom(frames)
    return float(scipy.stats.chi2.isf(CHANCE / pixels, freedom)) / freedom


def hot_without_light(dark: LevelStatistics) -> NDArray[np.bool_]:
    """Return (Y, X): far noisier than the typical pixel without light, or far off its offset."""
    typical = max(typical_variance(dark.variance_adu2, dark.frames), 1e-12)
    by_chance = highest_by_chance(dark.pixels, dark.frames)
    noisy = dark.variance_adu2 > max(typical * max(HOT_VARIANCE, by_chance), FEW_CODES_ADU2)
    centre = np.median(dark.mean_adu)
    scatter = 1.4826 * float(np.median(np.abs(dark.mean_adu - centre)))
    shift = max(
        HOT_SIGMA * scatter,
        HOT_SIGMA * np.sqrt(typical / dark.frames),
        HOT_OFFSET * np.sqrt(typical),
        FEW_CODES_ADU2**0.5,
    )
    hot: NDArray[np.bool_] = noisy | (np.abs(dark.mean_adu - centre) > shift)
    return hot


def noisy_in_light(levels: Sequence[LevelStatistics]) -> NDArray[np.bool_]:
    """Return (Y, X): pixels with noise of their own on top of what their brightness explains.

    All levels are looked at together, the dimmest of which tell most.
    """
    excess, error = np.zeros(levels[0].mean_adu.shape), 0.0
    for level in levels:
        expected = np.maximum(expected_variance(level), FEW_CODES_ADU2)
        weight = 1 / float(np.median(expected))
        excess += weight * (level.variance_adu2 / expected - 1)
        error += weight**2 * 2 / degrees_of_freedom(level.frames)
    # The limit of one level's own distribution; together they are nearer to a Gaussian.
    dimmest = min(levels, key=lambda level: level.variance)
    spread = np.sqrt(2 / degrees_of_freedom(dimmest.frames))
    limit = (highest_by_chance(dimmest.pixels, dimmest.frames) - 1) / spread
    noisy: NDArray[np.bool_] = excess > limit * np.sqrt(error)
    return noisy


def expected_variance(level: LevelStatistics) -> FloatArray:
    """Return (Y, X): the typical variance of pixels of each one's brightness, ADU²."""
    mean = level.mean_adu.ravel()
    noise = np.sqrt(max(typical_variance(level.variance_adu2, level.frames), 0.0) / level.frames)
    bins = int(np.clip(level.pixels // 500, 1, BINS)) if mean.std() > 3 * noise else 1
    edges = np.quantile(mean, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, mean, side="right")
    variance = level.variance_adu2.ravel()
    centres, typical = [], []
    for index in range(bins):
        chosen = place == index
        if chosen.any():
            centres.append(float(mean[chosen].mean()))
            typical.append(typical_variance(variance[chosen], level.frames))
    expected: FloatArray = np.interp(level.mean_adu, centres, typical)
    return expected


def stuck_pixels(levels: Sequence[LevelStatistics]) -> NDArray[np.bool_]:
    """Return (Y, X): pixels that gave one and the same value in all frames of all levels.

    A single recording cannot tell a stuck pixel from a spot that is dark or saturated throughout,
    so there only few of them are believed in.
    """
    first = levels[0]
    stuck = first.stuck.copy()
    for level in levels[1:]:
        stuck &= level.stuck & (level.mean_adu == first.mean_adu)
    most = MOST_STUCK if len(levels) > 1 else MOST_STUCK_OF_ONE
    return stuck if 0 < stuck.mean() <= most else np.zeros_like(stuck)
