"""The directory of one acquisition: its files, and that one program at a time writes them.

::

    run/
        raw.ome.zarr         every frame, as the camera gave it
        denoised.ome.zarr    every frame's estimate, ADU
        frames.jsonl         one line per frame: its axes, its place, Micro-Manager's metadata
        report.json          the counts and figures of the run
        events.log           what happened, with the time

Beside it lie `.run.lock`, while a program writes there (see `storage.directory_lock`), and
`.run.replaced`, the run that was there before, until the first frame of this one is on the disk.

A region or binning that changes within a run begins a second pair of stores,
`raw-2.ome.zarr` and `denoised-2.ome.zarr`, because a store holds frames of one shape.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ...storage.atomic_output import (
    MovedAside,
    OutputError,
    jsonable,
    real_path,
    recover,
    require_absent,
    write_json,
)
from ...storage.axis_map import Place
from ...storage.directory_lock import DirectoryLock
from ...storage.output_kinds import Kind
from ...storage.written_frames import written_frames
from .frame import Frame

logger = logging.getLogger(__name__)


class RunDirectory:
    """The directory of one run. `claim` it before writing, `release` it at the end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._events: IO[str] | None = None
        self._lock = DirectoryLock(self.path)
        self._replaced: MovedAside | None = None
        self._deleting: threading.Thread | None = None

    def raw(self, part: int = 1) -> Path:
        """Store of the raw frames of one part."""
        return self.path / ("raw.ome.zarr" if part == 1 else f"raw-{part}.ome.zarr")

    def denoised(self, part: int = 1) -> Path:
        """Store of the denoised frames of one part."""
        return self.path / ("denoised.ome.zarr" if part == 1 else f"denoised-{part}.ome.zarr")

    @property
    def frame_log(self) -> Path:
        """One JSON line per frame."""
        return self.path / "frames.jsonl"

    @property
    def report(self) -> Path:
        """Counts and figures."""
        return self.path / "report.json"

    @property
    def events(self) -> Path:
        """What happened, for a person."""
        return self.path / "events.log"

    def claim(self, *, overwrite: bool = False) -> None:
        """Make the directory this program's own, and empty.

        With `overwrite` an earlier run is moved aside. It goes with the first frame of this one
        (`first_frame_is_kept`), and comes back if there is none.

        Raises
        ------
        OutputError
            If another program writes there, something else than a run is there, or it cannot be
            written.
        """
        self._lock.acquire()
        try:
            recover(self.path, holds_something=self._holds_frames())
            require_absent(self.path, overwrite=overwrite, kind=Kind.RUN)
            if self.path.exists() and any(self.path.iterdir()):
                self._replaced = MovedAside.of(self.path)
            real_path(self.path).mkdir(parents=True, exist_ok=True)
            self._events = self.events.open("a", encoding="utf-8")
        except OSError as error:
            self.release()
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); choose a folder that you may "
                "write to"
            ) from error
        except BaseException:
            self.release()
            raise

    def first_frame_is_kept(self) -> None:
        """Let go of the run that this one replaces; returns at once."""
        replaced, self._replaced = self._replaced, None
        if replaced is not None:
            self._deleting = threading.Thread(
                target=replaced.let_go, name="quietscope replaced run"
            )
            self._deleting.start()

    def release(self) -> None:
        """Let others write here. May be called more than once."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._deleting is not None:
            self._deleting.join()
        replaced, self._replaced = self._replaced, None
        try:
            if replaced is not None:
                replaced.bring_back()
        finally:
            self._lock.release()

    def _holds_frames(self) -> bool:
        """Whether a frame is on the disk: in our store or, saved by others, in the log."""
        if not self.raw().exists():
            return self.frame_log.exists() and self.frame_log.stat().st_size > 0
        written = written_frames(self.raw())
        return written is None or bool(written.any())

    def log(self, event: str) -> None:
        """Write an event with its time; a full disk does not stop the run here."""
        logger.info("%s: %s", self.path.name, event)
        if self._events is None:
            return
        try:
            now = datetime.now().astimezone().isoformat(timespec="milliseconds")
            self._events.write(f"{now}  {event}\n")
            self._events.flush()
        except OSError as error:
            logger.warning("%s: cannot be written (%s)", self.events, error)

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Replace `report.json` in one visible step."""
        write_json(self.report, report)


# -------------------------------------------------------------------------- the frame log


class FrameLog:
    """Appends one JSON line per frame; nothing stays in memory, and a kill costs no line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def append(self, frame: Frame, part: int, place: Place) -> None:
        """Write the line of one frame; ValueError or TypeError if JSON cannot hold it."""
        line = {
            "index": frame.index,
            "part": part,
            "place": list(place),
            "axes": dict(frame.axes),
            "metadata": dict(frame.metadata),
        }
        self._file.write(
            json.dumps(line, ensure_ascii=False, allow_nan=False, default=jsonable) + "\n"
        )
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_frame_log(path: Path) -> Iterator[tuple[int, Place, dict[str, Any]]]:
    """Yield part, place and the whole line of every frame, in the order of arrival."""
    with path.open(encoding="utf-8") as file:
        for text in file:
            if not text.endswith("\n"):
                return  # the last line of a killed program
            line = json.loads(text)
            yield int(line["part"]), Place(*line["place"]), line
