"""What pycro-manager calls with every image, turned into a frame of our own.

Owns the copy: whatever the user's script or pycro-manager does with the image afterwards, the
frame stays as the camera gave it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AcquisitionError
from ..stream.frame import ROI, Frame
from ..stream.frame_pool import FramePool

PIXEL_TYPES = ("uint8", "uint16")


def frame_from_image(
    pixels: NDArray[Any],
    axes: Mapping[str, int | str],
    metadata: Mapping[str, Any],
    *,
    index: int,
    received_ns: int,
    name_camera: bool,
    pool: FramePool,
    camera_roi: tuple[int, int, int, int] | None = None,
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
    index, received_ns
        Order and time of arrival.
    name_camera
        Whether the camera becomes an axis, because there are several.
    pool
        Where the copy lies.
    camera_roi
        What the camera said before the run, for images that do not say it themselves.

    Raises
    ------
    AcquisitionError
        For colour images and pixel types that no camera model knows.
    """
    if pixels.ndim != 2 or pixels.dtype.name not in PIXEL_TYPES:
        raise AcquisitionError(
            f"frame {index} is {pixels.dtype} of shape {pixels.shape}, expected a grey image "
            f"(Y, X) of {' or '.join(PIXEL_TYPES)}; change the camera's PixelType, or attach "
            "ahead of the function that changes the image"
        )
    own = pool.copy(pixels)
    named = {name: _plain(value) for name, value in axes.items()}
    if name_camera:
        named.setdefault("camera", str(metadata.get("Camera", "")))
    return Frame(
        pixels=own,
        index=index,
        axes=named,
        roi=_roi(metadata, pixels, camera_roi),
        exposure_ms=_number(metadata.get("Exposure", metadata.get("Exposure-ms")), math.nan),
        received_ns=received_ns,
        metadata={name: value for name, value in metadata.items() if name != "Axes"},
    )


def _roi(
    metadata: Mapping[str, Any],
    pixels: NDArray[Any],
    camera_roi: tuple[int, int, int, int] | None,
) -> ROI | None:
    height, width = pixels.shape
    x, y = _corner(metadata)
    if not math.isnan(x + y):
        binning = max(1, int(_number(str(metadata.get("Binning", 1)).lower().split("x")[0], 1)))
        return ROI(int(x) * binning, int(y) * binning, width * binning, height * binning)
    # What the camera said before the run holds as long as its images have that shape.
    if camera_roi is None or camera_roi[2] % width or camera_roi[3] % height:
        return None
    same = camera_roi[2] // width == camera_roi[3] // height
    return ROI(*camera_roi) if same else None


def _corner(metadata: Mapping[str, Any]) -> tuple[float, float]:
    """Return where the region begins; NaN if the image does not say.

    A core of this process says it with two tags, Java's with one: x-y-width-height.
    """
    x, y = (metadata.get(f"ROI-{axis}-start") for axis in "XY")
    if x is None and str(metadata.get("ROI", "")).count("-") == 3:
        x, y, *_ = str(metadata["ROI"]).split("-")
    return _number(x, math.nan), _number(y, math.nan)


def _number(value: Any, otherwise: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return otherwise


def _plain(value: Any) -> int | str:
    return value if isinstance(value, str) else int(np.asarray(value).item())
