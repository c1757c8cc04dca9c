"""What a microscope is, in words and as JSON: which camera, why that one, and how it is set."""

from __future__ import annotations

from typing import Any

from .core import Microscope


def introduction(microscope: Microscope, *, sees: str = "") -> str:
    """Return which camera this is and, where nobody chose it, why it is this one.

    `sees` is what a demo camera sees, if neither its specimen nor its own pictures.
    """
    settings = microscope.settings
    height, width = microscope.frame_shape
    what = f"{width}×{height} {microscope.pixel_type}, {microscope.exposure_ms:g} ms"
    if not settings.simulated:
        label, model = microscope.camera, microscope.fingerprint().camera
        camera = label if model in (None, label) else f"{label} ({model})"
        where = (
            f"the Micro-Manager on port {settings.port}"
            if settings.attach
            else f"{settings.config}"
        )
        return f"camera: {camera} of {where}, {what}"
    shown = sees or (
        "before it a simulated living specimen (--no-specimen: the camera's own pictures)"
        if settings.specimen
        else "its own pictures"
    )
    why = "" if settings.demo else ", because neither --attach nor --mm-dir was given"
    return f"camera: Micro-Manager's demo camera, a simulation{why}: {what}, {shown}"


def description(microscope: Microscope) -> dict[str, Any]:
    """Return how the camera is set and what the microscope has, as JSON."""
    fingerprint = microscope.fingerprint()
    return {
        "camera": microscope.camera,
        "model": fingerprint.camera,
        "simulated": microscope.has_demo_camera,
        "version": microscope.version,
        "frame_shape": list(microscope.frame_shape),
        "pixel_type": microscope.pixel_type,
        "bit_depth": microscope.bit_depth,
        "binning": microscope.binning,
        "roi": list(microscope.roi),
        "exposure_ms": microscope.exposure_ms,
        "pixel_size_um": microscope.pixel_size_um,
        "channel_group": microscope.channel_group,
        "channels": microscope.channel_presets(),
        "focus_um": microscope.focus_um,
        "has_stage": microscope.stage_um is not None,
        "shutter": microscope.shutter,
        "fingerprint": fingerprint.model_dump(mode="json"),
    }
