"""What frames without light say: offset and read noise, and whether they are what they claim.

Owns the two figures that come from dark frames, and three doubts about them: that light fell on
them, that they do not lie on the line of the light levels, and that the noise is lost between two
grey values. The line itself is the business of `fit_photon_transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from .level_statistics import LevelStatistics
from .noise_model import FloatArray
from .photon_transfer import QUANTISATION_VARIANCE_ADU2
from .straight_line import Interval, Line, interval_of_mean

COARSE_ADU = 0.5
"""Noise below which rounding to whole grey values does not just add 1/12 ADU² (Sheppard)."""
COARSE_VARIANCE_ADU2 = COARSE_ADU**2 + QUANTISATION_VARIANCE_ADU2
ROUNDING_ADU = 0.6
"""A camera that cuts off decimals once less without light has another offset there, by half a
grey value; the rest is for the bend of its line."""
CERTAIN = 2.0
"""Half-widths of a 95 % interval from which on a difference is no accident."""
SKEWED = 4.5
"""Standard errors from which on skewness of dark frames is no accident."""
_LEAST_LIKELY = 4.5
"""Log likelihood that may be lost within an interval of three standard errors."""


def chosen(values: FloatArray, usable: FloatArray | None) -> FloatArray:
    """Return the values (Y, X) of usable pixels, flat."""
    flat = values.ravel()
    return flat if usable is None else flat[usable.ravel() > 0]


def dark_offset(dark: LevelStatistics, usable: FloatArray | None) -> Interval:
    """Return the mean without light with its interval, ADU."""
    mean = float(chosen(dark.mean_adu, usable).mean())
    # Frame means catch noise that the pixels of one frame share.
    common = dark.frame_means_adu
    half = 1.96 * float(
        np.sqrt(dark.variance / dark.observations + common.var(ddof=1) / common.size)
    )
    return Interval(mean, mean - half, mean + half)


def dark_variance(dark: LevelStatistics, usable: FloatArray | None) -> Interval:
    """Return the mean temporal variance of a pixel without light, rounding included, ADU²."""
    return interval_of_mean(chosen(dark.variance_adu2, usable))


def noise_variance(dark: LevelStatistics, usable: FloatArray | None) -> Interval:
    """Return the variance without light and without what rounding adds, ADU²."""
    found = dark_variance(dark, usable)
    if found.value < COARSE_VARIANCE_ADU2:
        return _variance_between_codes(dark, usable)
    return Interval(*(max(v - QUANTISATION_VARIANCE_ADU2, 0.0) for v in _ends(found)))


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _variance_between_codes(dark: LevelStatistics, usable: FloatArray | None) -> Interval:
    """Return the variance of noise that is narrower than a grey value, by maximum likelihood.

    Gaussian noise about one offset, seen through rounding. Where pixels differ in their offsets it
    is less than that, so the interval begins at 0.
    """
    kept = slice(None) if usable is None else usable.ravel()[dark.sample_index] > 0
    codes, counts = np.unique(dark.sample[:, kept], return_counts=True)
    sigma = np.geomspace(0.005, 1.5, 400)
    centre = float(np.average(codes, weights=counts)) + np.linspace(-0.5, 0.5, 101)[:, None]
    mass = np.stack(
        [
            ndtr((code + 0.5 - centre) / sigma) - ndtr((code - 0.5 - centre) / sigma)
            for code in codes
        ]
    )
    # Where a hot pixel that was missed makes a code impossible, it costs much but not everything.
    likelihood = np.tensordot(counts, np.log(np.maximum(mass, 1e-12)), 1).max(axis=0)
    inside = sigma[likelihood >= likelihood.max() - _LEAST_LIKELY]
    best = float(sigma[likelihood.argmax()])
    if codes.size == 1:
        best = 0.0
    return Interval(best**2, 0.0, float(inside.max()) ** 2)


@dataclass(frozen=True, slots=True)
class Doubt:
    """How far the dark frames are from the offset that the light levels ask for, ADU."""

    ladder_offset: Interval
    difference_adu: float


def offset_by_variance(dark: LevelStatistics, line: Line, usable: FloatArray | None) -> Interval:
    """Return the signal at which the line of the levels has the dark frames' variance, ADU."""
    found = dark_variance(dark, usable)
    here = line.at(float(chosen(dark.mean_adu, usable).mean()))
    offset = (found.value - line.intercept) / line.slope
    half = float(np.hypot(_half(found), _half(here))) / line.slope
    return Interval(offset, offset - half, offset + half)


def doubt_of_offset(dark: Interval, ladder: Sequence[Interval]) -> Doubt | None:
    """Return by how much the levels contradict the offset of the dark frames, if they do."""
    worst: Doubt | None = None
    for one in ladder:
        difference = one.value - dark.value
        by_chance = CERTAIN * float(np.hypot(_half(one), _half(dark)))
        if abs(difference) > ROUNDING_ADU + by_chance and (
            worst is None or abs(difference) > abs(worst.difference_adu)
        ):
            worst = Doubt(one, difference)
    return worst


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def offset_by_skewness(
    moments: Sequence[tuple[float, float, float]], growth: float
) -> tuple[float, float]:
    """Return the mean without light by the skewness of the noise, and its standard error, ADU.

    Read noise is symmetric; photon noise is not: its third cumulant is K² times the light, and
    says of every level by itself how much light there is.

    Parameters
    ----------
    moments
        Mean (ADU), third cumulant (ADU³) and its standard error of levels and dark frames.
    growth
        Of the third cumulant with light, ADU².
    """
    mean, third, error = np.array(moments, dtype=np.float64).T
    offsets, weight = mean - third / growth, (growth / error) ** 2
    return float(np.average(offsets, weights=weight)), float(weight.sum() ** -0.5)


def light_in_dark(
    dark_adu: float, offset: tuple[float, float], variance_adu2: float
) -> float | None:
    """Return the light that fell on dark frames, ADU; None where there is no sign of any.

    Parameters
    ----------
    offset
        Of `offset_by_skewness`.
    variance_adu2
        Of the dark frames: light that is little beside their noise is no matter.
    """
    light = dark_adu - offset[0]
    return light if light > max(SKEWED * offset[1], 0.5 * np.sqrt(variance_adu2)) else None
