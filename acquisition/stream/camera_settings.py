"""What the tags of one image say of the camera that took it.

Owns the reading of Micro-Manager's tags, which two engines write in two ways, and the settings on
which the noise of a frame depends. A property that an image does not tell is taken to be as it was
in the image before; what nobody ever told stays unknown. The names of the properties are in
`camera_properties`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from ...calibration.fingerprint import CameraFingerprint
from ..camera_properties import ALL, BINNING, BIT_DEPTH, fingerprint_of
from .frame import ROI
from .storable_metadata import text

Tags = Mapping[str, Any]

_LABELS = ("Camera", "Core-Camera")

MAX_BINNING = 64
MAX_BIT_DEPTH = 64
MAX_SENSOR = 2**31
"""Pixels along an edge; more than these is no setting of a camera."""


def camera_label(tags: Tags) -> str:
    """Return the label of the camera that took an image, "" if the image does not tell.

    Java's engine names the camera itself on images of hardware sequences only, and the core's
    camera on all of them.
    """
    return next((text(label) for name in _LABELS if (label := said(tags, name))), "")


def said(tags: Tags, name: str) -> str | int | float | None:
    """Return the value of a tag, None where there is none or it is no plain value."""
    value = tags.get(name)
    return value if isinstance(value, str | int | float) else None


@cache
def telling_tags(label: str) -> tuple[str, ...]:
    """Return the names of all tags from which the settings of a camera are read."""
    own = tuple(f"{label}-{name}" for name in (*ALL, BIT_DEPTH))
    return ("ROI", "ROI-X-start", "ROI-Y-start", BINNING, BIT_DEPTH, *own)


def exposure_ms(tags: Tags) -> float:
    """Return the exposure time, NaN if the image does not tell.

    Images of live mode say it as a property of their camera.
    """
    label = camera_label(tags)
    found = (tags.get(name) for name in ("Exposure", "Exposure-ms", f"{label}-Exposure"))
    return next((ms for value in found if (ms := _number(value)) >= 0), math.nan)


def pixel_size_um(tags: Tags) -> float | None:
    """Return the edge of a pixel in the specimen, None if the image does not tell."""
    found = (_number(tags.get(name)) for name in ("PixelSizeUm", "PixelSize_um"))
    return next((size for size in found if 0 < size < math.inf), None)


def z_um(tags: Tags) -> float | None:
    """Return where the focus drive stood, µm; None if the image does not tell."""
    names = ("ZPosition_um_Intended", "ZPositionUm")
    found = (_number(tags.get(name)) for name in names)
    return next((z for z in found if math.isfinite(z)), None)


def elapsed_ms(tags: Tags) -> float | None:
    """Return when the image was taken, ms since the acquisition began; None if unknown."""
    elapsed = _number(tags.get("ElapsedTime-ms"))
    return elapsed if math.isfinite(elapsed) else None


def settings_of(
    tags: Tags, frame_shape: tuple[int, int], pixel_type: str, before: CameraFingerprint
) -> CameraFingerprint:
    """Return the settings of the camera for one image.

    Parameters
    ----------
    tags
        Of the image.
    frame_shape, pixel_type
        Of its pixels, (Y, X).
    before
        What was known of this camera before the image.
    """
    label = camera_label(tags)

    def read(name: str) -> str | None:
        value = said(tags, f"{label}-{name}")
        if value is None and name == BINNING:
            value = said(tags, name)
        return None if value is None else text(value) or None

    told = fingerprint_of(
        read,
        name=None,
        pixel_type=pixel_type,
        bit_depth=_bit_depth(tags, label),
        roi=region_of(tags, frame_shape),
    )
    known = {name: value for name, value in told if value is not None}
    if told.roi is None:
        known["roi"] = _if_of_shape(before.roi, frame_shape)
    if told.bit_depth is None and before.pixel_type not in (None, pixel_type):
        known["bit_depth"] = None
    found = before.model_copy(update=known)
    return before if found == before else found


def region_of(tags: Tags, frame_shape: tuple[int, int]) -> ROI | None:
    """Return the part of the sensor that an image shows; None if it does not tell.

    A core of this process says its corner with two tags, Java's with one, x-y-width-height, in
    binned pixels.
    """
    height, width = frame_shape
    x, y = (tags.get(f"ROI-{axis}-start") for axis in "XY")
    if x is None and str(tags.get("ROI", "")).count("-") == 3:
        x, y, *_ = str(tags["ROI"]).split("-")
    corner = _number(x), _number(y)
    if not all(0 <= value < MAX_SENSOR for value in corner):
        return None
    factor = _binning_factor(tags)
    left, top = (int(value) * factor for value in corner)
    return ROI(left, top, width * factor, height * factor)


def _if_of_shape(
    region: tuple[int, int, int, int] | None, frame_shape: tuple[int, int]
) -> ROI | None:
    """Return a region of before, as long as images have its shape."""
    height, width = frame_shape
    if region is None or region[2] % width or region[3] % height:
        return None
    return ROI(*region) if region[2] // width == region[3] // height else None


def _binning_factor(tags: Tags) -> int:
    value = tags.get(BINNING, tags.get(f"{camera_label(tags)}-{BINNING}", 1))
    factor = _number(str(value).lower().split("x")[0])
    return int(factor) if 1 <= factor <= MAX_BINNING else 1


def _bit_depth(tags: Tags, label: str) -> int | None:
    for value in (tags.get(BIT_DEPTH), tags.get(f"{label}-{BIT_DEPTH}")):
        depth = _number(value)
        if 1 <= depth <= MAX_BIT_DEPTH:
            return int(depth)
    return None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
