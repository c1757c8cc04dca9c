"""Scores that need no truth: on frames whose noise was split in two.

Owns the score of one frame; how noise is split is `noise_splitting`'s. All denoisers of a
comparison are given the same splits of the same frames, so that their scores differ by what they
do alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...calibration.noise_model import NoiseModel
from ..denoiser import Denoiser
from ..runtime.camera_pixels import CameraPixels
from .noise_splitting import Split, counts_photons, error_of, split

NEUTRAL_SIGMA_PX = 1.25
"""Of the blur that says how bright a pixel is, and so how much noise is split."""
LEAST_NOISE_ADU2 = 1e-3
"""Keeps the split defined where a camera has no noise at all."""


@dataclass(frozen=True, slots=True)
class BlindScores:
    """The scores of one frame.

    Attributes
    ----------
    held_out_mse_adu2
        Estimate of the squared error against the signal, ADU²: unbiased, if the noise is what the
        noise model says and independent between pixels.
    held_out_mse_raw_adu2
        The same of the frame as it was given.
    held_out_nll
        Negative logarithm of the probability density that the denoiser gives to the half which it
        did not see, nats per pixel: a normal one around its estimate, with the variance of the
        noise and of its own uncertainty. It punishes a wrong estimate and a wrong uncertainty.
    """

    held_out_mse_adu2: float
    held_out_mse_raw_adu2: float
    held_out_nll: float


@dataclass(eq=False)
class BlindScoring:
    """Scores one denoiser on splits of frames.

    Attributes
    ----------
    noise_model
        How much noise is split, and how it depends on the signal.
    seed
        Of the splits: with the index of the frame it settles them.
    """

    noise_model: NoiseModel
    pixels: CameraPixels = field(default_factory=CameraPixels)
    seed: int = 0

    def score(
        self, denoiser: Denoiser, observations: NDArray[np.generic], index: int
    ) -> BlindScores:
        """Split one frame with its context (1 + T, Y, X), denoise one part, score on the other."""
        part = self._split(observations, np.random.default_rng((self.seed, index)))
        out = np.empty((2, *denoiser.frame_shape), np.float32)
        denoiser.denoise(part.seen, out)
        raw = self.pixels.corrected(part.seen[0])
        return BlindScores(
            held_out_mse_adu2=error_of(out[0], part),
            held_out_mse_raw_adu2=error_of(raw, part),
            held_out_nll=_nll(out, part),
        )

    def _split(self, observations: NDArray[np.generic], rng: np.random.Generator) -> Split:
        signal = gaussian_filter(self.pixels.corrected(observations[0]), NEUTRAL_SIGMA_PX)
        variance = np.asarray(self.noise_model.variance(signal)) + self.pixels.own_variance_adu2()
        part = split(
            observations,
            np.maximum(variance, LEAST_NOISE_ADU2),
            rng,
            photon_counts=counts_photons(self.noise_model, float(signal.mean())),
        )
        compared = self.pixels.corrected(part.compared)
        return Split(part.seen, compared, part.brightness, part.noise_variance)


def _nll(estimate: NDArray[np.float32], part: Split) -> float:
    mean = estimate[0].astype(np.float64) * part.brightness
    stated = (estimate[1].astype(np.float64) * part.brightness) ** 2
    variance = part.noise_variance + stated
    squares = (part.compared - mean) ** 2 / variance
    return float(0.5 * (np.log(2 * np.pi * variance) + squares).mean())
