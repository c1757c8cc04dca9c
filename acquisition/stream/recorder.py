"""The first stage: every frame to `raw.ome.zarr`, before anything else sees it.

Owns the raw stores and the frame log of a run, the watch on the disk, and the gaps in the camera's
own numbers. Nothing downstream can hold it up: frames are offered on without waiting.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...storage.atomic_output import RESERVE_BYTES, OutputError
from ...storage.axis_map import AxisMap, Place
from ...storage.ome_zarr_writer import OmeZarrWriter
from .accounting import Accounting, FrameNumbers
from .frame import ROI, Frame
from .run_directory import FrameLog, RunDirectory
from .stage import Stage
from .thread_priority import interrupt_nobody, short_turns

MAX_WAITING = 64
MAX_WAITING_BYTES = 256 * 2**20
"""Frames on their way to the disk. Then the hook waits, and Micro-Manager's own buffer fills."""

DISK_CHECK_S = 1.0

_KNOWN_AXES = frozenset({"time", "channel", "camera", "z", "position", "row", "column"})


@dataclass(eq=False)
class Part:
    """The frames of one shape, pixel type and region of the sensor within a run.

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
    raw
        Where the frames are recorded; None if pycro-manager alone stores them.
    """

    number: int
    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    axis_map: AxisMap = field(default_factory=AxisMap)
    roi: ROI | None = None
    raw: OmeZarrWriter | None = None
    _untimed: dict[Place, int] = field(default_factory=dict)
    _first_axes: dict[str, int | str] | None = None
    _pass: int = 0

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
        self._untimed[place] = time_point + 1
        return place._replace(time=time_point)


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


class Recorder(Stage[Frame]):
    """Record every frame of a run.

    Parameters
    ----------
    run
        Claimed by this program.
    counts
        `recorded` and `missing` are counted here.
    offer
        Gets every frame after it was handed to the disk; must not wait.
    store_raw
        False leaves the pixels to pycro-manager; the frame log is written all the same.
    attributes
        For every raw image, next to `ome`.
    pixel_size_um
        Edge of a pixel in the specimen.
    reserve_bytes
        Free disk space at which the run is ended.
    """

    def __init__(
        self,
        run: RunDirectory,
        counts: Accounting,
        offer: Callable[[Recorded], None],
        *,
        store_raw: bool = True,
        attributes: Mapping[str, Any] | None = None,
        pixel_size_um: float | None = None,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        super().__init__("recorder", max_items=MAX_WAITING, max_bytes=MAX_WAITING_BYTES)
        self.parts: list[Part] = []
        self._run_directory = run
        self._counts = counts
        self._offer = offer
        self._store_raw = store_raw
        self._attributes = dict(attributes or {})
        self._pixel_size_um = pixel_size_um
        self._reserve_bytes = reserve_bytes
        self._log = FrameLog(run.frame_log)
        self._numbers = FrameNumbers()
        self._next_disk_check = 0.0

    def put(self, frame: Frame) -> bool:
        """Hand over a frame, or wait while the disk is behind. False if recording has failed."""
        return self._inbox.put(frame, frame.pixels.nbytes)

    def close(self) -> None:
        """Record what waits and close the stores. The first error is in `error`."""
        super().close()
        for part in self.parts:
            try:
                if part.raw is not None:
                    part.raw.close()
            except OutputError as error:
                self.error = self.error or error
        self._log.close()
        if self.error is not None and self._store_raw:
            # Frames that were handed to a failing disk are not there.
            self._counts.recorded = sum(
                part.raw.frames_on_disk() for part in self.parts if part.raw is not None
            )

    def _begin(self) -> None:
        interrupt_nobody()

    def _run(self) -> None:
        with short_turns():
            super()._run()

    def _handle(self, frame: Frame) -> None:
        self._require_space()
        self._note_gap(frame)
        part = self._part(frame)
        place = part.place(frame)
        if part.raw is not None:
            part.raw.write(frame.pixels, place, unchanging=True)
        self._log.append(frame, part.number, place)
        self._counts.recorded += 1
        if self._counts.recorded == 1:
            if part.raw is not None:
                part.raw.flush()
            self._run_directory.first_frame_is_kept()
        self._offer(Recorded(frame, part, place))

    def _part(self, frame: Frame) -> Part:
        shape, dtype = (frame.pixels.shape[0], frame.pixels.shape[1]), frame.pixels.dtype
        for part in self.parts:
            if (part.frame_shape, part.dtype, part.roi) == (shape, dtype, frame.roi):
                return part
        part = Part(len(self.parts) + 1, shape, dtype, roi=frame.roi)
        if self._store_raw:
            part.raw = OmeZarrWriter(
                self._run_directory.raw(part.number),
                frame_shape=shape,
                dtype=dtype,
                pixel_size_um=self._pixel_size_um,
                attributes=self._attributes_of(part),
                axis_map=part.axis_map,
            )
        self.parts.append(part)
        self._run_directory.log(
            f"frame {self._counts.recorded}: recording {shape[1]}×{shape[0]} {dtype}"
        )
        return part

    def _attributes_of(self, part: Part) -> dict[str, Any]:
        """Say of each part which region of the sensor it shows, not of the run as it began."""
        camera = self._attributes.get("camera")
        if camera is None:
            return self._attributes
        return self._attributes | {"camera": {**camera, "roi": part.roi}}

    def _note_gap(self, frame: Frame) -> None:
        missing = self._numbers.missing_before(frame.metadata)
        if missing:
            self._counts.note_missing(frame.index, missing)
            self._run_directory.log(
                f"frame {frame.index}: the camera counted {missing} frames before this one that "
                "never came"
            )

    def _require_space(self) -> None:
        now = time.monotonic()
        if now < self._next_disk_check:
            return
        self._next_disk_check = now + DISK_CHECK_S
        free = shutil.disk_usage(self._run_directory.path).free
        if free < self._reserve_bytes:
            raise OutputError(
                f"{self._run_directory.path}: the disk is nearly full ({free / 2**20:.0f} MiB "
                f"free, {self._reserve_bytes / 2**20:.0f} MiB are left for the system), so the "
                f"acquisition ends after {self._counts.recorded} frames, which are kept; free "
                "some space or choose another --out"
            )
