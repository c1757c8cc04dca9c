"""Run one acquisition of our own: the planned events through the engine and into the stream.

Owns the wait for its end, so that Ctrl-C ends it cleanly. A user's own script does without this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ..errors import one_line
from .engine import open_engine, stop_engine
from .errors import AcquisitionError
from .live import LiveDenoiser
from .microscope.bridge import DEFAULT_PORT, has_ended
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

    acquisition = open_engine(
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
                raise _MicroManagerEnded(
                    "Micro-Manager has ended; what was recorded is kept. Start Micro-Manager "
                    "again, then this anew"
                )
            if on_frames is not None:
                on_frames(live.report["frames_recorded"])
    except _MicroManagerEnded:
        raise  # nobody is there to be told
    except BaseException:
        stop_engine(acquisition)
        _await_end(acquisition)
        raise
    _await_end(acquisition)


class _MicroManagerEnded(AcquisitionError):
    """The engine is gone with the program in which it ran."""


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
