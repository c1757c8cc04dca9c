"""Why pycro-manager aborted an acquisition: the exception of a user's own hook, say.

Owns the listening. pycro-manager keeps such an exception, and raises it only if somebody asks at
the right moment; otherwise a script whose hook failed ends as if nothing had happened, or waits
for ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar


class EngineFailures:
    """Hears, during one run, why acquisitions of this program are aborted."""

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _listening: ClassVar[list[EngineFailures]] = []
    _engines_own: ClassVar[Callable[..., None] | None] = None

    def __init__(self) -> None:
        self.first: BaseException | None = None
        self._echo: BaseException | None = None

    def __enter__(self) -> EngineFailures:
        from pycromanager.acquisition.acquisition_superclass import Acquisition

        with self._lock:
            if not self._listening:
                EngineFailures._engines_own = Acquisition.abort
                Acquisition.abort = _telling(Acquisition.abort, self._listening)
            self._listening.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        from pycromanager.acquisition.acquisition_superclass import Acquisition

        with self._lock:
            self._listening.remove(self)
            if not self._listening:
                Acquisition.abort = EngineFailures._engines_own  # of an instance it would be bound

    def hear(self, exception: BaseException) -> None:
        """Keep the first failure: of a hook that raised, its own exception."""
        if self.first is None:
            # "exception in image processor: …" is made while the hook's own is being handled.
            self.first, self._echo = sys.exc_info()[1] or exception, exception

    def of(self, raised: BaseException | None) -> BaseException | None:
        """Return what a script was ended by that raised this: of a hook, its own exception.

        None where nothing was raised and no acquisition was aborted.
        """
        return self.first if raised is None or raised is self._echo else raised


def _telling(engines_own: Callable[..., None], listening: list[EngineFailures]) -> Any:
    def abort(acquisition: Any, exception: BaseException | None = None) -> None:
        if exception is not None:
            for listener in list(listening):
                listener.hear(exception)
        engines_own(acquisition, exception)
        if exception is not None:
            # It has emptied the queue of events, and with it the mark of its end, for which the
            # script would then wait for ever.
            acquisition.mark_finished()

    return abort
