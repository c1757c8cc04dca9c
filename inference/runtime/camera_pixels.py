"""Raw frames as a model sees them that knows every pixel of the camera: for scores and figures.

Owns which part of a model's pixel maps belongs to some frames, the correction of a frame, and the
variance that single pixels have beyond the camera's law. For models without pixel maps nothing is
changed. Inside the graph the same is done by the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...calibration.pixel_maps import Region, part_of
from ..bundle import Bundle
from ..denoiser import Denoiser, KnowsPixels
from ..errors import FrameMismatchError
from ..graph.inspection import read_pixel_maps

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


def maps_of_frames(
    bundle: Bundle, frame_shape: tuple[int, int], region: Region | None
) -> NDArray[np.float32] | None:
    """Return the pixel maps (1, 3, Y, X) of frames; None for models without.

    Raises
    ------
    FrameMismatchError
        If the model holds no maps for such frames, or where they lie on the sensor is not known.
    """
    maps = read_pixel_maps(bundle.model_path)
    if maps is None:
        return None
    held, calibrated = (maps.shape[2], maps.shape[3]), bundle.manifest.camera.roi
    part = part_of(calibrated, held, region, frame_shape)
    if part is None:
        raise FrameMismatchError(
            f"frames are {_described(frame_shape, region)}, the model {bundle.path} knows every "
            f"pixel of {_described(held, calibrated)}; set the camera's region to "
            "that or within it, or train with --no-pixel-maps"
        )
    return np.ascontiguousarray(maps[:, :, part[0], part[1]])


def _described(shape: tuple[int, int], region: Region | None) -> str:
    size = f"{shape[1]}×{shape[0]} pixels"
    return size if region is None else f"{size} at x = {region[0]}, y = {region[1]}"
