"""The acquisition engine of pycro-manager, as this package's own commands begin and stop it.

Owns that an engine which nobody told to end keeps no program from ending: it waits for events for
ever. So its threads are daemons, and Ctrl-C, at whatever moment and however often, leaves none
running. What it acquires is the business of who opens it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any


def open_engine(**options: Any) -> Any:
    """Return a pycro-manager `Acquisition` with these options.

    Its threads are daemons because the thread that makes them is one. An engine that is there only
    after Ctrl-C is stopped at once.
    """
    from pycromanager import Acquisition

    made: Future[Any] = Future()

    def make() -> None:
        try:
            made.set_result(Acquisition(**options))
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=make, name="quietscope acquisition", daemon=True).start()
    try:
        return made.result()
    except KeyboardInterrupt:
        made.add_done_callback(_stop_if_made)
        raise


def stop_engine(engine: Any) -> None:
    """Tell an engine to end now, in a thread of its own: no further Ctrl-C comes in between."""

    def stop() -> None:
        engine.abort()
        engine.mark_finished()  # abort() clears the queue, the mark of its end included

    stopping = threading.Thread(target=stop, name="quietscope stops the engine", daemon=True)
    stopping.start()
    stopping.join()


def _stop_if_made(made: Future[Any]) -> None:
    if made.exception() is None:
        stop_engine(made.result())
