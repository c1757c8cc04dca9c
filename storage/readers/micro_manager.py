"""How Micro-Manager calls what it knows of an image, whichever file it stands in.

Owns the spellings of its versions, and the `metadata.txt` beside single images. Where the words
stand in a TIFF or an NDTiff is known by their readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..stack import Stack

METADATA_FILE = "metadata.txt"
LARGEST_METADATA_BYTES = 256 * 2**20
_SUMMARY = "Summary"


def first_number(said: Mapping[str, Any], *keys: str) -> float | None:
    """Return the first positive number under these keys."""
    for key in keys:
        try:
            if (number := float(said[key])) > 0:
                return number
        except (KeyError, TypeError, ValueError):
            continue
    return None


def camera_label(said: Mapping[str, Any]) -> str | None:
    """Return what its configuration calls the camera of an image."""
    label = said.get("Camera") or said.get("Core-Camera")
    return str(label) if label else None


def exposure_ms(said: Mapping[str, Any]) -> float | None:
    """Return the exposure of an image."""
    return first_number(said, "Exposure-ms", "Exposure", "Camera-Exposure")


def pixel_size_um(image: Mapping[str, Any], summary: Mapping[str, Any]) -> float | None:
    """Return the edge of a pixel, by the image itself or by the whole."""
    of_image = first_number(image, "PixelSizeUm")
    return of_image or first_number(summary, "PixelSizeUm", "PixelSize_um")


def interval_s(summary: Mapping[str, Any]) -> float | None:
    """Return the time between frames that was planned."""
    planned = first_number(summary, "Interval_ms", "Interval-ms")
    return planned / 1e3 if planned else None


def channel_names(summary: Mapping[str, Any], channels: int) -> tuple[str, ...]:
    """Return the channels' names if there is one for each."""
    names = summary.get("ChNames")
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) != channels:
        return ()
    return tuple(str(name) for name in names)


def described(stack: Stack, image: Mapping[str, Any], summary: Mapping[str, Any]) -> Stack:
    """Return a stack with what Micro-Manager says of it, where nothing else did."""
    size, label = pixel_size_um(image, summary), camera_label(image)
    return replace(
        stack,
        pixel_size_yx_um=stack.pixel_size_yx_um or (None if size is None else (size, size)),
        z_step_um=stack.z_step_um or first_number(summary, "z-step_um"),
        time_interval_s=stack.time_interval_s or interval_s(summary),
        channel_names=stack.channel_names or channel_names(summary, stack.sizes.get("channel", 1)),
        camera=label or stack.camera,
        camera_is_label=label is not None,
        exposure_ms=stack.exposure_ms or exposure_ms(image),
        attributes=stack.attributes or ({"micro_manager": dict(summary)} if summary else None),
    )


def metadata_beside(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `metadata.txt` says of the first image, and of all; {} where it says nothing.

    One that was never finished lacks its last bracket.
    """
    file = folder / METADATA_FILE
    if not file.is_file() or file.stat().st_size > LARGEST_METADATA_BYTES:
        return {}, {}
    text = file.read_text(encoding="utf-8", errors="replace").rstrip()
    for ending in ("", "}"):
        try:
            found = json.loads(text.rstrip(",") + ending if ending else text)
        except ValueError:
            continue
        if isinstance(found, dict):
            images = (v for k, v in found.items() if k != _SUMMARY and "Coords" not in k)
            summary, image = found.get(_SUMMARY), next(images, None)
            return _words(image), _words(summary)
    return {}, {}


def _words(said: Any) -> dict[str, Any]:
    return said if isinstance(said, dict) else {}
