"""What the denoiser did to one frame, in figures that a person can judge while it runs.

Owns the four averages over a frame that reports have always held. Needs no ground truth; the
scores that need one are in `evaluation.evaluate`, what a loss at single places says is in
`local_evidence`, and what all of it means in `verdict`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.camera_pixels import CameraPixels
from .noise_variance import NoiseVariance
from .residuals import largest_value

ALIKE = CameraPixels()
SAMPLED_PIXELS = 65_536
"""Enough for a ratio that is good to 1 %, few enough for less than a millisecond."""


@dataclass(frozen=True, slots=True)
class TrustFigures:
    """How far the removed part of one frame is what the camera adds, and nothing else.

    Attributes
    ----------
    residual_explained
        Variance that the noise model expects in the residual over the variance found there. 1.0:
        what was removed is camera noise. Below: more was removed than noise, structure is lost.
        Above: noise was left in. The residual of a posterior mean ŝ with standard deviation u has
        the expected variance σ²(ŝ) − u². None without a noise model.
    residual_correlation
        Lag-1 correlation of neighbouring residuals, mean over x and y. 0 for white noise;
        structure that was removed raises it.
    uncertainty_adu_median
        Median standard deviation of the estimate, ADU; None where the denoiser states none.
    saturated_share
        Share of pixels at or above saturation; the estimate means nothing there.
    """

    residual_explained: float | None
    residual_correlation: float | None
    uncertainty_adu_median: float | None
    saturated_share: float

    def result(self) -> dict[str, float | None]:
        """Return the figures by name, as the preview and the reports take them."""
        return asdict(self)

    @classmethod
    def measure(
        cls,
        raw: NDArray[Any],
        denoised: NDArray[np.float32],
        uncertainty: NDArray[np.float32],
        noise_variance: NoiseVariance | None,
        *,
        saturation_adu: float | None = None,
        pixels: CameraPixels = ALIKE,
        sampled_pixels: int = SAMPLED_PIXELS,
    ) -> TrustFigures:
        """Measure one frame on a regular sample of its pixels.

        Parameters
        ----------
        raw, denoised, uncertainty
            (Y, X), ADU, of the same frame; none is changed.
        noise_variance
            Of the noise model of this camera; None where there is none.
        saturation_adu
            Where the camera clips; by default the largest value of the pixel type.
        pixels
            What the model knows of the camera's pixels.
        sampled_pixels
            About how many pixels to look at.
        """
        step = max(1, ceil(sqrt(raw.size / sampled_pixels)))
        limit = largest_value(raw.dtype) if saturation_adu is None else saturation_adu
        here, right, below = (
            _Sample.take(raw, denoised, uncertainty, at, step, limit, pixels)
            for at in ((0, 0), (0, 1), (1, 0))
        )
        return cls(
            residual_explained=_explained(here, noise_variance),
            residual_correlation=_mean_correlation(here, right, below),
            uncertainty_adu_median=float(np.median(here.uncertainty)) or None,
            saturated_share=float((raw[::step, ::step] >= limit).mean()),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    residual: NDArray[np.float64]
    denoised: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    usable: NDArray[np.bool_]
    own_variance_adu2: NDArray[np.float64]

    @classmethod
    def take(
        cls,
        raw: NDArray[Any],
        denoised: NDArray[np.float32],
        uncertainty: NDArray[np.float32],
        at: tuple[int, int],
        step: int,
        saturation_adu: float,
        pixels: CameraPixels,
    ) -> _Sample:
        where = (slice(at[0], None, step), slice(at[1], None, step))
        known = pixels.part(where)
        residual = known.corrected(raw[where]) - denoised[where]
        return cls(
            residual,
            denoised[where],
            uncertainty[where],
            (raw[where] < saturation_adu) & np.isfinite(residual),
            np.broadcast_to(known.own_variance_adu2(), denoised[where].shape),
        )


def _explained(sample: _Sample, noise_variance: NoiseVariance | None) -> float | None:
    if noise_variance is None or not sample.usable.any():
        return None
    expected, found = residual_variances(
        sample.residual[sample.usable],
        sample.denoised[sample.usable],
        sample.uncertainty[sample.usable],
        noise_variance,
        sample.own_variance_adu2[sample.usable],
    )
    return expected / found if found > 0 else None


def residual_variances(
    residual: NDArray[Any],
    denoised: NDArray[Any],
    uncertainty: NDArray[Any],
    noise_variance: NoiseVariance,
    own_variance_adu2: NDArray[np.float64] | float = 0.0,
) -> tuple[float, float]:
    """Return the mean variance that the noise model expects in a residual, and that found, ADU².

    For a posterior mean, E[(x − ŝ)²] = σ²(ŝ) − u²: part of the observation's noise stays in the
    estimate, and the residual lacks it. `own_variance_adu2` is what single pixels add to the law.
    """
    noise = noise_variance(denoised) + own_variance_adu2
    expected = noise - uncertainty.astype(np.float64) ** 2
    return float(np.maximum(expected, 0).mean()), float((residual**2).mean())


def _mean_correlation(here: _Sample, right: _Sample, below: _Sample) -> float | None:
    found = [
        correlation
        for neighbour in (right, below)
        if (correlation := _correlation(here, neighbour)) is not None
    ]
    return sum(found) / len(found) if found else None


def _correlation(here: _Sample, there: _Sample) -> float | None:
    rows = min(here.residual.shape[0], there.residual.shape[0])
    columns = min(here.residual.shape[1], there.residual.shape[1])
    usable = here.usable[:rows, :columns] & there.usable[:rows, :columns]
    return correlation(
        here.residual[:rows, :columns][usable], there.residual[:rows, :columns][usable]
    )


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return the correlation of two samples, None where one does not vary."""
    if first.size < 2:
        return None
    a, b = first - first.mean(), second - second.mean()
    scale = sqrt(float((a**2).sum()) * float((b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else None


def lag_one_correlation(residual: NDArray[np.float64]) -> float | None:
    """Return the correlation of horizontally and vertically neighbouring residuals, their mean."""
    found = [
        value
        for value in (
            correlation(residual[:, :-1].ravel(), residual[:, 1:].ravel()),
            correlation(residual[:-1].ravel(), residual[1:].ravel()),
        )
        if value is not None
    ]
    return sum(found) / len(found) if found else None
