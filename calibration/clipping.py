"""Whether a camera cuts off its noise at zero.

Owns the difference between two kinds of zeros: those of a photon counter, which are counts, and
those of a camera whose black level is too low, which stand for everything below. The latter make
the mean too high and the noise too low, and every figure drawn from them is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .level_statistics import LevelStatistics
from .noise_model import FloatArray

TOLERATED_ZEROS = 1e-3
COUNTER_DISTANCE = 0.12
"""Share of the observations that may lie elsewhere than a photon counter would put them."""
SAME_GAIN = 0.15
"""Relative difference of a photon counter's gain in dim and in bright light."""
BRIGHTNESSES = 64
MOST_COUNTS = 256


def gain_of_whole(levels: Sequence[LevelStatistics]) -> float | None:
    """Return the growth of variance with light of levels without zeros; None without two."""
    whole = sorted(
        (level for level in levels if level.zero_share <= TOLERATED_ZEROS), key=lambda x: x.mean
    )
    if len(whole) < 2 or whole[-1].mean <= whole[0].mean:
        return None
    return (whole[-1].variance - whole[0].variance) / (whole[-1].mean - whole[0].mean)


def clipped_share(
    level: LevelStatistics, bad_pixels: NDArray[np.bool_], gain: float | None = None
) -> float:
    """Return the share of observations that were cut off at 0; 0 for a photon counter's zeros.

    Pixels (Y, X) that are much noisier than the others do not count. `gain` is that of brighter
    levels, ADU/e⁻: a photon counter has no other noise, and shows the same in the dark.
    """
    if level.zero_share <= TOLERATED_ZEROS:
        return 0.0
    sound = level.sample[:, ~bad_pixels.ravel()[level.sample_index]]
    zeros = float((sound <= 0).mean()) if sound.size else 0.0
    return 0.0 if zeros <= TOLERATED_ZEROS or _counts_photons(level, gain) else zeros


def _counts_photons(level: LevelStatistics, of_bright: float | None) -> bool:
    """Whether the values are those of Poisson numbers times one gain, without other noise.

    The gain is what makes the variance of the dim level photon noise. Read noise that was cut off
    has values between the counts, and fewer zeros than the counter would have.
    """
    mean = np.maximum(level.mean_adu.ravel(), 0.0)
    if level.mean <= 0:
        return True  # nothing but zeros: dark frames of a photon counter
    gain = level.variance / level.mean
    if gain < 0.5 or (of_bright is not None and abs(gain / of_bright - 1) > SAME_GAIN):
        return False
    expected = _comb(mean / gain, gain, level.codes.size)
    found = level.codes / level.observations
    return bool(0.5 * np.abs(expected - found).sum() < COUNTER_DISTANCE)


def _comb(electrons: FloatArray, gain: float, codes: int) -> FloatArray:
    """Return the share of each code that a photon counter gives, its pixels so bright."""
    groups = np.array_split(np.sort(electrons), min(BRIGHTNESSES, electrons.size))
    brightness = np.array([group.mean() for group in groups])
    share = np.array([group.size for group in groups]) / electrons.size
    counts = np.arange(MOST_COUNTS)
    places = np.minimum(np.rint(counts * gain), codes - 1).astype(np.intp)
    probability = share @ stats.poisson.pmf(counts, brightness[:, None])
    return np.bincount(places, probability, minlength=codes).astype(np.float64)
