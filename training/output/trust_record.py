"""What a bundle records of its training, so that later frames can be judged against it.

Owns the frames that are measured: held-out ones as they were denoised, and repeats of their
pictures with new noise. What is measured and how it is judged belongs to `inference.trust`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel
from ...inference.evaluation.coverage import Coverage
from ...inference.runtime.camera_pixels import CameraPixels
from ...inference.trust.evidence import Evidence
from ...inference.trust.noise_variance import NoiseVariance
from ...inference.trust.null import measure_reference
from ..data.side_inputs import Sample
from ..model.estimator import Estimator

REPEATED_FRAMES = 4
REPEATS = 6
"""New noise over the same picture: the mean of what is removed is then known to 0.4 of it."""


@torch.no_grad()
def write_trust_record(
    path: Path,
    estimator: Estimator,
    held_out: Sequence[Sample],
    noise_model: NoiseModel,
    *,
    context_frames: int,
    seed: int,
) -> dict[str, float] | None:
    """Measure held-out frames and write the record; nothing is written where they tell nothing.

    Returns the share of the repeats' pixels that lie within what the estimator states, by the
    percent stated (see `Coverage`); None where it states nothing.

    Parameters
    ----------
    path
        Of the file.
    estimator
        On the CPU.
    held_out
        What it was not trained on.
    noise_model
        The camera's.
    context_frames
        T preceding frames among its inputs.
    seed
        Of the noise of repeats.
    """
    rng = np.random.default_rng(seed)
    measure = _Measure(estimator, NoiseVariance(noise_model), noise_model.covered_range_adu[0])
    frames, repeats = [], []
    coverage = Coverage()
    repeated = _evenly(len(held_out), REPEATED_FRAMES)
    for number, sample in enumerate(held_out):
        evidence, picture = measure(sample)
        frames.append(evidence)
        if number in repeated:
            again = [
                measure(measure.repeat(sample, picture.estimate, context_frames, rng))
                for _ in range(REPEATS)
            ]
            repeats.append([evidence for evidence, _ in again])
            for _, found in again:
                found.count(coverage, picture.estimate)
    record = measure_reference(frames, repeats, measure.floor_adu)
    if record is not None:
        path.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return coverage.result()


def _evenly(count: int, wanted: int) -> set[int]:
    return set(np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """Estimate and its standard deviation, (Y, X), ADU."""

    estimate: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def count(self, coverage: Coverage, truth: NDArray[np.float32]) -> None:
        """Count where the truth lies within what is stated."""
        error = self.estimate.astype(np.float64) - truth
        coverage.add(error, self.deviation.astype(np.float64) ** 2)


class _Measure:
    """Denoises crops as the exported graph does, and measures them."""

    def __init__(self, estimator: Estimator, noise: NoiseVariance, floor_adu: float) -> None:
        self._estimator = estimator
        self._noise = noise
        self.floor_adu = floor_adu

    def __call__(self, sample: Sample) -> tuple[Evidence, _Picture]:
        """Return what a frame says, and its picture."""
        planes = sample.crop(*sample.observations.shape[1:])
        shape = planes[0].shape[2:]
        denoised, uncertainty = (
            image[0, 0].numpy() for image in self._estimator(*map(torch.from_numpy, planes))
        )
        raw = sample.observations[0, : shape[0], : shape[1]]
        evidence = Evidence.measure(
            raw,
            denoised,
            uncertainty,
            self._noise,
            floor_adu=self.floor_adu,
            pixels=self._pixels(sample, shape),
        )
        return evidence, _Picture(denoised, uncertainty)

    def repeat(
        self,
        sample: Sample,
        picture: NDArray[np.float32],
        context_frames: int,
        rng: np.random.Generator,
    ) -> Sample:
        """Return the camera's image of a picture with new noise; nothing moves before it."""
        shape = picture.shape
        observations = sample.observations[:, : shape[0], : shape[1]].copy()
        sigma = np.sqrt(self._noise(picture))
        for row in range(1 + context_frames):
            if row and not observations[row].any():
                continue
            seen = picture + sigma * rng.standard_normal(shape)
            if sample.pixel_maps is not None:
                gain, offset = sample.pixel_maps[:2, : shape[0], : shape[1]]
                seen = (seen - offset) / gain
            observations[row] = _as_pixels(seen, observations.dtype)
        maps = sample.pixel_maps
        return Sample(observations, None if maps is None else maps[:, : shape[0], : shape[1]])

    def _pixels(self, sample: Sample, shape: tuple[int, int]) -> CameraPixels:
        if sample.pixel_maps is None:
            return CameraPixels()
        return CameraPixels(
            sample.pixel_maps[:, : shape[0], : shape[1]], self._noise.least_variance_adu2
        )


def _as_pixels(image: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind not in "iu":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image), limits.min, limits.max).astype(dtype)
