"""The photon-transfer law, measured from light levels.

Owns the straight-line fit of temporal variance on mean (EMVA Standard 1288), its confidence
intervals, and what can be said when neither dark frames nor the offset are known. Knows nothing
of the shape of the noise; that is the mixture's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import CalibrationError
from .level_statistics import LevelStatistics, signal_observation_pairs
from .noise_model import FloatArray
from .photon_transfer import QUANTISATION_VARIANCE_ADU2, PhotonTransfer
from .straight_line import Interval, Line, interval_of_mean, weighted_line

MAX_GROUPS = 24
ROUNDING_ADU = 1.0
"""Offsets of dark frames and of the ladder that differ by less are a matter of rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class TransferPoints:
    """Mean and temporal variance of groups of pixels, with standard errors."""

    mean_adu: FloatArray
    variance_adu2: FloatArray
    error_adu2: FloatArray
    level: FloatArray
    """Which level each group came from."""


def transfer_points(
    levels: Sequence[LevelStatistics], *, usable: Sequence[FloatArray] | None = None
) -> TransferPoints:
    """Group the pixels of each level by brightness.

    A flat field gives one group; a scene with structure gives as many as it can fill. Pixels
    are sorted by one half of the frames and measured in the other, so that the groups do not
    select on the noise that they measure.

    Parameters
    ----------
    levels
        Statistics of one or more light levels.
    usable
        Per level, (Y, X) weights 0 or 1: hot, dead and saturated pixels are left out.
    """
    rows: list[tuple[float, float, float, float]] = []
    for number, level in enumerate(levels):
        mask = None if usable is None else usable[number].ravel() > 0
        groups = _group_count(level)
        if groups == 1:
            rows.append(_whole(level, number, mask))
            continue
        for sort_half in (0, 1):
            rows.extend(_grouped(level, number, sort_half, mask, groups))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return TransferPoints(table[:, 0], table[:, 1], table[:, 2], table[:, 3])


_Row = tuple[float, float, float, float]


def _whole(level: LevelStatistics, number: int, mask: NDArray[np.bool_] | None) -> _Row:
    """Mean and variance of an evenly lit level: every difference of frames counts."""
    mean, variance = level.mean_adu.ravel(), level.variance_adu2.ravel()
    if mask is not None and mask.any():
        mean, variance = mean[mask], variance[mask]
    found = float(variance.mean())
    error = _error_of_variance(variance, found, level.frames - 1)
    return float(mean.mean()), found, error, float(number)


def _error_of_variance(variances: FloatArray, found: float, differences: float) -> float:
    """Return the standard error of a mean of single pixels' variances.

    Their scatter holds every moment of the noise, so no Gaussian is assumed; few pixels tell
    little of it, and then a Gaussian's is the least.
    """
    scatter = float(variances.std(ddof=1) / np.sqrt(variances.size)) if variances.size > 1 else 0.0
    least = found * np.sqrt(3 / (variances.size * max(differences, 1.0)))
    return max(scatter, float(least) * (1.0 if variances.size < 100 else 0.5), 1e-12)


def _grouped(
    level: LevelStatistics,
    number: int,
    sort_half: int,
    mask: NDArray[np.bool_] | None,
    groups: int,
) -> list[_Row]:
    key = level.half_means_adu[sort_half].ravel()
    mean = level.half_means_adu[1 - sort_half].ravel()
    variance = level.half_variances_adu2[1 - sort_half].ravel()
    if mask is not None and mask.any():
        key, mean, variance = key[mask], mean[mask], variance[mask]
    edges = np.quantile(key, np.linspace(0, 1, groups + 1)[1:-1])
    place = np.searchsorted(edges, key, side="right")
    counts = np.bincount(place, minlength=groups)
    rows: list[_Row] = []
    for group in np.flatnonzero(counts >= 2):
        chosen = place == group
        found = float(variance[chosen].mean())
        error = _error_of_variance(variance[chosen], found, level.frames / 4)
        rows.append((float(mean[chosen].mean()), found, error, float(number)))
    return rows


