"""Raw frames as a model sees them that knows every pixel of the camera: for scores and figures.

Owns the correction of a frame and the variance that single pixels have beyond the camera's law.
For models without pixel maps nothing is changed. Inside the graph the same is done by the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..denoiser import Denoiser, KnowsPixels

MOST_EXCESS = 9.0
"""Log of variance over the law's. Beyond it, ninety times the noise without light, a pixel is
dead or says as little, and is scored as any other."""


class Noise(Protocol):
    """Noise with a floor: a noise model, or a table of its variance."""

    @property
    def least_variance_adu2(self) -> float:
        """The variance without light, ADU²."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class CameraPixels:
    """What is known of the pixels of some frames.

    Attributes
    ----------
    maps
        (3, Y, X) of `PixelMaps.correction`; None where all pixels count alike.
    dark_variance_adu2
        Of the camera's law, without light.
    """

    maps: NDArray[np.float32] | None = None
    dark_variance_adu2: float = 0.0

    @classmethod
    def of(cls, denoiser: Denoiser, noise: Noise | None) -> CameraPixels:
        """Return what a denoiser knows of the pixels of its frames.

        `noise` is the camera's noise model or a table of its variance; None where it is not known.
        """
        maps = denoiser.pixel_maps if isinstance(denoiser, KnowsPixels) else None
        if maps is None:
            return cls()
        return cls(maps[0], 0.0 if noise is None else noise.least_variance_adu2)

    def part(self, where: tuple[slice, slice]) -> CameraPixels:
        """Return what is known of some rows and columns."""
        if self.maps is None:
            return self
        return CameraPixels(self.maps[:, where[0], where[1]], self.dark_variance_adu2)

    def corrected(self, frame: NDArray[Any]) -> NDArray[np.float64]:
        """Return a frame (Y, X) with the camera's offset and gain in every pixel, ADU."""
        pixels = frame.astype(np.float64)
        return pixels if self.maps is None else pixels * self.maps[0] + self.maps[1]

    def own_variance_adu2(self) -> NDArray[np.float64] | float:
        """Return what each pixel's variance has beyond that of the law, ADU²; may be negative."""
        if self.maps is None:
            return 0.0
        excess = self.maps[2].astype(np.float64)
        own: NDArray[np.float64] = self.dark_variance_adu2 * np.expm1(
            np.where(excess < MOST_EXCESS, excess, 0.0)
        )
        return own
