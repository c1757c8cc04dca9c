"""The first line of a command at the microscope: which camera it uses, and why that one."""

from __future__ import annotations

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
