"""One camera frame on its way through the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from ...calibration.fingerprint import CameraFingerprint

Image = tuple[NDArray[Any], dict[str, Any]]
"""Pixels (Y, X) and Micro-Manager's tags, before they are a frame of the stream."""


class TakesImages(Protocol):
    """Whoever wants the images of a source, in their order: a `LiveDenoiser`, say."""

    def image_process_fn(self, image: NDArray[Any], metadata: Mapping[str, Any], /) -> Any:
        """Take one image and its tags, with its axes as `Axes`."""
        ...


class ROI(NamedTuple):
    """A region of the sensor in unbinned pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame as the hook received it.

    Attributes
    ----------
    pixels
        (Y, X) in the camera's own type (uint8 or uint16), ADU, read-only. Owned by the stream:
        nobody else writes to this memory afterwards.
    index
        Order of arrival in this run, from 0.
    axes
        Micro-Manager's axes of this frame: time, z, channel, position and any other.
    camera
        The camera's settings for this frame, the part of the sensor that was read among them.
    exposure_ms
        Exposure time; NaN if the engine did not say.
    received_ns
        `time.perf_counter_ns()` in the hook.
    metadata
        Micro-Manager's tags for this frame.
    """

    pixels: NDArray[Any]
    index: int
    axes: Mapping[str, int | str]
    camera: CameraFingerprint
    exposure_ms: float
    received_ns: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def roi(self) -> ROI | None:
        """The part of the sensor that was read; None if nobody says."""
        return None if self.camera.roi is None else ROI(*self.camera.roi)
