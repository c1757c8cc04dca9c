"""The first stage: every frame to `raw.ome.zarr`, before anything else sees it.

Owns the raw stores and the frame log of a run, the watch on the disk, and the gaps in the camera's
own numbers. Nothing downstream can hold it up: frames are offered on without waiting.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ...inference.provenance import ATTRIBUTES
from ...storage.atomic_output import RESERVE_BYTES, OutputError
from ...storage.axis_map import Place
from ...storage.ome_zarr_writer import OmeZarrWriter
from ...storage.written_frames import count_written
from .accounting import Accounting, FrameNumbers
from .frame import Frame
from .part import UNKNOWN_SIZE, Part, PixelSize, Recorded
from .run_directory import FrameLog, RunDirectory
from .run_options import IN_MEMORY, InMemory
from .stage import Stage
from .storable_metadata import storable
from .thread_priority import never_preempt, short_switch_interval

MAX_WAITING_BYTES = 256 * 2**20
"""Of frames on their way to the disk. Then the hook waits, and Micro-Manager's buffer fills."""

DISK_CHECK_S = 1.0
MAX_ALTERED = 100
"""Names of metadata that are remembered as told."""


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
        What the run says of its raw images; stored as `quietscope` in each store.
    pixel_size
        Of the specimen, as far as it is known before the run.
    reserve_bytes
        Free disk space at which the run is ended.
    in_memory
        How many frames may wait, and be written at the same time.
    """

    def __init__(
        self,
        run: RunDirectory,
        counts: Accounting,
        offer: Callable[[Recorded], None],
        *,
        store_raw: bool = True,
        attributes: Mapping[str, Any] | None = None,
        pixel_size: PixelSize = UNKNOWN_SIZE,
        reserve_bytes: int = RESERVE_BYTES,
        in_memory: InMemory = IN_MEMORY["tap"],
    ) -> None:
        super().__init__("recorder", max_items=in_memory.waiting, max_bytes=MAX_WAITING_BYTES)
        self._max_in_flight = in_memory.being_written
        self.parts: list[Part] = []
        self._run_directory = run
        self._counts = counts
        self._offer = offer
        self._store_raw = store_raw
        self._attributes = dict(attributes or {})
        self._pixel_size = pixel_size
        self._reserve_bytes = reserve_bytes
        self._log = FrameLog(run.frame_log)
        self._numbers = FrameNumbers()
        self._altered: set[str] = set()
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
                    part.scale(part.raw)
                    part.show(part.raw)
                    part.raw.close()
            except (OutputError, OSError) as error:  # the other parts are closed all the same
                self.error = self.error or error
        self._log.close()
        if self.error is not None and self._store_raw:
            # Frames that were handed to a failing disk are not there.
            self._counts.recorded = sum(
                count_written(part.raw.path) for part in self.parts if part.raw is not None
            )

    def _begin(self) -> None:
        never_preempt()

    def _run(self) -> None:
        with short_switch_interval():
            super()._run()

    def _handle(self, frame: Frame) -> None:
        self._require_space()
        self._note_gap(frame)
        part = self._part(frame)
        place = part.place(frame)
        if part.raw is not None:
            part.raw.write(frame.pixels, place, unchanging=True)
        part.note_place(frame, place)
        self._note(frame, part, place)
        self._counts.recorded += 1
        if self._counts.recorded == 1:
            if part.raw is not None:
                part.raw.flush()
            self._run_directory.first_frame_is_kept()
        self._offer(Recorded(frame, part, place))

    def _note(self, frame: Frame, part: Part, place: Place) -> None:
        """Write the frame's line; metadata that JSON cannot hold cost no frame, but a remark."""
        try:
            self._log.append(frame, part.number, place)
        except OSError:
            raise
        except Exception:  # somebody else's values raise what they like
            metadata, altered = storable(frame.metadata)
            self._log.append(replace(frame, metadata=metadata), part.number, place)
            new = [name for name in altered if name not in self._altered][:MAX_ALTERED]
            if new and len(self._altered) < MAX_ALTERED:
                self._altered.update(new)
                self._run_directory.log(
                    f"frame {frame.index}: metadata that JSON cannot hold were changed or left "
                    f"out: {', '.join(new)}"
                )

    def _part(self, frame: Frame) -> Part:
        """Return the part that a frame belongs to, a new one where the camera was set anew."""
        found = next((part for part in self.parts if part.takes(frame)), None)
        part = found or Part.of(frame, len(self.parts) + 1, self._pixel_size)
        changed = part.note(frame)
        if found is None:
            self._open(part, frame)
        elif changed and part.raw is not None:
            part.raw.update_attributes(self._attributes_of(part))
        return part

    def _open(self, part: Part, frame: Frame) -> None:
        (height, width), before = part.frame_shape, self.parts[-1] if self.parts else None
        if self._store_raw:
            part.raw = OmeZarrWriter(
                self._run_directory.raw(part.number),
                frame_shape=part.frame_shape,
                dtype=part.dtype,
                pixel_size_um=part.pixel_size_um,
                attributes=self._attributes_of(part),
                axis_map=part.axis_map,
                max_in_flight=self._max_in_flight,
            )
        self.parts.append(part)
        why = before.difference(frame) if before is not None else ""
        self._run_directory.log(
            f"frame {self._counts.recorded}: recording {width}×{height} {part.dtype}"
            + (f" in {self._run_directory.raw(part.number).name}" if before is not None else "")
            + (f" ({why})" if why else "")
        )

    def _attributes_of(self, part: Part) -> dict[str, Any]:
        return {ATTRIBUTES: self._attributes | part.about_camera()}

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
