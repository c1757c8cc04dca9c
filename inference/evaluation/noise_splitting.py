"""Compares models on noisy frames alone, by splitting each frame's noise in two.

Owns the split and the score. Nothing is trained here.

A camera with offset: x₁ = x + α·n and x₂ = x − n/α, where n is drawn with the camera's own noise
variance, have uncorrelated noises (Oliveira et al. 2021, arXiv:2111.09447). A photon counter: x₁
is a binomial share of the counts and x₂ the rest, which are independent (Oliveira et al. 2022,
arXiv:2212.01943). The model denoises x₁ and is scored against x₂, so that E[(f(x₁) − x₂)²] is its
true squared error plus a constant that is the same for every model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel
from ...calibration.photon_transfer import QUANTISATION_VARIANCE_ADU2
from ..denoiser import Denoiser

ALPHA = 0.5
"""How much noise is added, relative to the camera's own: x₁ then has 25 % more variance."""
KEPT_SHARE = 0.8
"""Share of the photons that the model sees where frames are photon counts."""

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One observation with its context, split.

    Attributes
    ----------
    seen
        (1 + T, Y, X) in the camera's pixel type: what the model gets.
    compared
        (Y, X) ADU: what its estimate is compared with, of independent noise.
    brightness
        Factor from the estimate for `seen` to the signal of `compared`.
    noise_variance
        (Y, X) ADU², of `compared`.
    """

    seen: Pixels
    compared: NDArray[np.float64]
    brightness: float
    noise_variance: NDArray[np.float64]

    @property
    def shown_noise(self) -> float:
        """Variance of the newest frame of `seen` over that of the camera at the same signal."""
        return 1.0 if self.brightness != 1.0 else 1 + ALPHA**2


def split(
    observations: Pixels,
    noise_variance: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    photon_counts: bool,
    unit_noise: NDArray[np.float64] | None = None,
) -> Split:
    """Split observations (1 + T, Y, X), newest first.

    Parameters
    ----------
    observations
        In the camera's pixel type.
    noise_variance
        (Y, X) ADU², of the newest frame.
    rng
        Draws the noise, or the photons.
    photon_counts
        True if a pixel is a number of photons, without offset and read noise.
    unit_noise
        (Y, X) of unit variance, drawn with the correlation of the camera's noise where pixels
        share it; None draws independent noise.
    """
    newest = observations[0].astype(np.float64)
    if photon_counts:
        seen = rng.binomial(observations.astype(np.int64), KEPT_SHARE)
        rest = (newest - seen[0]) / (1 - KEPT_SHARE)
        return Split(
            seen=seen.astype(observations.dtype),
            compared=rest,
            brightness=1 / KEPT_SHARE,
            noise_variance=noise_variance / (1 - KEPT_SHARE),
        )
    drawn = rng.standard_normal(newest.shape) if unit_noise is None else unit_noise
    noisier = newest + ALPHA * np.sqrt(noise_variance) * drawn
    seen = observations.copy()
    seen[0] = _as_pixels(noisier, observations.dtype)
    # From what was really added, which is not quite what was drawn: pixels are whole numbers.
    added = seen[0].astype(np.float64) - newest
    rounding = QUANTISATION_VARIANCE_ADU2 if observations.dtype.kind == "u" else 0.0
    return Split(
        seen=seen,
        compared=newest - added / ALPHA**2,
        brightness=1.0,
        noise_variance=noise_variance * (1 + 1 / ALPHA**2) + rounding / ALPHA**4,
    )


def _as_pixels(values: NDArray[np.float64], dtype: np.dtype[Any]) -> Pixels:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


def counts_photons(noise_model: NoiseModel, signal_adu: float) -> bool:
    """Return whether the noise model says that pixels are plain photon counts."""
    probe = np.array([0.0, max(signal_adu, 1.0)])
    dark, lit = noise_model.variance(probe)
    return bool(dark < 0.2 and 0.8 < (lit - dark) / probe[1] < 1.25)


def squared_error(denoiser: Denoiser, part: Split) -> float:
    """Estimate the mean squared error of the denoiser on one split observation, ADU²."""
    out = np.empty((2, *denoiser.frame_shape), dtype=np.float32)
    denoiser.denoise(part.seen[: 1 + denoiser.context_frames], out)
    return error_of(out[0], part)


def error_of(estimate: Pixels, part: Split) -> float:
    """Estimate the mean squared error of an estimate (Y, X) made from `part.seen`, ADU²."""
    return float(errors_of(estimate, part).mean())


def errors_of(estimate: Pixels, part: Split) -> NDArray[np.float64]:
    """Return pixels (Y, X) whose mean over any region estimates the squared error there, ADU²."""
    residual = estimate.astype(np.float64) * part.brightness - part.compared
    found: NDArray[np.float64] = residual**2 - part.noise_variance
    return found
