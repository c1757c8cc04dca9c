"""What was removed from one frame, in units of the noise that the camera has there.

Owns the standardised residual (x − ŝ)/σ(ŝ), the brightness class of every pixel, and the grids of
half and a quarter of the resolution. What is found in them is said by `local_evidence` and
`global_evidence`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.camera_pixels import CameraPixels
from .noise_variance import NoiseVariance

Image = NDArray[np.float32]
SAMPLED_EVERY = 8
"""Pixels along y and x."""
CLIPPED = 6.0
"""Of the noise: a pixel that jumps, or a cosmic ray, is no structure of the specimen."""


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """One frame and what was removed from it.

    Attributes
    ----------
    raw
        (Y, X), ADU, with every pixel's own offset and gain corrected.
    estimate
        (Y, X), ADU; both with the mean of all where either is no number.
    sigma_adu
        (Y, X), the noise's standard deviation at the estimate.
    standard
        (Y, X), (raw − estimate) / sigma, clipped; 0 where it is not usable.
    light_adu, own_sigma_adu
        (Y, X), the mean of 4×4 pixels of the camera's image, and the noise's standard deviation
        there: they do not ask the model.
    usable
        (Y, X), False at saturated pixels and where the picture or the image is no number.
    """

    raw: Image
    estimate: Image
    sigma_adu: Image
    standard: Image
    light_adu: Image
    own_sigma_adu: Image
    usable: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        raw: NDArray[Any],
        estimate: NDArray[np.float32],
        noise: NoiseVariance,
        *,
        pixels: CameraPixels,
        saturation_adu: float,
    ) -> Residuals:
        """Take one frame apart; the arrays given are not changed.

        `saturation_adu` beyond the pixel type is that of the type.
        """
        usable = raw < clipped_from(raw, saturation_adu)
        seen = raw.astype(np.float32)
        if pixels.maps is not None:
            seen = pixels.corrected(raw).astype(np.float32)
        known = np.isfinite(estimate) & np.isfinite(seen)
        if not known.all():
            usable &= known
            seen, estimate = _filled(seen, known), _filled(estimate, known)
        light = _spread_out(halved(halved(seen)), seen)
        sigma, own_sigma = noise.deviation(estimate), noise.deviation(light)
        if pixels.maps is not None:
            own = np.asarray(pixels.own_variance_adu2(), np.float32)
            sigma, own_sigma = _with(sigma, own), _with(own_sigma, own)
        standard = seen - estimate
        standard /= sigma
        np.clip(standard, -CLIPPED, CLIPPED, out=standard)
        standard[~usable] = 0
        return cls(seen, estimate, sigma, standard, light, own_sigma, usable)


def clipped_from(raw: NDArray[Any], saturation_adu: float = np.inf) -> float:
    """Return from which value on the pixels of a frame say nothing of the light, ADU.

    Where most pixels hold the largest value of the frame, that is where its camera clips, whatever
    its pixel type could hold.
    """
    limit = min(saturation_adu, largest_value(raw.dtype))
    sample = raw[::SAMPLED_EVERY, ::SAMPLED_EVERY]
    if not sample.size:
        return limit
    middle = float(np.median(sample))
    # Only where the sample says so is the whole frame looked at.
    at_its_top = sample.max() <= middle < limit and raw.max() <= middle
    return middle if at_its_top else limit


def largest_value(dtype: np.dtype[Any]) -> float:
    """Return where a camera of this pixel type clips if nothing more is known, ADU."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else np.inf


def _filled(image: Image, known: NDArray[np.bool_]) -> Image:
    """Return an image with its mean where it is not known; a dark one if it is nowhere."""
    mean = image[known].mean(dtype=np.float64) if known.any() else 0.0
    filled: Image = np.where(known, image, np.float32(mean))
    return filled


def _with(sigma: Image, own_variance: Image) -> Image:
    """Return the deviation of pixels with a variance of their own beyond the law's."""
    variance = sigma**2
    total: Image = np.sqrt(np.maximum(variance + own_variance, np.float32(0.05) * variance))
    return total


def _spread_out(means: Image, image: Image) -> Image:
    """Return means of 4×4 pixels at each of them; what is left at the end takes the last."""
    if not means.size:
        return np.full_like(image, image.mean() if image.size else 0.0)
    wide = means.repeat(4, axis=0).repeat(4, axis=1)
    lacking = [(0, size - have) for size, have in zip(image.shape, wide.shape, strict=True)]
    return np.pad(wide, lacking, mode="edge") if any(map(sum, lacking)) else wide


def halved(image: NDArray[Any]) -> Image:
    """Return means of 2×2 pixels; an odd row or column at the end is left out."""
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    part = image[: 2 * rows, : 2 * columns]
    mean: Image = part[::2, ::2] + part[1::2, ::2]
    mean += part[::2, 1::2]
    mean += part[1::2, 1::2]
    mean *= np.float32(0.25)
    return mean
