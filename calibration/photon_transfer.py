"""The photon-transfer law of a camera: how its variance grows with light.

Owns the law and what follows from it. How it is measured lives in `fit_photon_transfer`; the shape
of the noise is the mixture's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .noise_model import FloatArray
from .straight_line import Interval

QUANTISATION_VARIANCE_ADU2 = 1 / 12
"""Variance of rounding to whole ADU, which EMVA 1288 takes out of the read noise."""


LEAST_SUSPECTED_RATIO = 1.2
"""Of cumulants: that of a register which multiplies by 1.3, and makes the noise's variance larger
by a quarter."""


def excess_noise_factor(ratio: Interval) -> Interval:
    """Return F² of a multiplying register from its ratio of cumulants.

    In a register of many stages that each double few electrons, one electron comes out as a
    geometric number of mean G: F² = 2 − 1/G, and the ratio is (6G² − 6G + 1)/(2G − 1)²
    (Robbins & Hadwen 2003, doi:10.1109/TED.2003.813462; Basden et al. 2003,
    doi:10.1046/j.1365-8711.2003.07020.x).
    """

    def factor(r: float) -> float:
        spread = float(np.sqrt(max(3 - 2 * max(r, 1.0), 0.0)))  # 1/(2G − 1)
        return 2 / (1 + spread)

    return Interval(factor(ratio.value), factor(ratio.low), factor(ratio.high))


def per_photoelectron(gain: Interval, factor: Interval | None) -> Interval:
    """Return the gain without the excess noise of a multiplying register, if there is one."""
    if factor is None:
        return gain
    value = gain.value / factor.value
    below = np.hypot(1 - gain.low / gain.value, 1 - factor.value / factor.high)
    above = np.hypot(gain.high / gain.value - 1, factor.value / factor.low - 1)
    return Interval(value, value * float(1 - below), value * float(1 + above))


@dataclass(frozen=True, slots=True)
class PhotonTransfer:
    """Var[x | s] = intercept + gain · s, in ADU; the law outside the calibrated range.

    Attributes
    ----------
    gain
        System gain K, ADU/e⁻ (for an EM camera: of the whole chain with its excess noise).
    summed_correlation
        Autocorrelation of the noise, summed over all distances: 1 where neighbouring pixels share
        none. The variance of a pixel grows by gain / summed_correlation per ADU.
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
    pivot_adu, pivot_half_adu2
        The signal at which the line is known best, and half its 95 % interval there: the errors of
        the height at that signal and of the slope are independent. None where not known.
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
    pivot_adu: float | None = None
    pivot_half_adu2: float = 0.0
    summed_correlation: float = 1.0

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
    def gain_known(self) -> bool:
        """Whether noise that grows with light was seen at all."""
        return self.gain.low > 0

    @property
    def slope_adu(self) -> float:
        """By how much the variance of one pixel grows per ADU of signal, ADU."""
        return self.gain.value / self.summed_correlation

    @property
    def read_noise_adu(self) -> float | None:
        """Temporal noise without light, ADU."""
        if self.read_noise is None:
            return None
        return self.read_noise.value * self.photoelectron_gain.value

    @property
    def excess_noise(self) -> bool:
        """Whether the camera multiplies electrons: its noise is above photon noise."""
        ratio = self.excess_noise_ratio
        return ratio is not None and ratio.low > 1.15 and ratio.high < 2.2

    @property
    def excess_noise_suspected(self) -> bool:
        """Whether the noise is more skewed than photons make it, but not surely multiplied."""
        ratio = self.excess_noise_ratio
        if ratio is None or self.excess_noise:
            return False
        return ratio.low > 1 and ratio.value > LEAST_SUSPECTED_RATIO

    @property
    def excess_noise_factor(self) -> Interval | None:
        """F² of an electron-multiplying camera; None of any other."""
        ratio = self.excess_noise_ratio
        return None if ratio is None or not self.excess_noise else excess_noise_factor(ratio)

    @property
    def photoelectron_gain(self) -> Interval:
        """ADU per photoelectron: K, or K/F² behind a multiplying register."""
        return per_photoelectron(self.gain, self.excess_noise_factor)

    @property
    def photoelectron_gain_adu_per_e(self) -> float:
        """ADU per photoelectron."""
        return self.photoelectron_gain.value

    @property
    def dynamic_range(self) -> float | None:
        """Saturation signal over read noise; None where the offset is not known."""
        if self.offset is None or not self.read_noise_adu:
            return None
        return (self.saturation_adu - self.offset.value) / self.read_noise_adu

    def variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[x | s] of the law, ADU², never below the variance without light."""
        line = self.intercept_adu2 + self.slope_adu * np.asarray(signal, dtype=np.float64)
        floored: FloatArray = np.maximum(line, self.dark_variance_adu2)
        return floored

    def variance_half_interval(self, signal: ArrayLike) -> FloatArray:
        """Return half the 95 % interval of the line at `signal`, ADU²; infinite if not known."""
        s = np.asarray(signal, dtype=np.float64)
        slope_half = (self.gain.high - self.gain.low) / 2 / self.summed_correlation
        if self.pivot_adu is None or not np.isfinite(slope_half):
            return np.full(s.shape, np.inf)
        half: FloatArray = np.hypot(slope_half * (s - self.pivot_adu), self.pivot_half_adu2)
        return half
