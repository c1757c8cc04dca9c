"""What pycro-manager calls with every image, turned into a frame of our own.

Owns the copy (whatever the user's script or pycro-manager does with the image afterwards, the
frame stays as the camera gave it) and what is known of each camera from one image to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...calibration.fingerprint import CameraFingerprint
from ..errors import AcquisitionError
from ..stream.camera_settings import camera_label, exposure_ms, said, settings_of, telling_tags
from ..stream.camera_state import CameraState
from ..stream.frame import Frame
from ..stream.frame_pool import FramePool
from ..stream.storable_metadata import text

GREY_TYPES = ("uint8", "uint16")
"""What cameras give that a camera model can describe."""


class _Known(NamedTuple):
    """What the last image of a camera said, and what follows from it."""

    told: tuple[Any, ...]
    settings: CameraFingerprint


class FrameMaker:
    """Makes frames of the images of one run, in the order of their arrival.

    Used by one caller at a time.

    Parameters
    ----------
    camera
        What is known of it beforehand.
    """

    def __init__(self, camera: CameraState) -> None:
        self._camera = camera
        self._indices = count()
        self._pool = FramePool()
        self._first_camera: str | None = None
        self._known: dict[str, _Known] = {}

    def prepare(self) -> None:
        """Get memory for the first frames ready, where their shape is known."""
        camera = self._camera
        if camera.frame_shape is not None and camera.pixel_type is not None:
            self._pool.prepare(camera.frame_shape, np.dtype(camera.pixel_type))

    def frame(
        self,
        pixels: NDArray[Any],
        axes: Mapping[str, int | str],
        metadata: Mapping[str, Any],
        *,
        received_ns: int,
    ) -> Frame:
        """Copy an image into a frame.

        Parameters
        ----------
        pixels
            (Y, X) uint8 or uint16, ADU; not kept.
        axes
            Micro-Manager's, without the camera.
        metadata
            Micro-Manager's tags.
        received_ns
            `time.perf_counter_ns()` on arrival.

        Raises
        ------
        AcquisitionError
            For colour images and pixel types that no camera model knows.
        """
        index = next(self._indices)
        pixels = np.asarray(pixels)
        if pixels.ndim != 2 or not pixels.size or pixels.dtype.name not in GREY_TYPES:
            raise AcquisitionError(
                f"frame {index} is {pixels.dtype} of shape {pixels.shape}, expected a grey image "
                f"(Y, X) of {' or '.join(GREY_TYPES)}; change the camera's PixelType, or attach "
                "ahead of the function that changes the image"
            )
        named = {text(name): _plain(value) for name, value in axes.items()}
        label = camera_label(metadata)
        if self._is_one_of_several(label):
            named.setdefault("camera", text(label))
        return Frame(
            pixels=self._pool.copy(pixels),
            index=index,
            axes=named,
            camera=self._settings(pixels, metadata),
            exposure_ms=exposure_ms(metadata),
            received_ns=received_ns,
            metadata={name: value for name, value in metadata.items() if name != "Axes"},
        )

    def _settings(self, pixels: NDArray[Any], tags: Mapping[str, Any]) -> CameraFingerprint:
        """Return the camera's settings for an image; worked out only where its tags changed."""
        label = camera_label(tags)
        told = (pixels.shape, pixels.dtype, *(said(tags, name) for name in telling_tags(label)))
        known = self._known.get(label)
        if known is not None and known.told == told:
            return known.settings
        before = self._before(label) if known is None else known.settings
        shape = (pixels.shape[0], pixels.shape[1])
        settings = settings_of(tags, shape, pixels.dtype.name, before)
        self._known[label] = _Known(told, settings)
        return settings

    def _before(self, label: str) -> CameraFingerprint:
        """Return what was known of a camera before its first image."""
        asked = self._camera.fingerprint
        if label in ("", self._camera.label) or self._camera.label is None:
            return asked
        # One of several behind one device, of which the core knew the region alone.
        return CameraFingerprint(roi=asked.roi if self._camera.camera_names else None)

    def _is_one_of_several(self, camera: str) -> bool:
        """Whether this camera's frames need its name: Micro-Manager gives all the same axes."""
        if self._first_camera is None:
            self._first_camera = camera
        return bool(self._camera.camera_names) or camera != self._first_camera


def _plain(value: Any) -> int | str:
    """Return the value of an axis; one that is neither number nor word by its own name."""
    if not isinstance(value, str):
        try:
            return int(np.asarray(value).item())
        except (TypeError, ValueError, OverflowError):
            return text(value)
    return text(value)
