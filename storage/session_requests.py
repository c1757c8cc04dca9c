"""What running live sessions say of themselves, and what others ask of them.

Owns the files beside a session's lock (see `live_sessions`): one that says which run it is and by
which models it is denoised, one for each request, one for each answer. They are written in one
step, and what a killed session left is taken away by whoever looks. What a request means, and
whether it is granted, is the session's own affair.

::

    live sessions/
        .4711-9f31c2aa.lock                     held for as long as the session lasts
        4711-9f31c2aa.session.json              its run and its models
        4711-9f31c2aa.5e0d….request.json        one that is not answered yet
        4711-9f31c2aa.5e0d….answer.json         until who asked has read it
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .atomic_output import write_json
from .bounded_text import read_text
from .directory_lock import is_owned
from .live_sessions import sessions_folder

SESSION, REQUEST, ANSWER = ".session.json", ".request.json", ".answer.json"
LARGEST_BYTES = 2**16
"""Of each of these files."""
LOOK_EVERY_S = 0.1
ANSWER_S = 60.0
"""To wait for: loading a model takes seconds, on a busy computer a few of them more."""

Said = TypeVar("Said", bound=BaseModel)


class _Said(BaseModel):
    # A session of a later version may say more.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class SessionAbout(_Said):
    """What a session says of itself.

    Attributes
    ----------
    run
        Its run directory.
    models
        Paths of the bundles that denoise it, by the names of their channels.
    """

    run: str
    models: dict[str, str] = {}


class ModelRequest(_Said):
    """Please denoise with another model from the next frame on.

    Attributes
    ----------
    model
        The path of a bundle.
    channel
        Of the run, by the name that its model was given for; None lets the session find it.
    """

    model: str
    channel: str | None = None


class Answer(_Said):
    """Whether a request was granted, and a line about it."""

    granted: bool
    words: str


@dataclass(frozen=True, slots=True)
class RunningSession:
    """A live session of this user on this computer, as others see it."""

    place: Path
    about: SessionAbout

    def ask(self, request: ModelRequest, *, wait_s: float = ANSWER_S) -> Answer | None:
        """Ask, and wait for the answer; None where none came or the session has ended.

        A request that nobody has taken by then is withdrawn.

        Raises
        ------
        OutputError
            If the request cannot be written.
        """
        name = f"{self.place.name}.{uuid.uuid4().hex}"
        asked = self.place.with_name(f"{name}{REQUEST}")
        answered = self.place.with_name(f"{name}{ANSWER}")
        _write(asked, request)
        ends = time.monotonic() + wait_s
        try:
            while True:
                if (answer := _read(answered, Answer)) is not None:
                    return answer
                if time.monotonic() >= ends or not is_owned(self.place):
                    return None
                time.sleep(LOOK_EVERY_S)
        finally:
            for file in (asked, answered):
                _delete(file)


def announce(place: Path, about: SessionAbout) -> None:
    """Say what the session of `place` is; again whenever that has changed.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    _write(place.with_name(f"{place.name}{SESSION}"), about)


def running_sessions() -> list[RunningSession]:
    """Return the sessions that run now and have said what they are."""
    found = []
    for file in sorted(sessions_folder().glob(f"[!.]*{SESSION}")):
        place = file.with_name(file.name.removesuffix(SESSION))
        if not is_owned(place):
            clear(place)  # it was killed
            continue
        about = _read(file, SessionAbout)
        if about is not None:
            found.append(RunningSession(place, about))
    return found


def requests_to(place: Path) -> list[tuple[str, ModelRequest]]:
    """Return what the session of `place` is asked, with the name to answer to.

    A request is returned once: by whoever takes it away, and not where it was withdrawn meanwhile.
    Some microseconds where there is nothing; called several times a second.
    """
    try:
        names = [entry.name for entry in os.scandir(place.parent)]
    except OSError:
        return []
    found = []
    for name in sorted(names):
        if name.startswith(f"{place.name}.") and name.endswith(REQUEST):
            file = place.with_name(name)
            request = _read(file, ModelRequest)
            if _delete(file) and request is not None:
                found.append((name.removesuffix(REQUEST), request))
    return found


def answer(place: Path, name: str, given: Answer) -> None:
    """Answer the request of this name.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    _write(place.with_name(f"{name}{ANSWER}"), given)


def clear(place: Path) -> None:
    """Take away what a session has said and was asked."""
    with suppress(OSError):
        for file in place.parent.glob(f"{place.name}.*.json"):
            _delete(file)


def _write(file: Path, said: _Said) -> None:
    if file.is_symlink():  # whoever laid it there: what it leads to may be a recording
        _delete(file)
    write_json(file, said.model_dump())


def _read(file: Path, kind: type[Said]) -> Said | None:
    try:
        return kind.model_validate_json(read_text(file, most_bytes=LARGEST_BYTES))
    except (OSError, ValueError, ValidationError):
        return None


def _delete(file: Path) -> bool:
    """Return whether it was there and is gone."""
    try:
        file.unlink()
    except OSError:  # Windows: who reads it at this moment holds it; it goes later
        return False
    return True
