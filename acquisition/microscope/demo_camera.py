"""Micro-Manager's demo camera: the law of its noise, and a living specimen before it.

The demo camera has pictures without noise and, in its mode Noise, an even field with shot and read
noise; nothing in it is noisy and alive. So a simulated specimen takes the place of its pixels as
they leave the engine, ahead of everything of ours: what the stream is given is what is recorded.
Its noise follows the law that the camera has in its mode Noise, read from its properties, so that
a calibration of the camera in that mode holds for the specimen's images.

Owns that law and what of the specimen a frame sees: time, place, plane, channel and exposure.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from .core import Microscope
from .specimen import CameraLaw, FloatImage, Specimen

OFFSETS_ADU: Mapping[str, float] = {"uint8": 9.25, "uint16": 99.25}
"""Measured in mode Noise: a quarter more in the dark and a quarter less in light, because it cuts
to whole numbers once in the dark and twice in light."""
PHOTOELECTRONS_PER_MS = 0.4
"""What the brightest structures give."""
BLUR_PER_UM = 0.4
"""Width of the blur, in pixels, for every micrometre out of focus."""
PATIENCE = 1.5
"""Time left to a specimen that is slower than the camera: in a run the machine has more to do."""
LADDER_EXPOSURE_MS = 50.0
"""Exposure at which an even field is to fill the camera; it knows hundredths of a millisecond."""

_STAINS: Mapping[int, tuple[float, float]] = {0: (1.0, 1.0), 1: (1.4, 0.15), 2: (0.3, 1.2)}


def camera_law(microscope: Microscope) -> CameraLaw:
    """Return the law by which the demo camera turns photoelectrons into numbers, as it is set."""
    electrons_per_adu = float(microscope.property_or_none("Photon Conversion Factor") or 1.0)
    read_noise_e = float(microscope.property_or_none("ReadNoise (electrons)") or 0.0)
    return CameraLaw(
        1.0 / electrons_per_adu,
        OFFSETS_ADU[microscope.pixel_type],
        read_noise_e,
        microscope.saturation_adu,
    )


def show_even_field(microscope: Microscope) -> None:
    """Give the camera an even field, bright enough to fill it within `LADDER_EXPOSURE_MS`.

    Its other modes are pictures without noise.
    """
    microscope.set_property("Mode", "Noise")
    microscope.set_property("FastImage", 0)
    limits = microscope.property_limits("Photon Flux", device=microscope.camera)
    if limits is not None:
        flux = microscope.saturation_adu / camera_law(microscope).gain_adu_per_e
        flux /= LADDER_EXPOSURE_MS
        microscope.set_property("Photon Flux", round(min(max(flux, limits[0]), limits[1]), 2))


class SpecimenBeforeCamera:
    """A simulated living specimen that the demo camera looks at.

    It fills the region that the camera reads. It lives on between runs: a frame shows it as it is
    at that time, unless the first index is given.

    Parameters
    ----------
    microscope
        With the demo camera; its fast mode is switched on, because its picture is not used.
    seed
        Of the specimen.
    first_index
        Which moment of the specimen's life the first time point shows. By the clock if not given.
    """

    def __init__(
        self, microscope: Microscope, *, seed: int = 0, first_index: int | None = None
    ) -> None:
        microscope.set_property("FastImage", 1)
        self.law = camera_law(microscope)
        self.first_index = int(time.time()) if first_index is None else first_index
        self._seed = seed
        self._shape = microscope.frame_shape
        self._dtype = np.dtype(microscope.pixel_type)
        self._exposure_ms = microscope.exposure_ms
        self._home = microscope.stage_um or (0.0, 0.0)
        self._focus_um = microscope.focus_um or 0.0
        self._random = np.random.default_rng()
        self._places: dict[tuple[int, int], Specimen] = {}

    def least_interval_s(self) -> float:
        """Return how far apart time points have to be, so that no frame of the camera is lost.

        0 where the camera's exposure is longer than the specimen takes, which is tried here.
        """
        axes = {"Axes": {"time": 0}}
        self.observe(axes)  # the first one makes the specimen
        began = time.perf_counter()
        self.observe(axes)
        seconds = time.perf_counter() - began
        return 0.0 if seconds < 0.7 * self._exposure_ms / 1000 else PATIENCE * seconds

    @cached_property
    def specimen(self) -> Specimen:
        """The specimen where the stage stands, at the run's exposure."""
        return self._specimen_at(self._home)

    def observe(self, metadata: Mapping[str, Any]) -> NDArray[Any]:
        """Return the image (Y, X) that the camera would have given, ADU, in its pixel type.

        Called by the thread of the hook alone, with Micro-Manager's tags of the camera's image.
        """
        signal = self._photoelectrons(metadata)
        return self.law.observe(signal, self._random).astype(self._dtype)

    def _photoelectrons(self, metadata: Mapping[str, Any]) -> FloatImage:
        axes = metadata.get("Axes", {})
        x, y = (_number(metadata, f"{axis}Position_um_Intended", math.nan) for axis in "XY")
        place = self._home if math.isnan(x + y) else (x, y)
        exposure_ms = _number(metadata, "Exposure", self._exposure_ms)
        image = self._specimen_at(place).structure(
            self.first_index + int(axes.get("time", 0)), stain=_stain(axes.get("channel"))
        )
        z = _number(metadata, "ZPosition_um_Intended", self._focus_um)
        blur = BLUR_PER_UM * abs(z - self._focus_um)
        if blur > 0:
            image = scipy.ndimage.gaussian_filter(image, blur)
        return image * np.float32(PHOTOELECTRONS_PER_MS * exposure_ms)

    def _specimen_at(self, place: tuple[float, float]) -> Specimen:
        here = round(place[0]), round(place[1])  # µm: a stage comes to rest near where it was sent
        if here not in self._places:
            seed = zlib.crc32(f"{self._seed} {here}".encode()) if any(here) else self._seed
            peak = PHOTOELECTRONS_PER_MS * self._exposure_ms
            self._places[here] = Specimen(self._shape, self.law, peak, seed)
        return self._places[here]


def _stain(channel: object) -> tuple[float, float]:
    """Return how brightly a channel shows cells and filaments."""
    if channel is None:
        return _STAINS[0]
    return _STAINS[zlib.crc32(str(channel).encode()) % len(_STAINS)]


def _number(metadata: Mapping[str, Any], name: str, otherwise: float) -> float:
    try:
        return float(metadata.get(name, otherwise))
    except (TypeError, ValueError):
        return otherwise
