"""Run one acquisition of our own: the planned events through the engine and into the stream.

Owns the wait for its end, so that Ctrl-C ends it cleanly. A user's own script does without this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray

from ..errors import one_line
from .errors import AcquisitionError
from .live import LiveDenoiser
from .microscope.bridge import DEFAULT_PORT, has_ended
from .microscope.core import running_core
from .microscope.planned_events import Event

OnFrames = Callable[[int], None]
Observe = Callable[[Mapping[str, Any]], NDArray[Any]]
_CHECK_S = 0.1  # how soon Ctrl-C and the progress display are looked after


def run_acquisition(
    live: LiveDenoiser,
    events: Sequence[Event],
    *,
    observe: Observe | None = None,
    port: int = DEFAULT_PORT,
    on_frames: OnFrames | None = None,
) -> None:
    """Acquire `events` with `live` as the only storage.

    `observe` gives the pixels in place of the camera's, ahead of the stream, from an image's tags:
    what a simulated specimen shows.
    `port` is that of a running Micro-Manager, where the core is not one of this process.

    Raises
    ------
    AcquisitionError
        If the engine failed, or Micro-Manager has ended; frames until then are recorded.
    KeyboardInterrupt
        After Ctrl-C, once the engine has stopped.
    """
    ended = threading.Event()

    def note(notification: Any) -> None:
        # The engine's last word; later ones only tell that nothing is stored in RAM.
        if notification.is_data_sink_finished_notification():
            ended.set()

    def hook(pixels: Any, metadata: Any) -> Any:
        observed = pixels if observe is None else observe(metadata)
        return live.image_process_fn(observed, metadata)

    acquisition = _acquisition(
        image_process_fn=hook,
        notification_callback_fn=note,
        # These two are for Micro-Manager's engine; that of this process has neither.
        port=port,
        show_display=False,
    )
    try:
        acquisition.acquire(list(events))
        acquisition.mark_finished()
        while not ended.wait(_CHECK_S):
            if has_ended(port):
                raise AcquisitionError(
                    "Micro-Manager has ended; what was recorded is kept. Start Micro-Manager "
                    "again, then this anew"
                )
            if on_frames is not None:
                on_frames(live.report["frames_recorded"])
    except KeyboardInterrupt:
        acquisition.abort()
        acquisition.mark_finished()  # abort() clears the queue, the mark of its end included
        _await_end(acquisition)
        raise
    _await_end(acquisition)


def _acquisition(**options: Any) -> Any:
    """Return the engine's acquisition, whose threads do not keep this program from ending.

    Those that talk to Micro-Manager wait for ever where it has ended. They are daemons if the
    thread that makes them is one.
    """
    from pycromanager import Acquisition

    if running_core() is not None:
        return Acquisition(**options)
    made: Future[Any] = Future()

    def make() -> None:
        try:
            made.set_result(Acquisition(**options))
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=make, name="quietscope acquisition", daemon=True).start()
    return made.result()


def _await_end(acquisition: Any) -> None:
    failures = []
    # The engine of this process looks for failures only while it is not over, and offers no other
    # question: a camera that was unplugged would look like an acquisition that was short.
    for finish in (acquisition._check_for_exceptions, acquisition.await_completion):
        try:
            finish()
        except Exception as error:  # the engine raises bare exceptions
            failures.append(error)
    if failures:
        raise AcquisitionError(
            f"the acquisition engine stopped ({one_line(failures[0])}); what was recorded "
            "until then is kept. Look whether the camera is on and connected and shows an image "
            "in Micro-Manager, then start again"
        ) from failures[0]
