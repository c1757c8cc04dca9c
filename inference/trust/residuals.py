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
        (Y, X), ADU.
    sigma_adu
        (Y, X), the noise's standard deviation at the estimate.
    standard
        (Y, X), (raw − estimate) / sigma, clipped; 0 where the camera clips.
    light_adu, own_sigma_adu
        (Y, X), the mean of 4×4 pixels of the camera's image, and the noise's standard deviation
        there: they do not ask the model.
    usable
        (Y, X), False at saturated pixels.
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
        """Take one frame apart; the arrays given are not changed."""
        usable = raw < saturation_adu
        seen = raw.astype(np.float32)
        if pixels.maps is not None:
            seen = pixels.corrected(raw).astype(np.float32)
        light = _spread_out(halved(halved(seen)), seen)
        sigma, own_sigma = noise.deviation(estimate), noise.deviation(light)
        if pixels.maps is not None:
            own = np.asarray(pixels.own_variance_adu2(), np.float32)
            sigma, own_sigma = _with(sigma, own), _with(own_sigma, own)
        standard = seen - estimate
        standard /= sigma
        np.clip(standard, -CLIPPED, CLIPPED, out=standard)
        standard *= usable
        return cls(seen, estimate, sigma, standard, light, own_sigma, usable)


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
