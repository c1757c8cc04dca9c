"""The directory of one acquisition: its files, and that one program at a time writes them.

::

    run/
        raw.ome.zarr         every frame, as the camera gave it
        denoised.ome.zarr    every frame's estimate, ADU
        frames.jsonl         one line per frame: its axes, its place, Micro-Manager's metadata
        report.json          the counts and figures of the run
        events.log           what happened, with the time
        run.lock             only while a program writes here

A region or binning that changes within a run begins a second pair of stores,
`raw-2.ome.zarr` and `denoised-2.ome.zarr`, because a store holds frames of one shape.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import psutil

from ...storage.atomic_output import OutputError, jsonable, require_absent, write_json
from ...storage.ome_zarr_writer import Place
from .frame import Frame

logger = logging.getLogger(__name__)


class RunDirectory:
    """The directory of one run. `claim` it before writing, `release` it at the end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._events: IO[str] | None = None
        self._claimed = False

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

    @property
    def lock(self) -> Path:
        """Names the program that writes here."""
        return self.path / "run.lock"

    def claim(self, *, overwrite: bool = False) -> None:
        """Make the directory this program's own.

        Raises
        ------
        OutputError
            If another program writes there, something is there already, or it cannot be written.
        """
        self._refuse_if_in_use()
        require_absent(self.path, overwrite=overwrite)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._empty(overwrite=overwrite)
            self._events = self.events.open("a", encoding="utf-8")
        except OSError as error:
            self.release()
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); choose a folder that you may "
                "write to"
            ) from error

    def _take_lock(self) -> None:
        """Create the lock file in one step: of several programs exactly one succeeds."""
        if self.lock.exists():
            # Left by a program that is gone. Only one of several can rename it.
            stale = self.lock.with_name(f"{self.lock.name}.{os.getpid()}")
            self.lock.replace(stale)
            stale.unlink()
        try:
            descriptor = os.open(self.lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError as error:
            raise OutputError(
                f"{self.path}: another program has just begun to write there; choose another --out"
            ) from error
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(_this_program(), file)
        self._claimed = True

    def _empty(self, *, overwrite: bool) -> None:
        for item in self.path.iterdir():
            if item == self.lock:
                continue
            if not overwrite:
                self.release()
                require_absent(self.path)
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink()

    def release(self) -> None:
        """Let others write here. May be called more than once."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._claimed:
            self._claimed = False
            self.lock.unlink(missing_ok=True)

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

    def _refuse_if_in_use(self) -> None:
        try:
            owner = json.loads(self.lock.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if owner.get("host") != socket.gethostname():
            raise OutputError(
                f"{self.path}: is being written from the computer {owner.get('host')}; choose "
                f"another --out, or delete {self.lock.name} if that program is gone"
            )
        if _runs(owner):
            raise OutputError(
                f"{self.path}: is being written by process {owner['pid']}; wait until it has "
                "ended, or choose another --out"
            )


def _this_program() -> dict[str, Any]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "began": process.create_time()}


def _runs(owner: Mapping[str, Any]) -> bool:
    """Whether the program still runs; a number may have been given to another one since."""
    try:
        return abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["began"])) < 2
    except psutil.AccessDenied:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


# -------------------------------------------------------------------------- the frame log


class FrameLog:
    """Appends one JSON line per frame; nothing stays in memory, and a kill costs no line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def append(self, frame: Frame, part: int, place: Place) -> None:
        """Write the line of one frame."""
        line = {
            "index": frame.index,
            "part": part,
            "place": list(place),
            "axes": dict(frame.axes),
            "metadata": dict(frame.metadata),
        }
        self._file.write(json.dumps(line, ensure_ascii=False, default=jsonable) + "\n")
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
