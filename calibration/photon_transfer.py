"""The photon-transfer law of a camera: how its variance grows with light.

Owns the straight-line fit of temporal variance on mean (EMVA Standard 1288), its confidence
intervals, and what can be said when neither dark frames nor the offset are known. Knows nothing
of the shape of the noise; that is the mixture's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .errors import CalibrationError
from .level_statistics import LevelStatistics, signal_observation_pairs
from .noise_model import FloatArray

QUANTISATION_VARIANCE_ADU2 = 1 / 12
"""Variance of rounding to whole ADU, which EMVA 1288 takes out of the read noise."""

CONFIDENCE = 0.95
MAX_GROUPS = 24
ROUNDING_ADU = 1.0
"""Offsets of dark frames and of the ladder that differ by less are a matter of rounding."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Return the same in another (positive) unit."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class PhotonTransfer:
    """Var[x | s] = intercept + gain · s, in ADU; the law outside the calibrated range.

    Attributes
    ----------
    gain
        System gain K, ADU/e⁻ (for an EM camera: of the whole chain with its excess noise).
    intercept_adu2
        Variance of the line at 0 ADU.
    offset
        Mean without light, ADU; None where neither dark frames nor an offset were given.
    read_noise
        Temporal noise without light, e⁻, quantisation taken out (EMVA 1288); None likewise.
    dark_variance_adu2
        Variance without light, ADU², quantisation included: no signal has less.
    saturation_adu
        The highest code of the camera, ADU.
    saturation_reached
        Whether the ladder saw it (else it follows from the pixel type).
    nonlinearity
        Largest deviation of the means from a straight line in exposure time, as a share of
        full scale; None where exposures are not known.
    excess_noise_ratio
        (κ₃/κ₂)/(κ₂/κ₁) of the light's cumulants: 1 for photon noise, 1.5 behind a long
        electron-multiplying register.
    """

    gain: Interval
    intercept_adu2: float
    offset: Interval | None
    read_noise: Interval | None
    dark_variance_adu2: float
    saturation_adu: float
    saturation_reached: bool = False
    nonlinearity: float | None = None
    excess_noise_ratio: Interval | None = None

    @property
    def gain_adu_per_e(self) -> float:
        """System gain K, ADU/e⁻."""
        return self.gain.value

    @property
    def offset_adu(self) -> float | None:
        """Mean without light, ADU."""
        return None if self.offset is None else self.offset.value

    @property
    def read_noise_e(self) -> float | None:
        """Temporal noise without light, e⁻."""
        return None if self.read_noise is None else self.read_noise.value

    @property
    def read_noise_adu(self) -> float | None:
        """Temporal noise without light, ADU."""
        return None if self.read_noise is None else self.read_noise.value * self.gain.value

    @property
    def excess_noise(self) -> bool:
        """Whether the camera multiplies electrons: its noise is √2 above photon noise."""
        ratio = self.excess_noise_ratio
        return ratio is not None and ratio.low > 1.15 and ratio.high < 2.2

    @property
    def photoelectron_gain_adu_per_e(self) -> float:
        """ADU per photoelectron: K, or K/2 behind an EM register (F² = 2)."""
        return self.gain.value / 2 if self.excess_noise else self.gain.value

    @property
    def dynamic_range(self) -> float | None:
        """Saturation signal over read noise; None where the offset is not known."""
        if self.offset is None or not self.read_noise_adu:
            return None
        return (self.saturation_adu - self.offset.value) / self.read_noise_adu

    def variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[x | s] of the law, ADU², never below the variance without light."""
        line = self.intercept_adu2 + self.gain.value * np.asarray(signal, dtype=np.float64)
        floored: FloatArray = np.maximum(line, self.dark_variance_adu2)
        return floored


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


@dataclass(frozen=True, slots=True)
class Line:
    """A weighted straight line with the covariance of its two parameters."""

    slope: float
    intercept: float
    slope_error: float
    covariance: tuple[float, float, float]
    """var(slope), cov, var(intercept)."""
    t: float
    """Student's factor of the 95 % interval."""

    def at(self, x: float) -> Interval:
        """Value at `x` with its interval."""
        value = self.intercept + self.slope * x
        ss, si, ii = self.covariance
        half = self.t * float(np.sqrt(max(ss * x * x + 2 * si * x + ii, 0.0)))
        return Interval(value, value - half, value + half)

    @property
    def slope_interval(self) -> Interval:
        """The slope with its interval."""
        half = self.t * self.slope_error
        return Interval(self.slope, self.slope - half, self.slope + half)


def weighted_line(x: FloatArray, y: FloatArray, error: FloatArray) -> Line:
    """Fit y = intercept + slope·x by weighted least squares.

    Where the points scatter more than their errors say, the interval widens accordingly; it is
    never made narrower than the errors.

    Raises
    ------
    CalibrationError
        If all x are the same.
    """
    weight = 1 / error**2
    centre = float(np.average(x, weights=weight))
    spread = float((weight * (x - centre) ** 2).sum())
    if x.size < 2 or np.ptp(x) <= 1e-9 * max(1.0, float(np.abs(x).max())):
        raise CalibrationError(
            f"light levels: all of them have a mean of {centre:.1f} ADU, expected at least two "
            "different ones; record a ladder of light levels or a scene with bright and dark parts"
        )
    height = float(np.average(y, weights=weight))
    slope = float((weight * (x - centre) * (y - height)).sum() / spread)
    residual = y - height - slope * (x - centre)
    freedom = x.size - 2
    inflation = max(1.0, float((weight * residual**2).sum() / freedom)) if freedom > 0 else 1.0
    var_slope = inflation / spread
    var_height = inflation / float(weight.sum())
    # With errors known from many pixels each, the normal factor holds; with scatter taken from
    # few points, Student's does.
    t = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) if inflation > 1 else 1.96
    return Line(
        slope=slope,
        intercept=height - slope * centre,
        slope_error=float(np.sqrt(var_slope)),
        covariance=(var_slope, -centre * var_slope, var_height + centre**2 * var_slope),
        t=t,
    )


def interval_of_mean(values: FloatArray) -> Interval:
    """Mean of independent measurements with its 95 % interval."""
    mean = float(values.mean())
    half = 1.96 * float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0
    return Interval(mean, mean - half, mean + half)


# ----------------------------------------------------------------------------- the whole law


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
    )


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
