"""Run one acquisition of our own: the planned events through the engine and into the stream.

Owns the wait for its end, so that Ctrl-C ends it cleanly. A user's own script does without this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import one_line
from .bridge import DEFAULT_PORT
from .errors import AcquisitionError
from .live import LiveDenoiser
from .planned_events import Event

OnFrames = Callable[[int], None]
Hook = Callable[[Any, Any], Any]
_CHECK_S = 0.1  # how soon Ctrl-C and the progress display are looked after


def run_acquisition(
    live: LiveDenoiser,
    events: Sequence[Event],
    *,
    hook: Hook | None = None,
    port: int = DEFAULT_PORT,
    on_frames: OnFrames | None = None,
) -> None:
    """Acquire `events` with `live` as the only storage.

    `hook` stands ahead of the stream and calls `live.image_process_fn`, as a user's own does.
    `port` is that of a running Micro-Manager, where the core is not one of this process.

    Raises
    ------
    AcquisitionError
        If the engine failed; frames until then are recorded.
    KeyboardInterrupt
        After Ctrl-C, once the engine has stopped.
    """
    from pycromanager import Acquisition

    ended = threading.Event()

    def note(notification: Any) -> None:
        # The engine's last word; later ones only tell that nothing is stored in RAM.
        if notification.is_data_sink_finished_notification():
            ended.set()

    acquisition = Acquisition(
        image_process_fn=hook or live.image_process_fn,
        notification_callback_fn=note,
        # These two are for Micro-Manager's engine; that of this process has neither.
        port=port,
        show_display=False,
    )
    try:
        acquisition.acquire(list(events))
        acquisition.mark_finished()
        while not ended.wait(_CHECK_S):
            if on_frames is not None:
                on_frames(live.report["frames_recorded"])
    except KeyboardInterrupt:
        acquisition.abort()
        acquisition.mark_finished()  # abort() clears the queue, the mark of its end included
        _await_end(acquisition)
        raise
    _await_end(acquisition)


def _await_end(acquisition: Any) -> None:
    try:
        acquisition.await_completion()
    except Exception as error:  # the engine raises bare exceptions
        raise AcquisitionError(
            f"the acquisition engine stopped ({one_line(error)}); what was recorded "
            "until then is kept"
        ) from error
