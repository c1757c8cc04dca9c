"""The photon-transfer law, measured from light levels.

Owns the straight-line fit of temporal variance on mean (EMVA Standard 1288), its confidence
intervals, and what can be said when neither dark frames nor the offset are known. What dark frames
say lives in `dark_frames`; the shape of the noise is the mixture's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .dark_frames import (
    COARSE_VARIANCE_ADU2,
    Doubt,
    chosen,
    dark_offset,
    dark_variance,
    doubt_of_offset,
    noise_variance,
    offset_by_variance,
)
from .errors import CalibrationError
from .level_statistics import LevelStatistics, signal_observation_pairs
from .noise_autocorrelation import Smoothing, smoothing_of, summed
from .noise_model import FloatArray
from .photon_transfer import QUANTISATION_VARIANCE_ADU2, PhotonTransfer
from .straight_line import Interval, Line, weighted_line

MAX_GROUPS = 24


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

    Gain is the slope of variance on mean through the light levels alone, with the noise that
    neighbours share counted in. Offset and read noise come from dark frames; from a given offset
    and the line's value there; or stay unknown.

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
    points = _wide_enough(transfer_points(levels, usable=_of_all(usable, levels)), quantised)
    line = weighted_line(points.mean_adu, points.variance_adu2, points.error_adu2)
    if line.slope <= 0:
        raise CalibrationError(
            f"light levels: variance falls with light (slope {line.slope:.3g} ADU), expected it "
            "to rise; check that the camera is not saturated, gamma-corrected or averaging frames"
        )
    smoothing = smoothing_of([level.autocorrelation for level in levels])
    gain = _unsmoothed(points, levels, smoothing).slope_interval
    rounding = QUANTISATION_VARIANCE_ADU2 if quantised else 0.0
    ratio = None if smoothing.found else _excess_noise_ratio(levels, line, usable)
    law = PhotonTransfer(
        gain=gain,
        intercept_adu2=line.intercept,
        offset=_offset(levels, dark, offset_adu, usable, line),
        read_noise=None,
        dark_variance_adu2=rounding,
        saturation_adu=saturation_adu,
        saturation_reached=saturation_reached,
        excess_noise_ratio=ratio,
        pivot_adu=line.pivot,
        pivot_half_adu2=_half(line.at(line.pivot)),
        summed_correlation=gain.value / line.slope,
    )
    law = replace(law, nonlinearity=_nonlinearity(levels, law.offset, saturation_adu))
    if law.offset is None:
        return law
    if dark is None:
        with_rounding = line.at(law.offset.value)
        variance = Interval(*(v - rounding for v in _ends(with_rounding)))
        variance = variance.scaled(law.summed_correlation)
    else:
        with_rounding = dark_variance(dark, usable)
        variance = noise_variance(dark, usable) if quantised else with_rounding
        if smoothing.found:
            variance = _times(variance, *summed(dark.autocorrelation, smoothing))
    return replace(
        law,
        read_noise=_read_noise(variance, law.photoelectron_gain),
        dark_variance_adu2=max(with_rounding.value, rounding),
    )


def _times(interval: Interval, factor: float, error: float) -> Interval:
    """Return an interval times a factor that is known to a standard error itself."""
    half = float(np.hypot(_half(interval) * factor, 1.96 * error * interval.value))
    value = interval.value * factor
    return Interval(value, value - half, value + half)


def _of_all(
    usable: FloatArray | None, levels: Sequence[LevelStatistics]
) -> list[FloatArray] | None:
    return None if usable is None else [usable] * len(levels)


def _wide_enough(points: TransferPoints, quantised: bool) -> TransferPoints:
    """Leave out what is so dim that rounding hides its noise, if enough is left."""
    kept = points.variance_adu2 >= COARSE_VARIANCE_ADU2
    brightness = np.unique(points.mean_adu[kept])
    if not quantised or kept.all() or brightness.size < 2:
        return points
    return TransferPoints(
        points.mean_adu[kept],
        points.variance_adu2[kept],
        points.error_adu2[kept],
        points.level[kept],
    )


def _unsmoothed(
    points: TransferPoints, levels: Sequence[LevelStatistics], smoothing: Smoothing
) -> Line:
    """Return the line of the noise that a pixel would have if it shared none."""
    factors, errors = np.ones(len(levels)), np.zeros(len(levels))
    if smoothing.found:
        found = [summed(level.autocorrelation, smoothing) for level in levels]
        factors, errors = np.array(found).T
    at = points.level.astype(np.intp)
    variance = points.variance_adu2 * factors[at]
    error = np.hypot(points.error_adu2 * factors[at], points.variance_adu2 * errors[at])
    return weighted_line(points.mean_adu, variance, error)


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def doubt_of_levels(
    levels: Sequence[LevelStatistics], dark: LevelStatistics, usable: FloatArray | None
) -> Doubt | None:
    """Return by how much light levels contradict the offset of dark frames, if they do.

    They say it twice: by the line of their means over exposure, and by the signal at which the
    line of their noise has the noise of the dark frames.
    """
    points = transfer_points(levels, usable=_of_all(usable, levels))
    line = weighted_line(points.mean_adu, points.variance_adu2, points.error_adu2)
    return _doubt(levels, dark, usable, line)


def _doubt(
    levels: Sequence[LevelStatistics],
    dark: LevelStatistics,
    usable: FloatArray | None,
    line: Line,
) -> Doubt | None:
    by_exposure = offset_of_exposures(levels)
    said = [] if by_exposure is None else [by_exposure]
    # Noise that rounding hides lies on no line.
    if dark_variance(dark, usable).value >= COARSE_VARIANCE_ADU2:
        said.append(offset_by_variance(dark, line, usable))
    return doubt_of_offset(dark_offset(dark, usable), said)


def _offset(
    levels: Sequence[LevelStatistics],
    dark: LevelStatistics | None,
    given: float | FloatArray | None,
    usable: FloatArray | None,
    line: Line,
) -> Interval | None:
    if given is not None:
        array = np.asarray(given, dtype=np.float64)
        value = float(chosen(array, usable).mean() if array.ndim == 2 else array)
        return Interval(value, value, value)
    if dark is None:
        return None
    measured = dark_offset(dark, usable)
    doubt = _doubt(levels, dark, usable, line)
    if doubt is not None:
        ends = (*_ends(measured), *_ends(doubt.ladder_offset))
        return Interval(measured.value, min(ends), max(ends))
    extrapolated = offset_of_exposures(levels)
    return measured if extrapolated is None else _spanning(measured, extrapolated)


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


def offset_of_exposures(levels: Sequence[LevelStatistics]) -> Interval | None:
    """Return the mean at an exposure of 0, ADU; None where exposures are not known."""
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


def _read_noise(variance: Interval, gain: Interval) -> Interval:
    """Return the noise without light in electrons; gain and variance are independent."""
    value, low, high = (float(np.sqrt(max(v, 0.0))) for v in _ends(variance))
    if value == 0.0:
        # A line that ends below zero says only that the noise is lost in its uncertainty.
        upper = max(variance.high, (variance.high - variance.low) / 2)
        return Interval(0.0, 0.0, float(np.sqrt(max(upper, 0.0))) / gain.value)
    relative_gain = (gain.high - gain.low) / 2 / gain.value
    below, above = (float(np.hypot(end / value - 1, relative_gain)) for end in (low, high))
    read = value / gain.value
    return Interval(read, read * max(0.0, 1 - below), read * (1 + above))


def _excess_noise_ratio(
    levels: Sequence[LevelStatistics], line: Line, usable: FloatArray | None
) -> Interval | None:
    """Compare the growth of the third cumulant with that of the second.

    Of photons through a gain K the cumulants grow as K, K², K³ (their ratio here: 1); behind a
    long multiplying register, whose output for one electron is exponential, as g, 2g², 6g³
    (ratio 1.5; excess noise factor F² = 2; Robbins & Hadwen 2003, doi:10.1109/TED.2003.813462).
    """
    moments = [third_cumulant(level, usable) for level in levels]
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


def third_cumulant(
    level: LevelStatistics, usable: FloatArray | None = None
) -> tuple[float, float, float]:
    """Return the mean, the third cumulant (ADU³) and its standard error of a level's sample."""
    kept = slice(None) if usable is None else usable.ravel()[level.sample_index] > 0
    pairs = signal_observation_pairs(
        level.sample[:, kept],
        light_changes_adu=level.light_changes_adu[:, kept],
        frame_pixels=None if level.light_slope is None else level.pixels,
    )
    # Of W repeats about their own mean, the third cumulant is (1 − 1/W)(1 − 2/W) of the true one.
    share = 1 - 1 / pairs.restore
    residual = pairs.observation - pairs.signal
    # Multiplied out: NumPy's third power takes twenty times as long.
    cube = residual * residual * residual
    cube *= pairs.restore / np.maximum(1 - 2 * share, 0.05)
    return (
        float(pairs.signal.mean()),
        float(cube.mean()),
        float(cube.std() / np.sqrt(cube.size)) + 1e-12,
    )
