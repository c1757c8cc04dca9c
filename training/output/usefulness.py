"""Whether a model is worth its name: better than what it was given, and than a plain blur.

And whether the training was worth it: the general model, which has seen none of the frames, is a
further competitor where it suits them.

Owns the comparison on held-out frames, without clean images, and what a person is told about it.
Each frame's noise is split in two (see `inference.evaluation.noise_splitting`): all see one part
and are scored against the other. The widths of the blurs are chosen on the same frames: the
competitor is as strong as a blur of one width can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...calibration.noise_correlation import NoiseCorrelation
from ...calibration.noise_model import NoiseModel
from ...inference.evaluation.noise_splitting import (
    Split,
    counts_photons,
    error_of,
    errors_of,
    split,
)
from ...inference.evaluation.trivial_competitors import WIDTHS_PX
from ..data.side_inputs import Sample
from ..model.estimator import Estimator
from .untrained_general import UntrainedGeneral

COMPARED_FRAMES = 8
"""Crops of held-out frames: half a million pixels, which tell a percent of the error."""
NEUTRAL_SIGMA_PX = 1.25
"""Of the blur that says how bright a pixel is, and so how much noise is split: no competitor's."""
LEAST_GAIN = 0.002
"""Of an error, that a model has to be better by: a difference in the last digits is none."""
GENERAL_GAIN = 0.02
"""Of an error, by which the general model has to be better before another training is advised:
0.1 dB; and by more than chance."""
CERTAIN_SIGMA = 3.0
LEAST_NOISE_ADU2 = 1e-3
"""Keeps the split defined where a camera has no noise at all."""


@dataclass(frozen=True, slots=True)
class Usefulness:
    """Mean squared errors on the same held-out frames, ADU².

    Attributes
    ----------
    model, input, blur
        Of the model, of the frame as it was given, of the frame blurred.
    blur_sigma_px
        The width of that blur.
    running_mean
        Of the mean of all frames that the model is given, blurred; None without preceding frames.
    frames
        How many.
    general
        Of the general model without any training; None where it does not suit the noise.
    advice
        What to do where that is surely better than the model.
    """

    model: float
    input: float
    blur: float
    blur_sigma_px: float
    running_mean: float | None
    frames: int
    general: float | None = None
    advice: str | None = None

    @property
    def better_than_trivial(self) -> bool:
        """Whether the model beats its input and the blur of it."""
        return self._beats(self.input) and self._beats(self.blur)

    def _beats(self, error: float) -> bool:
        return self.model < error - LEAST_GAIN * abs(error)

    def figures(self) -> dict[str, float | None]:
        """Return what the manifest keeps."""
        return {
            "held_out_mse_adu2": self.model,
            "held_out_mse_input_adu2": self.input,
            "held_out_mse_blur_adu2": self.blur,
            "blur_sigma_px": self.blur_sigma_px,
            "held_out_mse_running_mean_adu2": self.running_mean,
            "held_out_mse_general_adu2": self.general,
        }

    def sentence(self) -> str:
        """Return the verdict in words."""
        found = (
            f"squared error on held-out frames {shown(self.model)}, of the raw frames "
            f"{shown(self.input)}, of a Gaussian blur ({self.blur_sigma_px:g} px) "
            f"{shown(self.blur)}"
        )
        if self.advice is not None and self.general is not None:
            by = f" ({shown(self.general)})" if self.general > 0 else ""
            found += f"; the general model is better without any training{by}: {self.advice}"
        if not self._beats(self.input):
            return f"this model is no better than the raw frames: {found}"
        if not self._beats(self.blur):
            return f"this model is no better than a blur: {found}"
        if self.running_mean is not None and self.running_mean < self.model:
            return (
                f"better than the raw frames and a blur of them, but the blurred mean of the same "
                f"frames is better still ({shown(self.running_mean)}), as long as nothing "
                f"moves: {found}"
            )
        return f"better than the raw frames and than a blur: {found}"


def shown(error_adu2: float) -> str:
    """Return an error with its unit; an estimate of a small one can fall below zero by chance."""
    return f"{error_adu2:.3g} ADU²" if error_adu2 > 0 else "too small to measure"


