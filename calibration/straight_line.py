"""Values with their 95 % intervals, and the weighted straight line through them.

Owns the arithmetic of intervals and lines; what they mean for a camera is the business of
`fit_photon_transfer`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from .errors import CalibrationError
from .noise_model import FloatArray

CONFIDENCE = 0.95


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
class Line:
    """A weighted straight line with the covariance of its two parameters."""

    slope: float
    intercept: float
    slope_error: float
    covariance: tuple[float, float, float]
    """var(slope), cov, var(intercept)."""
    t: float
    """Student's factor of the 95 % interval."""
    pivot: float
    """Where the line is known best: there its height and its slope err independently."""

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
    t = float(scipy.stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) if inflation > 1 else 1.96
    return Line(
        slope=slope,
        intercept=height - slope * centre,
        slope_error=float(np.sqrt(var_slope)),
        covariance=(var_slope, -centre * var_slope, var_height + centre**2 * var_slope),
        t=t,
        pivot=centre,
    )


def interval_of_mean(values: FloatArray) -> Interval:
    """Mean of independent measurements with its 95 % interval."""
    mean = float(values.mean())
    half = 1.96 * float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0
    return Interval(mean, mean - half, mean + half)
