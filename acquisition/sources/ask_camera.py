"""Ask a microscope, or the core of this process, what camera the frames will come from.

Owns the question. The answer is a `CameraState`; a camera that cannot be used is refused by the
hook when a frame comes, not here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...calibration.fingerprint import CameraFingerprint
from ...errors import QuietscopeError
from ..microscope.core import Microscope, MicroscopeSettings, running_core
from ..stream.camera_state import CameraState


def ask_camera(
    microscope: Microscope | None,
    *,
    camera: CameraFingerprint | None = None,
    pixel_size_um: float | None = None,
    simulated: bool | None = None,
) -> CameraState:
    """Return what is known of the camera; what is given here counts more than what it says."""
    core = running_core()
    if microscope is None and core is not None:
        microscope = Microscope(core, MicroscopeSettings())
    state = CameraState()
    if microscope is not None and microscope.core.get_camera_device():
        state = _asked(microscope)
    if camera is not None:
        state = replace(state, fingerprint=camera)
    if pixel_size_um is not None:
        state = replace(state, pixel_size_um=pixel_size_um, pixel_size_given=True)
    if simulated is not None:
        state = replace(state, simulated=simulated)
    return state


def _asked(microscope: Microscope) -> CameraState:
    try:
        fingerprint, pixel_type = microscope.fingerprint(), microscope.pixel_type
    except QuietscopeError:
        return CameraState(core=microscope.core)  # a colour camera: the hook refuses its frames
    return CameraState(
        label=microscope.camera,
        fingerprint=fingerprint,
        pixel_size_um=microscope.pixel_size_um,
        exposure_ms=microscope.exposure_ms,
        frame_shape=microscope.frame_shape,
        pixel_type=pixel_type,
        saturation_adu=microscope.saturation_adu,
        simulated=microscope.has_demo_camera,
        camera_names=_cameras_behind(microscope.core),
        core=microscope.core,
    )


def _cameras_behind(core: Any) -> tuple[str, ...]:
    """Return the cameras behind a device that joins several; none if there is but one."""
    cameras = int(core.get_number_of_camera_channels())
    return tuple(str(core.get_camera_channel_name(n)) for n in range(cameras) if cameras > 1)
