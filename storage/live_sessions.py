"""Who has this computer to themselves now: live sessions, as our other programs see them.

Owns the signal and where it lies. A session holds a lock of its own in the user's state folder
for as long as it lasts; the operating system takes it back when its process ends, however it
ends, so there is no list to clean up and no clock to trust. Sessions of other users of the
computer are not seen. Who gives way to them, and how, is decided elsewhere; what they say of
themselves, and are asked, is in `session_requests`.

`QUIETSCOPE_STATE` names another folder.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from .atomic_output import OutputError
from .directory_lock import DirectoryLock, holder_of

logger = logging.getLogger(__name__)

ENTRY_WAIT_S = 2.0
"""Somebody who looks whether the lock is held holds it himself for a moment."""


def state_folder() -> Path:
    """Return the folder for what this computer's programs tell each other."""
    named = os.environ.get("QUIETSCOPE_STATE")
    return Path(named) if named else platformdirs.user_state_path("quietscope", appauthor=False)


def sessions_folder() -> Path:
    """Return where sessions are seen."""
    return state_folder() / "live sessions"


@contextmanager
def live_session() -> Iterator[Path]:
    """Be seen as a live session for the length of a block; yields the place that names it.

    Where the signal cannot be given the block runs all the same, and the log says so: a recording
    is worth more than the night's training.
    """
    place = sessions_folder() / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    lock = DirectoryLock(place)
    try:
        lock.acquire(wait_s=ENTRY_WAIT_S)
    except OutputError as error:
        logger.warning("training on this computer will not give way to this session: %s", error)
    try:
        yield place
    finally:
        with suppress(OSError):  # of a disk that went away: not the run's business
            lock.release()


def who_is_live() -> str | None:
    """Return who runs a live session on this computer now, None if nobody does.

    A few microseconds where nobody does; called several times a second.
    """
    try:
        locks = [
            entry.name for entry in os.scandir(sessions_folder()) if entry.name.endswith(".lock")
        ]
    except OSError:
        return None  # nobody has ever been there
    for name in locks:
        # What a killed session left is taken away by being looked at.
        holder = holder_of(sessions_folder() / name.removeprefix(".").removesuffix(".lock"))
        if holder is not None:
            return holder
    return None
