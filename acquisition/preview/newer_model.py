"""A newer model for the run that is looked at: asking its program to change over to it.

Owns the question and the words of the answer. Whether it is granted is the run's own affair; that
there is a newer one comes with the figures of a picture. The window never waits for the answer.
"""

from __future__ import annotations

import threading
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from ...errors import QuietscopeError, one_line
from ...storage.session_requests import ANSWER_S, Answer, ModelRequest, running_sessions


def ask_for(run: Path, model: Path, *, wait_s: float = ANSWER_S) -> Answer:
    """Ask the program of a run to denoise with a model from the next frame on.

    Parameters
    ----------
    run
        The run directory.
    model
        A bundle.
    """
    request = ModelRequest(model=str(model.absolute()))
    try:
        for session in running_sessions():
            if Path(session.about.run).absolute() == run.absolute():
                answer = session.ask(request, wait_s=wait_s)
                return answer or Answer(granted=False, words="the run gave no answer")
    except (QuietscopeError, OSError) as error:
        return Answer(granted=False, words=one_line(error))
    return Answer(granted=False, words="the run has ended; the next one takes the newer model")


class ModelExchange(QObject):
    """Asks in a thread of its own, one question at a time.

    Attributes
    ----------
    asking
        Whether an answer is awaited.
    """

    answered = Signal(object)

    def __init__(self, run: Path | None) -> None:
        super().__init__()
        self._run = run
        self._thread: threading.Thread | None = None

    @property
    def asking(self) -> bool:
        """Whether an answer is awaited."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def can_ask(self) -> bool:
        """Whether a question can be asked now: the run is known, and none is open."""
        return self._run is not None and not self.asking

    def ask(self, model: Path) -> bool:
        """Ask for a model; the `Answer` comes as `answered`. Return whether it was asked."""
        run = self._run
        if run is None or not self.can_ask:
            return False

        def wait() -> None:
            self.answered.emit(ask_for(run, model))

        # A daemon: the answer is the run's business, and the window may close before it comes.
        self._thread = threading.Thread(target=wait, name="preview newer model", daemon=True)
        self._thread.start()
        return True