@torch.no_grad()
def usefulness_of(
    estimator: Estimator,
    held_out: Sequence[Sample],
    noise_model: NoiseModel,
    *,
    context_frames: int,
    seed: int,
    correlation: NoiseCorrelation | None = None,
    general: UntrainedGeneral | None = None,
) -> Usefulness:
    """Compare a trained estimator with its input, with blurs of it, and with the general model.

    Parameters
    ----------
    estimator
        On the CPU.
    held_out
        What it was not trained on.
    noise_model
        The camera's: how much noise is split.
    context_frames
        T preceding frames among its inputs.
    seed
        Of the split.
    correlation
        Of the noise, which must be split as it is correlated; None takes it for independent.
    general
        The general model; None where it does not suit the recordings.
    """
    rng = np.random.default_rng(seed)
    count = min(COMPARED_FRAMES, len(held_out))
    chosen = [held_out[i] for i in np.linspace(0, len(held_out) - 1, count).round().astype(int)]
    model, blurs, means, of_general = [], [], [], []
    for sample in chosen:
        part = _split(sample, noise_model, rng, correlation)
        shown_part = Sample(part.seen, sample.pixel_maps)
        denoised, _ = estimator(*map(torch.from_numpy, shown_part.crop(*part.compared.shape)))
        model.append(errors_of(denoised[0, 0].numpy(), part).ravel())
        if general is not None:
            of_general.append(
                errors_of(general.denoised(shown_part, part.shown_noise), part).ravel()
            )
        seen = part.seen[: 1 + context_frames].astype(np.float64)
        own = [_corrected(frame, sample) for frame in seen if frame.any()] or [seen[0]]
        blurs.append(_blurred_errors(own[0], part))
        means.append(_blurred_errors(np.mean(own, axis=0), part))
    by_width, of_means = np.mean(blurs, axis=0), np.mean(means, axis=0)
    best = 1 + int(by_width[1:].argmin())
    return Usefulness(
        model=float(np.mean([errors.mean() for errors in model])),
        input=float(by_width[0]),
        blur=float(by_width[best]),
        blur_sigma_px=WIDTHS_PX[best],
        running_mean=float(of_means.min()) if context_frames else None,
        frames=count,
        **_of_general(general, model, of_general, chosen),
    )


def _of_general(
    general: UntrainedGeneral | None,
    model: Sequence[NDArray[np.float64]],
    errors: Sequence[NDArray[np.float64]],
    chosen: Sequence[Sample],
) -> dict[str, Any]:
    """Return the general model's error, and what to do if it is surely less than the model's."""
    if general is None:
        return {}
    error = float(np.mean([of.mean() for of in errors]))
    if not np.isfinite(error):  # a noise model that says nothing of the camera's gain
        return {}
    gains = np.concatenate(model) - np.concatenate(errors)
    # What the split drew is independent from pixel to pixel, and most of what a gain scatters by.
    by_chance = CERTAIN_SIGMA * float(gains.std()) / gains.size**0.5
    worth = GENERAL_GAIN * abs(float(np.concatenate(model).mean()))
    better = float(gains.mean()) > max(by_chance, worth)
    return {"general": error, "advice": general.advice(chosen) if better else None}


def _split(
    sample: Sample,
    noise_model: NoiseModel,
    rng: np.random.Generator,
    correlation: NoiseCorrelation | None,
) -> Split:
    newest = sample.observations[0].astype(np.float64)
    signal = gaussian_filter(newest, NEUTRAL_SIGMA_PX)
    variance = np.asarray(noise_model.variance(signal))
    if sample.pixel_maps is not None:
        variance = variance + noise_model.least_variance_adu2 * np.expm1(sample.pixel_maps[2])
    drawn = None
    if correlation is not None and correlation.is_correlated:
        drawn = correlation.drawn(newest.shape, rng)
    part = split(
        sample.observations,
        np.maximum(variance, LEAST_NOISE_ADU2),
        rng,
        unit_noise=drawn,
        photon_counts=drawn is None and counts_photons(noise_model, float(signal.mean())),
    )
    return Split(
        seen=part.seen,
        compared=_corrected(part.compared, sample),
        brightness=part.brightness,
        noise_variance=part.noise_variance,
    )


def _corrected(frame: NDArray[Any], sample: Sample) -> NDArray[np.float64]:
    """Return a frame as the camera's pixels would have shown it were they alike."""
    if sample.pixel_maps is None:
        return frame.astype(np.float64)
    corrected: NDArray[np.float64] = frame * sample.pixel_maps[0] + sample.pixel_maps[1]
    return corrected


def _blurred_errors(picture: NDArray[np.float64], part: Split) -> list[float]:
    return [
        error_of(gaussian_filter(picture, width) if width else picture, part)
        for width in WIDTHS_PX
    ]
