"""Other programs ask a running session to denoise with another model.

Owns the looking for such requests, away from every frame, and the answers. Who may ask, and how a
request reaches this session, is told by `storage.session_requests`; whether a model fits, and when
it takes over, by `model_switch` and the stage that denoises.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ...errors import QuietscopeError, one_line
from ...inference.bundle import Bundle
from ...storage.atomic_output import OutputError
from ...storage.session_requests import (
    Answer,
    ModelRequest,
    SessionAbout,
    announce,
    answer,
    clear,
    requests_to,
)

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
MOST_WORDS = 2000
PATIENCE_S = 60.0
"""A model that is still being loaded so long after the run does not come: its drive is gone."""

Use = Callable[[Path, str | None], str]
"""Lets a model denoise from the next frame on; returns a line about it, or raises why not."""


class ModelRequests:
    """Looks for what a session is asked, for as long as it lasts.

    Parameters
    ----------
    session
        The place that names the session; None where nobody can ask.
    run
        Its run directory.
    bundles
        Returns its present models, by the names of their channels.
    use
        Grants a request.
    log
        Gets a line for each that is refused.
    """

    def __init__(
        self,
        session: Path | None,
        run: Path,
        bundles: Callable[[], Mapping[str, Bundle]],
        use: Use,
        log: Callable[[str], None],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._session, self._run, self._bundles = session, run, bundles
        self._use, self._log, self._look_every_s = use, log, look_every_s
        self._announced: SessionAbout | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._look_on,
            args=(session,),
            name="quietscope model requests",
            daemon=True,
        )

    def start(self) -> None:
        """Say what this session is, and begin to look; nothing happens where nobody can ask."""
        if self._session is None or not self._bundles():
            return
        try:
            self._announce(self._session)
        except OutputError as error:  # no reason not to record
            logger.warning("other programs cannot ask this session for another model: %s", error)
            return
        self._thread.start()

    def close(self) -> None:
        """Stop, and be seen no longer."""
        self._over.set()
        if self._session is None or self._announced is None:
            return
        self._thread.join(PATIENCE_S)
        clear(self._session)

    def _announce(self, session: Path) -> None:
        """Say which models work now, whenever that has changed."""
        models = {name: str(bundle.path.absolute()) for name, bundle in self._bundles().items()}
        about = SessionAbout(run=str(self._run.absolute()), models=models)
        if about != self._announced:
            announce(session, about)
            self._announced = about

    def _look_on(self, session: Path) -> None:
        while not self._over.wait(self._look_every_s):
            self._tell(partial(self._announce, session))
            for name, request in requests_to(session):
                given = self._granted(request)
                if not self._over.is_set():  # else nobody would take it away
                    self._tell(partial(answer, session, name, given))

    def _tell(self, say: Callable[[], None]) -> None:
        try:
            say()
        except (OutputError, OSError) as error:
            logger.warning("other programs cannot be told of this session: %s", error)

    def _granted(self, request: ModelRequest) -> Answer:
        try:
            words = self._use(Path(request.model), request.channel)
            return Answer(granted=True, words=_in_one_line(words))
        except QuietscopeError as error:
            words = one_line(error)
        except Exception as error:  # whatever a foreign model provokes must not end the run
            logger.debug("a model that was asked for failed", exc_info=True)
            words = (
                f"{request.model}: cannot be loaded ({type(error).__name__}: {one_line(error)})"
            )
        words = _in_one_line(words)
        self._log(f"asked for another model: refused, {words}")
        return Answer(granted=False, words=words)


def _in_one_line(words: str) -> str:
    """Return what another program may have written, as the run's log and a terminal take it."""
    return "".join(c if c.isprintable() else " " for c in words)[:MOST_WORDS]
