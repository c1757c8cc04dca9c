"""What a night came to: the record that it leaves in the library, and the log.

Owns the folder `nights` and what stands there: a record for each night, a page, the log. Read
`nights(library)` for all of them and `last_night(library)` for the newest; both are plain data for
whoever shows them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...inference.library import NIGHTS, Decision
from ...storage.atomic_output import OutputError, write_json
from ...storage.bounded_text import read_text

LOG = "overnight.log"
LOG_BYTES = 1_000_000
OLD_LOGS = 5

State = Literal["running", "done", "unfinished", "failed"]


class DecisionRecord(BaseModel):
    """What became of one camera, setting and channel.

    Attributes
    ----------
    before, current
        The model in use when the night began, and when the decision had fallen.
    runs
        That the candidate learned from, relative to the library where they lie inside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str | None = None
    camera: str = ""
    decision: Decision
    reason: str
    candidate: str | None = None
    current: str | None = None
    before: str | None = None
    figures: dict[str, float | None] = {}
    runs: tuple[str, ...] = ()

    def about(self) -> str:
        """Return the channel and the camera in words."""
        return ", ".join(filter(None, [self.channel, self.camera])) or "the model"


class NightRecord(BaseModel):
    """One night.

    Attributes
    ----------
    night
        The day on which its window began.
    state
        `unfinished` goes on the next night; `failed` says why in `failure`.
    waited_s
        For how long training stood still for live sessions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    night: date
    started: datetime
    ended: datetime | None = None
    state: State = "running"
    decisions: tuple[DecisionRecord, ...] = ()
    waited_s: float = 0.0
    failure: str | None = None
    remarks: tuple[str, ...] = ()
    page: str | None = None

    def headline(self) -> str:
        """Return the night in one line for a person."""
        if self.state == "failed":
            return f"failed: {self.failure}"
        if self.state == "running":
            return f"running since {self.started:%H:%M}"
        words = "; ".join(f"{one.about()} {one.decision}" for one in self.decisions)
        if self.state == "unfinished":
            return "; ".join([*filter(None, [words]), "goes on the next night"])
        return words or "nothing was looked at"


def nights_folder(library: Path) -> Path:
    """Return where a library keeps what its nights left."""
    return library / NIGHTS


def nights(library: Path) -> tuple[NightRecord, ...]:
    """Return the nights of a library, oldest first; a record that cannot be read is left out."""
    found = []
    for file in sorted(nights_folder(library).glob("????-??-??.json")):
        try:
            found.append(NightRecord.model_validate_json(read_text(file)))
        except (OSError, ValueError, ValidationError):
            continue
    return tuple(found)


def last_night(library: Path) -> NightRecord | None:
    """Return the newest night, None before the first."""
    return next(reversed(nights(library)), None)


def night_of(library: Path, night: date) -> NightRecord | None:
    """Return the record of a night, None if there is none."""
    return next((found for found in nights(library) if found.night == night), None)


def write_record(library: Path, record: NightRecord) -> Path:
    """Write a night's record in one step; return its file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    file = nights_folder(library) / f"{record.night}.json"
    try:
        write_json(file, record.model_dump(mode="json"))
    except OSError as error:
        raise OutputError(
            f"{file}: cannot be written ({error.strerror}); free some space there, or see to it "
            "that you may write"
        ) from error
    return file


@contextmanager
def log_kept(library: Path) -> Iterator[logging.Logger]:
    """Keep a log of the night in the library, of bounded size whatever happens, for a block."""
    folder = nights_folder(library)
    folder.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(
        folder / LOG, maxBytes=LOG_BYTES, backupCount=OLD_LOGS, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger(f"{__name__}.kept")
    log.setLevel(logging.INFO)
    log.propagate = False  # the file is for the night; a terminal is told in other words
    log.addHandler(handler)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        handler.close()
