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

    def variance_half_interval(self, signal: ArrayLike) -> FloatArray:
        """Return half the 95 % interval of the line at `signal`, ADU²; infinite if not known."""
        s = np.asarray(signal, dtype=np.float64)
        slope_half = (self.gain.high - self.gain.low) / 2
        if self.pivot_adu is None or not np.isfinite(slope_half):
            return np.full(s.shape, np.inf)
        half: FloatArray = np.hypot(slope_half * (s - self.pivot_adu), self.pivot_half_adu2)
        return half
