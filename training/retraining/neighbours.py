"""Other libraries whose nights are on this computer: those still to come are left their share.

Owns the notes of who trains here: a file for each library, in the user's state folder. Jobs of the
operating system start together and take turns; the first would have the whole night, every time.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import date, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import QuietscopeError, one_line
from ...storage.atomic_output import write_json
from ...storage.bounded_text import read_text
from ...storage.live_sessions import state_folder
from .window import Window

logger = logging.getLogger(__name__)

FOLDER = "nights here"
FORGOTTEN_AFTER = timedelta(days=3)
"""A library that had no night for longer has no job any more."""


class _Note(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    library: str
    at: str
    until: str
    night: date
    """The last that was begun."""
    over: bool
    """Whether that one had its turn."""

    def is_to_come(self, now: datetime) -> bool:
        """Whether its night of today has still to have its turn."""
        window = Window.between(self.at, self.until)
        tonight = window.night(now)
        if window.left(now) <= 0 or tonight - self.night > FORGOTTEN_AFTER:
            return False
        return not (self.over and self.night == tonight)


def note(library: Path, window: Window, night: date, *, over: bool) -> None:
    """Write down that a library has its nights here, and whether tonight's is over.

    Where that cannot be written the others have no share of their own, and the night is made.
    """
    place = library.absolute()
    written = _Note(
        library=str(place),
        at=f"{window.start:%H:%M}",
        until=f"{window.end:%H:%M}",
        night=night,
        over=over,
    )
    name = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        write_json(_folder() / f"{name}.json", written.model_dump(mode="json"))
    except (QuietscopeError, OSError) as error:
        logger.warning("other libraries will not know of this night: %s", one_line(error))


def still_to_come(library: Path, now: datetime) -> list[str]:
    """Return the other libraries of this computer whose turn has still to come tonight."""
    notes = []
    for file in sorted(_folder().glob("*.json")):
        try:
            notes.append(_Note.model_validate_json(read_text(file)))
        except (OSError, ValueError, ValidationError) as error:
            logger.warning("%s: is not counted (%s)", file, one_line(error))
    own = str(library.absolute())
    return [one.library for one in notes if one.library != own and _counts(one, now)]


def _counts(one: _Note, now: datetime) -> bool:
    try:
        return one.is_to_come(now)
    except QuietscopeError:  # its times are none
        return False


def _folder() -> Path:
    return state_folder() / FOLDER
