"""A part of a run: the frames that lie in one pair of stores, and where each of them lies.

Owns what frames have in common within a part, what its stores say of the camera, and the places.
A setting on which the noise depends and that changes in mid-run begins another part, because a
model, a noise model and pixel maps hold for one setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...calibration.fingerprint import CameraFingerprint
from ...storage.atomic_output import OutputError
from ...storage.axis_map import AxisMap, Place, channel_of
from ...storage.display_range import range_of
from ...storage.ome_zarr_writer import OmeZarrWriter
from .camera_settings import camera_label, pixel_size_um
from .frame import ROI, Frame
from .spacing import Spacing

MAX_EXPOSURES = 16
"""Of one channel; a script that sets another one for every frame has them in the frame log."""

_KNOWN_AXES = frozenset({"time", "channel", "camera", "z", "position", "row", "column"})


class Source(NamedTuple):
    """Whose settings stay as they are within a part: one channel of one camera."""

    camera: str
    channel: str

    @classmethod
    def of(cls, axes: Mapping[str, int | str], metadata: Mapping[str, Any]) -> Source:
        """Return where a frame comes from."""
        channel = axes.get("channel")
        return cls(camera_label(metadata), "" if channel is None else str(channel))


class PixelSize(NamedTuple):
    """The edge of a pixel in the specimen as it was told before the run.

    What an image says counts more, because it knows of objective and binning, unless the user
    gave a size.
    """

    um: float | None
    given: bool = False

    def of(self, frame: Frame) -> float | None:
        """Return the size for a frame, µm; None if nobody knows."""
        return self.um if self.given else pixel_size_um(frame.metadata) or self.um


UNKNOWN_SIZE = PixelSize(None)


@dataclass(eq=False)
class Part:
    """The frames of one shape, pixel type, region of the sensor and setting within a run.

    Attributes
    ----------
    number
        1 for the first.
    frame_shape, dtype
        Of every frame of this part.
    axis_map
        Gives frames their places, the same ones in the raw and in the denoised store.
    roi
        The region, where known.
    pixel_size_um
        Edge of a pixel in the specimen, where known.
    raw
        Where the frames are recorded; None if pycro-manager alone stores them.
    settings
        Of each camera and channel.
    spacing
        Distances of planes and time points, as far as images tell.
    exposures_ms
        By the channel as the store names it, in the order in which they came.
    changes
        How often something new was noted.
    """

    number: int
    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    axis_map: AxisMap = field(default_factory=AxisMap)
    roi: ROI | None = None
    pixel_size_um: float | None = None
    raw: OmeZarrWriter | None = None
    settings: dict[Source, CameraFingerprint] = field(default_factory=dict)
    spacing: Spacing = field(default_factory=Spacing)
    exposures_ms: dict[str, list[float]] = field(default_factory=dict)
    changes: int = 0
    _untimed: dict[Place, int] = field(default_factory=dict)
    _first_axes: dict[str, int | str] | None = None
    _pass: int = 0

    @classmethod
    def of(cls, frame: Frame, number: int, size: PixelSize) -> Part:
        """Return a new part for frames like this one."""
        shape = (frame.pixels.shape[0], frame.pixels.shape[1])
        part = cls(number, shape, frame.pixels.dtype, roi=frame.roi)
        part.pixel_size_um = size.of(frame)
        return part

    def takes(self, frame: Frame) -> bool:
        """Whether a frame belongs here: nothing on which its noise depends is another."""
        if (self.frame_shape, self.dtype) != (frame.pixels.shape, frame.pixels.dtype):
            return False
        if None not in (self.roi, frame.roi) and self.roi != frame.roi:
            return False
        known = self.settings.get(Source.of(frame.axes, frame.metadata))
        return known is None or known is frame.camera or not known.differences(frame.camera)

    def note(self, frame: Frame) -> bool:
        """Note what a frame says of the camera; return whether it is new for the stores."""
        source, before = Source.of(frame.axes, frame.metadata), self.changes
        if self.settings.get(source) is not frame.camera:
            self.changes += self.settings.get(source) != frame.camera
            self.settings[source] = frame.camera
            self.roi = self.roi or frame.roi
        stored = channel_of(frame.axes)
        exposures = self.exposures_ms.setdefault("" if stored is None else str(stored), [])
        known = frame.exposure_ms in exposures or not frame.exposure_ms >= 0
        if not known and len(exposures) < MAX_EXPOSURES:
            exposures.append(frame.exposure_ms)
            self.changes += 1
        return self.changes > before

    def note_place(self, frame: Frame, place: Place) -> None:
        """Note how far this frame lies from others, once it has its place."""
        if self.spacing.note(frame, place):
            self.changes += 1
            self.scale(self.raw)

    def scale(self, store: OmeZarrWriter | None) -> None:
        """Tell a store of this part how far planes and time points lie apart."""
        if store is not None:
            store.update_scales(
                z_step_um=self.spacing.z_step_um, interval_s=self.spacing.interval_s
            )

    def show(self, store: OmeZarrWriter) -> None:
        """Tell a store of this part the range in which its raw frames are shown.

        Raw and denoised open alike; of a disk that fails nothing is said here.
        """
        if self.raw is None:
            return
        with suppress(OutputError, OSError, ValueError):
            first = self.raw.first_frames()
            if first and set(first) == set(range(len(first))):
                store.update_display_ranges([range_of(first[c]) for c in sorted(first)])

    def settings_of(
        self, axes: Mapping[str, int | str], metadata: Mapping[str, Any]
    ) -> CameraFingerprint:
        """Return the settings of a frame that was recorded here."""
        return self.settings.get(Source.of(axes, metadata), CameraFingerprint())

    def about_camera(self) -> dict[str, Any]:
        """Return what the stores of this part say of the camera, as it was for these frames.

        The one camera, or the first; where there are several or they change with the channel,
        each by its name.
        """
        by_source = list(self.settings.items())  # the recorder may be adding one
        first = by_source[0][1] if by_source else CameraFingerprint()
        about: dict[str, Any] = {"camera": _plain(first, self.roi)}
        if any(settings != first for _, settings in by_source):
            about["cameras"] = {
                " ".join(filter(None, (source.channel, source.camera))): _plain(settings, self.roi)
                for source, settings in by_source
            }
        by_channel = {name: list(ms) for name, ms in list(self.exposures_ms.items())}
        exposures = [ms for channel in by_channel.values() for ms in channel]
        if exposures:
            about["exposure_ms"] = exposures[0]
        if len(set(exposures)) > 1:
            about["exposures_ms"] = by_channel
        return about

    def difference(self, frame: Frame) -> str:
        """Say how a frame that does not belong here differs; "" if only in shape."""
        known = self.settings.get(Source.of(frame.axes, frame.metadata))
        if known is None:
            return ""
        return "; ".join(
            f"{name.replace('_', ' ')} is {now}, was {before}"
            for name in type(known).model_fields
            if (before := getattr(known, name)) != (now := getattr(frame.camera, name))
        )

    # ------------------------------------------------------------------------------ places

    def place(self, frame: Frame) -> Place:
        """Return a place that no other frame has: what was recorded is never written over.

        Frames whose axes came before become a further position: all that follow when a second
        acquisition begins, the one frame when it alone was taken again.
        """
        axes = _with_time(frame.axes)
        if "time" not in axes:
            return self._untimed_place(axes)
        place = self._place_in_pass(axes, self._pass)
        if self.raw is None or not self.raw.holds(place):
            self._first_axes = self._first_axes or axes
            return place
        number = self._pass + 1
        while self.raw.holds(self._place_in_pass(axes, number)):
            number += 1
        if axes == self._first_axes:
            self._pass = number
        return self._place_in_pass(axes, number)

    def _place_in_pass(self, axes: Mapping[str, int | str], number: int) -> Place:
        return self.axis_map.place({**axes, "repeat": number} if number else axes)

    def _untimed_place(self, axes: Mapping[str, int | str]) -> Place:
        """Use the order of arrival as time."""
        place = self.axis_map.place(axes)
        time_point = self._untimed.get(place, 0)
        while self.raw is not None and self.raw.holds(place._replace(time=time_point)):
            time_point += 1  # other frames of the run told their time
        self._untimed[place] = time_point + 1
        return place._replace(time=time_point)


def _plain(settings: CameraFingerprint, roi: ROI | None) -> dict[str, Any]:
    about = settings.model_dump(mode="json")
    return about if roi is None else {**about, "roi": list(roi)}


def _with_time(axes: Mapping[str, int | str]) -> dict[str, int | str]:
    """Take the one axis that a user's script counts with, if it has no time, for the time."""
    others = [k for k, v in axes.items() if k not in _KNOWN_AXES and isinstance(v, int)]
    if "time" in axes or len(others) != 1:
        return dict(axes)
    return {("time" if name == others[0] else name): value for name, value in axes.items()}


class Recorded(NamedTuple):
    """A frame that is on its way to the disk, with its place there."""

    frame: Frame
    part: Part
    place: Place