def _group_count(level: LevelStatistics) -> int:
    """How many stretches of brightness a level has: 1 when its pixels are of one brightness."""
    noise = np.sqrt(level.variance / level.frames)
    if level.frames < 4 or float(level.mean_adu.std()) < 3 * noise:
        return 1
    return int(np.clip(level.pixels // 500, 1, MAX_GROUPS))


def fit_photon_transfer(
    levels: Sequence[LevelStatistics],
    *,
    dark: LevelStatistics | None = None,
    offset_adu: float | FloatArray | None = None,
    saturation_adu: float,
    saturation_reached: bool = False,
    usable: FloatArray | None = None,
    quantised: bool = True,
) -> PhotonTransfer:
    """Fit the photon-transfer law to light levels.

    Gain is the slope of variance on mean through the light levels alone. Offset and read noise
    come from dark frames; from a given offset and the line's value there; or stay unknown.

    Parameters
    ----------
    levels
        Unsaturated light levels.
    dark
        Frames without light.
    offset_adu
        Known offset: a number, or a map (Y, X).
    usable
        (Y, X), 1 where a pixel may be used.
    quantised
        Whether the camera rounds to whole ADU.

    Raises
    ------
    CalibrationError
        If the levels do not differ, or variance does not rise with light.
    """
    masks = None if usable is None else [usable] * len(levels)
    points = transfer_points(levels, usable=masks)
    line = weighted_line(points.mean_adu, points.variance_adu2, points.error_adu2)
    if line.slope <= 0:
        raise CalibrationError(
            f"light levels: variance falls with light (slope {line.slope:.3g} ADU), expected it "
            "to rise; check that the camera is not saturated, gamma-corrected or averaging frames"
        )
    rounding = QUANTISATION_VARIANCE_ADU2 if quantised else 0.0
    offset = _offset(levels, dark, offset_adu, usable)
    dark_variance = _dark_variance(dark, usable)
    if dark_variance is None and offset is not None:
        dark_variance = line.at(offset.value)
    return PhotonTransfer(
        gain=line.slope_interval,
        intercept_adu2=line.intercept,
        offset=offset,
        read_noise=_read_noise(dark_variance, rounding, line.slope_interval),
        dark_variance_adu2=max(
            dark_variance.value if dark_variance else 0.0,
            rounding,
        ),
        saturation_adu=saturation_adu,
        saturation_reached=saturation_reached,
        nonlinearity=_nonlinearity(levels, offset, saturation_adu),
        excess_noise_ratio=_excess_noise_ratio(levels, line),
        pivot_adu=line.pivot,
        pivot_half_adu2=_half(line.at(line.pivot)),
    )


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _chosen(values: FloatArray, usable: FloatArray | None) -> FloatArray:
    flat = values.ravel()
    return flat if usable is None else flat[usable.ravel() > 0]


def _offset(
    levels: Sequence[LevelStatistics],
    dark: LevelStatistics | None,
    given: float | FloatArray | None,
    usable: FloatArray | None,
) -> Interval | None:
    if given is not None:
        array = np.asarray(given, dtype=np.float64)
        value = float(_chosen(array, usable).mean() if array.ndim == 2 else array)
        return Interval(value, value, value)
    if dark is None:
        return None
    means = _chosen(dark.mean_adu, usable)
    # Frame means catch noise that the pixels of one frame share.
    common = dark.frame_means_adu
    half = 1.96 * float(
        np.sqrt(dark.variance / dark.observations + common.var(ddof=1) / common.size)
    )
    measured = Interval(
        float(means.mean()), float(means.mean()) - half, float(means.mean()) + half
    )
    extrapolated = _offset_of_exposures(levels)
    if extrapolated is None or abs(extrapolated.value - measured.value) > ROUNDING_ADU:
        return measured
    return _spanning(measured, extrapolated)


def _spanning(first: Interval, second: Interval) -> Interval:
    """Join two measurements of one quantity.

    Where both agree the dark frames, which measure the offset directly, stand. Where they
    differ by less than the last digit (cameras round dark and bright frames differently), neither
    is better: the value is the middle and the interval holds both.
    """
    if first.low <= second.high and second.low <= first.high:
        return first
    low, high = min(first.low, second.low), max(first.high, second.high)
    return Interval((first.value + second.value) / 2, low, high)


def exposure_line(levels: Sequence[LevelStatistics]) -> Line | None:
    """Fit mean on exposure time; None where exposures are unknown, too few or all the same."""
    timed = [level for level in levels if level.exposure_ms is not None]
    exposures = np.array([level.exposure_ms for level in timed], dtype=np.float64)
    if len(timed) < 3 or np.ptp(exposures) <= 0:
        return None
    means = np.array([level.mean for level in timed])
    errors = np.array([_error_of_mean(level) for level in timed])
    return weighted_line(exposures, means, errors)


def _error_of_mean(level: LevelStatistics) -> float:
    flicker = level.frame_means_adu.var(ddof=1) / level.frames
    return float(np.sqrt(level.variance / level.observations + flicker)) or 1e-9


def _offset_of_exposures(levels: Sequence[LevelStatistics]) -> Interval | None:
    line = exposure_line(levels)
    return None if line is None else line.at(0.0)


def _nonlinearity(
    levels: Sequence[LevelStatistics], offset: Interval | None, saturation_adu: float
) -> float | None:
    line = exposure_line(levels)
    if line is None:
        return None
    deviation = max(
        abs(level.mean - line.at(level.exposure_ms).value)
        for level in levels
        if level.exposure_ms is not None
    )
    return deviation / max(saturation_adu - (offset.value if offset else 0.0), 1.0)


def _dark_variance(dark: LevelStatistics | None, usable: FloatArray | None) -> Interval | None:
    return None if dark is None else interval_of_mean(_chosen(dark.variance_adu2, usable))


def _read_noise(variance: Interval | None, rounding: float, gain: Interval) -> Interval | None:
    """Return the noise without light in electrons; gain and variance are independent."""
    if variance is None:
        return None
    value, low, high = (
        float(np.sqrt(max(v - rounding, 0.0)))
        for v in (variance.value, variance.low, variance.high)
    )
    if value == 0.0:
        # A line that ends below zero says only that the noise is lost in its uncertainty.
        upper = max(variance.high, (variance.high - variance.low) / 2)
        return Interval(0.0, 0.0, float(np.sqrt(upper)) / gain.value)
    relative_gain = (gain.high - gain.low) / 2 / gain.value
    relative = np.hypot(max(value - low, high - value) / value, relative_gain)
    read = value / gain.value
    return Interval(read, read * max(0.0, 1 - relative), read * (1 + relative))


def _excess_noise_ratio(levels: Sequence[LevelStatistics], line: Line) -> Interval | None:
    """Compare the growth of the third cumulant with that of the second.

    Of photons through a gain K the cumulants grow as K, K², K³ (their ratio here: 1); behind a
    long multiplying register, whose output for one electron is exponential, as g, 2g², 6g³
    (ratio 1.5; excess noise factor F² = 2; Robbins & Hadwen 2003, doi:10.1109/TED.2003.813462).
    """
    moments = [third_cumulant(level) for level in levels]
    signal, third, error = (
        np.array(column, dtype=np.float64) for column in zip(*moments, strict=True)
    )
    if len(levels) < 2 or np.ptp(signal) <= 0:
        return None
    slope = weighted_line(signal, third, error)
    square = line.slope**2
    relative = 2 * line.slope_error / line.slope
    value = slope.slope / square
    half = slope.t * float(np.hypot(slope.slope_error / square, value * relative))
    return Interval(value, value - half, value + half)


def third_cumulant(level: LevelStatistics) -> tuple[float, float, float]:
    """Return the mean, the third cumulant (ADU³) and its standard error of a level's sample."""
    pairs = signal_observation_pairs(level.sample)
    # Of W repeats about their own mean, the third cumulant is (1 − 1/W)(1 − 2/W) of the true one.
    share = 1 - 1 / pairs.restore
    cube = (pairs.observation - pairs.signal) ** 3
    cube *= pairs.restore / np.maximum(1 - 2 * share, 0.05)
    return (
        float(pairs.signal.mean()),
        float(cube.mean()),
        float(cube.std() / np.sqrt(cube.size)) + 1e-12,
    )
