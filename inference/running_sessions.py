"""Live sessions of this computer that a model is for: which there are, and to have them use it.

Owns the question which of their models it would take the place of. How they are reached is in
`storage.session_requests`; whether they grant it is their own affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import one_line
from ..storage.atomic_output import OutputError
from ..storage.session_requests import ANSWER_S, ModelRequest, RunningSession, running_sessions
from .bundle import Bundle, read_manifest
from .errors import BundleError


@dataclass(frozen=True, slots=True)
class Asked:
    """A session that was asked.

    Attributes
    ----------
    run
        Its run directory.
    granted
        None where it gave no answer.
    words
        A line about it.
    """

    run: str
    granted: bool | None
    words: str


def sessions_for(bundle: Bundle) -> list[RunningSession]:
    """Return the sessions that are denoised by another model of this one's camera and channel."""
    return [session for session in running_sessions() if _takes_place_in(bundle, session)]


def have_used(bundle: Bundle, *, wait_s: float = ANSWER_S) -> list[Asked]:
    """Ask each of `sessions_for` to denoise with a model from its next frame on.

    One that cannot be asked is among the answers, with the reason.
    """
    return [_ask(session, bundle, wait_s) for session in sessions_for(bundle)]


def _ask(session: RunningSession, bundle: Bundle, wait_s: float) -> Asked:
    request = ModelRequest(model=str(bundle.path.absolute()))
    run = session.about.run
    try:
        answer = session.ask(request, wait_s=wait_s)
    except (OutputError, OSError) as error:
        return Asked(run, None, f"could not be asked, and keeps its model ({one_line(error)})")
    if answer is None:
        return Asked(run, None, f"gave no answer in {wait_s:.0f} s, or has ended")
    return Asked(run, answer.granted, answer.words)


def _takes_place_in(bundle: Bundle, session: RunningSession) -> bool:
    return any(_takes_place_of(bundle, Path(model)) for model in session.about.models.values())


def _takes_place_of(bundle: Bundle, other: Path) -> bool:
    ours = bundle.manifest
    try:
        theirs = read_manifest(other)
    except BundleError:
        return False
    same = theirs.channel == ours.channel and not theirs.camera.differences(ours.camera)
    return same and other.absolute() != bundle.path.absolute()
