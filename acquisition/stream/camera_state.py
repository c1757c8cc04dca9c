"""What is known of the camera before the first frame.

Owns the record of it. Who was asked is written in `sources.ask_camera`; what single frames say of
the camera afterwards, in `camera_settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...calibration.fingerprint import CameraFingerprint


@dataclass(frozen=True, slots=True, eq=False)
class CameraState:
    """The camera as it was set when the run was prepared.

    Attributes
    ----------
    label
        By which Micro-Manager calls it; None where nobody could be asked.
    fingerprint
        What its noise depends on; all None where nobody could be asked.
    pixel_size_um, exposure_ms
        None where nobody says.
    pixel_size_given
        Whether the user gave it, so that it counts more than what images say.
    frame_shape, pixel_type
        (Y, X) and `uint8` or `uint16` of the frames to come; None where not known.
    saturation_adu
        The largest number that a pixel can hold.
    simulated
        Whether the images are computed.
    camera_names
        Of the cameras that take an image at the same time; none where there is but one.
    core
        The core that was asked; None without one.
    """

    label: str | None = None
    fingerprint: CameraFingerprint = field(default_factory=CameraFingerprint)
    pixel_size_um: float | None = None
    pixel_size_given: bool = False
    exposure_ms: float | None = None
    frame_shape: tuple[int, int] | None = None
    pixel_type: str | None = None
    saturation_adu: float | None = None
    simulated: bool = False
    camera_names: tuple[str, ...] = ()
    core: Any = None
