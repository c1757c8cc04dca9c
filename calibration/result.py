"""What a calibration found.

Owns the calibrated camera as a value: its models, figures and checks, as JSON and in words. How it
was found is the business of `fit_camera`; its page is drawn by `report`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .baseline_noise_models import HistogramNoiseModel, PoissonGaussianNoiseModel
from .checks import Check
from .gaussian_mixture import GaussianMixtureNoiseModel
from .photon_transfer import PhotonTransfer
from .pixel_maps import PixelMaps
from .sensor_figures import SensorFigures
from .straight_line import Interval


@dataclass(frozen=True, slots=True)
class LevelResult:
    """One light level (or one stretch of brightness of a scene) in the report."""

    mean_adu: float
    variance_adu2: float
    model_variance_adu2: float
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A calibrated camera: the models, the figures behind them and the checks."""

    noise_model: GaussianMixtureNoiseModel
    poisson_gaussian: PoissonGaussianNoiseModel
    histogram: HistogramNoiseModel
    levels: tuple[LevelResult, ...]
    held_out_nll: dict[str, float]
    sensor: SensorFigures
    checks: tuple[Check, ...]
    seconds: float

    @property
    def photon_transfer(self) -> PhotonTransfer:
        """Gain, offset, read noise, saturation."""
        return self.noise_model.photon_transfer

    @property
    def maps(self) -> PixelMaps | None:
        """Per-pixel maps, where dark frames were given."""
        return self.noise_model.maps

    def result(self) -> dict[str, Any]:
        """Return the JSON object of `calibrate` and `fit-noise`."""
        law = self.photon_transfer
        return {
            "gain_adu_per_e": law.gain_adu_per_e,
            "gain_interval": _bounds(law.gain),
            "offset_adu": law.offset_adu,
            "offset_interval": _bounds(law.offset),
            "read_noise_e": law.read_noise_e,
            "read_noise_interval": _bounds(law.read_noise),
            "read_noise_adu": law.read_noise_adu,
            "saturation_adu": law.saturation_adu,
            "saturation_reached": law.saturation_reached,
            "dynamic_range": law.dynamic_range,
            "nonlinearity": law.nonlinearity,
            "excess_noise": law.excess_noise,
            "excess_noise_ratio": law.excess_noise_ratio and law.excess_noise_ratio.value,
            "excess_noise_factor": law.excess_noise_factor and law.excess_noise_factor.value,
            "excess_noise_factor_interval": _bounds(law.excess_noise_factor),
            "photoelectron_gain_adu_per_e": law.photoelectron_gain_adu_per_e,
            "photoelectron_gain_interval": _bounds(law.photoelectron_gain),
            "summed_noise_correlation": law.summed_correlation,
            "calibrated_range_adu": list(self.noise_model.signal_range_adu),
            "covered_range_adu": list(self.noise_model.covered_range_adu),
            "source": self.noise_model.source,
            "levels": [
                {
                    "mean_adu": level.mean_adu,
                    "variance_adu2": level.variance_adu2,
                    "model_variance_adu2": level.model_variance_adu2,
                }
                for level in self.levels
            ],
            "sensor": self.sensor.result(),
            "held_out_nll": dict(self.held_out_nll),
            "checks": [check.result() for check in self.checks],
            "seconds": self.seconds,
        }

    def summary(self) -> list[str]:
        """Return the same in a few lines for a person."""
        return _summary(self)


def _bounds(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _summary(calibration: Calibration) -> list[str]:
    """Return the result in plain words."""
    law = calibration.photon_transfer
    lines = [f"gain          {spoken(law.gain)} ADU/e⁻"]
    factor = law.excess_noise_factor
    if factor is not None:
        lines.append(
            f"excess noise  an electron-multiplying camera, F² = {spoken(factor)}; "
            f"{spoken(law.photoelectron_gain)} ADU per photoelectron"
        )
    if law.offset is not None and law.read_noise is not None:
        lines.append(f"offset        {spoken(law.offset)} ADU")
        lines.append(f"read noise    {spoken(law.read_noise)} e⁻ = {law.read_noise_adu:.3g} ADU")
    else:
        least = -law.intercept_adu2 / law.slope_adu
        lines.append(
            "offset        not known, nor read noise: give --dark or --offset "
            f"(the offset is {max(least, 0.0):.1f} ADU if there is no read noise, "
            "more if there is)"
        )
    seen = "" if law.saturation_reached else " (not reached; from the pixel type)"
    lines.append(f"saturation    {law.saturation_adu:.0f} ADU{seen}")
    low, high = calibration.noise_model.signal_range_adu
    lines.append(f"calibrated    {low:.0f} to {high:.0f} ADU, beyond it the photon-transfer line")
    marks = {"green": "good", "amber": "LOOK", "red": "FAIL"}
    lines += [f"{marks[check.colour]}  {check.says}" for check in calibration.checks]
    return lines


def spoken(interval: Interval) -> str:
    """Return a value with its 95 % interval, no more digits than are known: 0.9998 ± 0.0004."""
    value, low, high = interval.value, interval.low, interval.high
    if not np.isfinite([low, high]).all():
        return f"{value:.3g} (not known)"
    half = max(high - value, value - low)
    if value == 0 == low and half > 0:
        return f"below {high:.2g}"
    if half <= 0:
        return f"{value:.6g}"
    digits = max(0, 1 - int(np.floor(np.log10(half))))
    if abs((high - value) - (value - low)) > 0.2 * half:
        return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f} ± {half:.{digits}f}"
