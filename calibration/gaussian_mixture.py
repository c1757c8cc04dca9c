"""The Gaussian mixture noise model p(observation | signal).

Owns the model that the rest of the program uses. Its variance is tabulated over the signal and
may take any shape; its form (skewness, tails) is a mixture of standardised Gaussians, tabulated
likewise. Outside the calibrated range it follows the photon-transfer law. Its fit lives in
`fit_gaussian_mixture`, files in `noise_files`.

Derived from the idea of PN2V (Krull et al. 2020, Front. Comput. Sci. 2:5,
doi:10.3389/fcomp.2020.00005) and its mixture form (Prakash et al. 2020, ISBI,
doi:10.1109/ISBI45749.2020.9098612), without the published parametrisation's limits: there the
variance is a polynomial that can only rise, and is clamped from below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .errors import CalibrationError
from .fingerprint import CameraFingerprint
from .likelihood import SIXTEEN_BIT, Codes, mixture_log_likelihood
from .noise_model import LEAST_VARIANCE_ADU2, FloatArray, MixtureTable
from .photon_transfer import QUANTISATION_VARIANCE_ADU2, PhotonTransfer
from .pixel_maps import PixelMaps

UNCERTAIN_VARIANCE = 0.1
"""Relative half-width of the 95 % interval up to which a variance counts as known."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class GaussianMixtureNoiseModel:
    """p(x | s) as a Gaussian mixture whose parameters follow the signal.

    Attributes
    ----------
    signal_adu, variance_adu2
        (J,) knots of the total variance, linear in between.
    shape_signal_adu
        (H,) knots of the standardised form.
    shape_weights, shape_offsets, shape_variances
        (K, H): Σ w = 1, Σ w·o = 0, Σ w·(v + o²) = 1. Between two knots the form is a mixture of
        both, so that mean and variance stay what they are and components need no matching; the
        table therefore has 2K components: those of even and those of odd knots.
    photon_transfer
        The law outside the calibrated range.
    codes
        The camera's range and rounding.
    fingerprint
        The camera and setting that it belongs to.
    source
        'calibrated', or 'bootstrapped' from ordinary data.
    maps
        Per-pixel offset, variance and response over `fingerprint.roi`, where measured.
    record
        What the calibration found (its JSON result), kept with the model.
    """

    signal_adu: FloatArray
    variance_adu2: FloatArray
    shape_signal_adu: FloatArray
    shape_weights: FloatArray
    shape_offsets: FloatArray
    shape_variances: FloatArray
    photon_transfer: PhotonTransfer
    codes: Codes = SIXTEEN_BIT
    fingerprint: CameraFingerprint = field(default_factory=CameraFingerprint)
    source: Literal["calibrated", "bootstrapped"] = "calibrated"
    maps: PixelMaps | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def signal_range_adu(self) -> tuple[float, float]:
        """The calibrated range of signals, ADU."""
        return float(self.signal_adu[0]), float(self.signal_adu[-1])

    @property
    def covered_range_adu(self) -> tuple[float, float]:
        """The signals at which the noise is known, ADU.

        From the camera's offset where it is known, else from the dimmest calibrated signal; up to
        saturation, or to where the photon-transfer law becomes too uncertain.
        """
        low, high = self.signal_range_adu
        law = self.photon_transfer
        if law.offset_adu is not None:
            low = min(low, law.offset_adu)
        if law.saturation_adu > high:
            grid = np.linspace(high, law.saturation_adu, 513)
            known = self.uncertainty_of_variance(grid) <= UNCERTAIN_VARIANCE
            high = float(grid[np.flatnonzero(known).max(initial=0)])
        return low, high

    def uncertainty_of_variance(self, signal: ArrayLike) -> Any:
        """Return half the 95 % interval of the law over the variance, elementwise.

        Only beyond the calibrated range the model depends on it.
        """
        return self.photon_transfer.variance_half_interval(signal) / self.variance(signal)

    @property
    def least_variance_adu2(self) -> float:
        """The variance floor: that of the dark frames, and never less than rounding makes."""
        rounding = QUANTISATION_VARIANCE_ADU2 * self.codes.step**2
        return max(self.photon_transfer.dark_variance_adu2, rounding, LEAST_VARIANCE_ADU2)

    def variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[observation | signal] in ADU², elementwise.

        Between knots it is interpolated. Brighter light continues with the slope of the
        photon-transfer law; dimmer light on the line to the camera without light, where its
        offset is known.
        """
        s = np.asarray(signal, dtype=np.float64)
        law = self.photon_transfer
        low, high = self.signal_range_adu
        total = np.interp(s, self.signal_adu, self.variance_adu2)
        total = total + law.slope_adu * np.maximum(s - high, 0.0)
        slope = law.slope_adu
        if law.offset_adu is not None and law.offset_adu < low:
            slope = (self.variance_adu2[0] - law.dark_variance_adu2) / (low - law.offset_adu)
        floored: FloatArray = np.maximum(
            total - slope * np.maximum(low - s, 0.0), self.least_variance_adu2
        )
        return floored

    def pixel_variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[observation | signal] of every pixel of the calibrated region, ADU².

        A pixel whose amplifier is noisier or quieter than the others without light stays so by
        the same amount with light (Huang et al. 2013, doi:10.1038/nmeth.2488). Without maps all
        pixels are alike.

        Parameters
        ----------
        signal
            (…, Y, X) ADU over the region of the maps.

        Raises
        ------
        CalibrationError
            If the image is not of the maps' shape.
        """
        s = np.asarray(signal, dtype=np.float64)
        if self.maps is None:
            return self.variance(s)
        if s.shape[-2:] != self.maps.variance_adu2.shape:
            raise CalibrationError(
                f"noise model: maps of {self.maps.variance_adu2.shape} pixels, an image of "
                f"{s.shape[-2:]}; use the region of the sensor that was calibrated"
            )
        own = self.maps.variance_adu2 - self.photon_transfer.dark_variance_adu2
        rounding = QUANTISATION_VARIANCE_ADU2 * self.codes.step**2
        total: FloatArray = np.maximum(self.variance(s) + own, max(rounding, LEAST_VARIANCE_ADU2))
        return total

    def pixel_log_likelihood(self, observation: ArrayLike, signal: ArrayLike) -> FloatArray:
        """Return log p(observation | signal) of images (…, Y, X), each pixel with its own noise.

        Raises
        ------
        CalibrationError
            If the images are not of the maps' shape.
        """
        x, s = np.broadcast_arrays(
            np.asarray(observation, dtype=np.float64), np.asarray(signal, dtype=np.float64)
        )
        weights, offsets, variances = self.components(s.ravel())
        ratio = self.pixel_variance(s).ravel() / self.variance(s).ravel()
        found = mixture_log_likelihood(
            x.ravel(),
            s.ravel() + offsets * np.sqrt(ratio),
            variances * ratio,
            weights,
            self.codes,
        )
        return found.reshape(x.shape)

    def components(self, signal: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return weights, offsets (ADU) and variances (ADU²) of the components, (K, M) each."""
        total = self.variance(signal)
        number = self.shape_signal_adu.size
        if number == 1:
            tables = (self.shape_weights, self.shape_offsets, self.shape_variances)
            weights, offsets, shares = (np.repeat(t, signal.size, axis=1) for t in tables)
            return weights, offsets * np.sqrt(total), shares * total
        knots = np.arange(number, dtype=np.float64)
        place = np.interp(signal, self.shape_signal_adu, knots)
        left = np.minimum(place.astype(np.intp), number - 2)
        share = place - left
        even = left + left % 2
        odd = left + 1 - left % 2
        of_even = np.where(left % 2 == 0, 1 - share, share)
        weights = np.concatenate(
            [self.shape_weights[:, even] * of_even, self.shape_weights[:, odd] * (1 - of_even)]
        )
        both = np.concatenate([even, odd]).reshape(2, -1)
        offsets = np.concatenate([self.shape_offsets[:, at] for at in both]) * np.sqrt(total)
        variances = np.concatenate([self.shape_variances[:, at] for at in both]) * total
        return weights, offsets, variances

    def log_likelihood(self, observation: ArrayLike, signal: ArrayLike) -> FloatArray:
        """Return log p(observation | signal), elementwise and broadcast; ADU in, nats out.

        The probability of the camera's code: rounding and clipping included, so that it sums to 1
        over the camera's codes for any signal.
        """
        x, s = np.broadcast_arrays(
            np.asarray(observation, dtype=np.float64), np.asarray(signal, dtype=np.float64)
        )
        out = np.empty(x.size)
        flat_x, flat_s = x.ravel(), s.ravel()
        for start in range(0, x.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            weights, offsets, variances = self.components(flat_s[part])
            out[part] = mixture_log_likelihood(
                flat_x[part], flat_s[part] + offsets, variances, weights, self.codes
            )
        return out.reshape(x.shape)

    def mixture(self, signal: ArrayLike) -> MixtureTable:
        """Tabulate the model at the given signals (G,)."""
        grid = np.asarray(signal, dtype=np.float64)
        weights, offsets, variances = self.components(grid)
        return MixtureTable(signal=grid, weights=weights, offsets=offsets, variances=variances)
