"""All that one frame says of its picture: the figures, the maps, what it looks like.

Owns the one pass over a frame from which everything else is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.camera_pixels import CameraPixels
from .global_evidence import Figures, fine_structure, global_figures
from .local_evidence import filtered, smooth
from .noise_variance import NoiseVariance
from .residuals import Image, Residuals, halved
from .training_domain import Features, domain_features

ALIKE = CameraPixels()


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One frame, measured.

    Attributes
    ----------
    pixels
        How many the frame has.
    told_share
        Of the pixels, that say anything: saturated ones do not.
    figures
        Of the whole frame, see `global_evidence`.
    maps
        The filtered residual at each scale, see `local_evidence`.
    brightness
        The smoothed picture on the grids of the maps, ADU.
    features
        What the frame looks like, see `training_domain`.
    """

    pixels: int
    told_share: float
    figures: Figures
    maps: list[Image]
    brightness: list[Image]
    features: Features

    @classmethod
    def measure(
        cls,
        raw: NDArray[Any],
        estimate: NDArray[np.float32],
        uncertainty: NDArray[np.float32],
        noise: NoiseVariance,
        *,
        floor_adu: float = 0.0,
        saturation_adu: float = np.inf,
        pixels: CameraPixels = ALIKE,
        with_features: bool = True,
    ) -> Evidence:
        """Measure one frame; the arrays given, (Y, X) in ADU, are not changed."""
        residuals = Residuals.of(
            raw, estimate, noise, pixels=pixels, saturation_adu=saturation_adu
        )
        picture = residuals.estimate
        smoothed = np.asarray(smooth(picture), np.float32)
        fine = fine_structure(picture, smoothed, residuals.sigma_adu)
        maps = filtered(residuals.standard)
        brightness = [smoothed]
        for _ in maps[1:]:
            brightness.append(halved(brightness[-1]))
        return cls(
            pixels=raw.size,
            told_share=float(residuals.usable.mean()) if raw.size else 0.0,
            figures=global_figures(residuals, smoothed, fine, uncertainty),
            maps=maps,
            brightness=brightness,
            features=domain_features(residuals.raw, residuals.sigma_adu, floor_adu)
            if with_features
            else {},
        )
