"""How a command speaks to the program that started it, where that is a window and no terminal.

Owns the job folder: a file of events, one JSON object per line, that the command appends to, and
two marks that the other program sets in it, to answer a question and to ask for an end. Files and
no pipes, because whoever reads may hang, be killed or be started anew: a command never waits for
it, and what it said can still be read afterwards. Does not know what the events mean.

::

    job/
        events.jsonl   {"event": "progress", "time": 12.5, …}, from the command
        answer         set by the reader: the question that was asked last is answered
        cancel         set by the reader: the command is to end, as Ctrl-C would end it
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

JOB = "QUIETSCOPE_JOB"
"""The environment variable that names the job folder."""
EVENTS, ANSWER, CANCEL = "events.jsonl", "answer", "cancel"
LOOK_S = 0.2
"""How soon a mark is seen. A file is all that works alike on Windows and after a restart of the
reader, and a look at one costs microseconds."""

_folder: Path | None = None
_lock = threading.Lock()
_last: dict[str, float] = {}
_torn = False
"""Whether the last line may have reached the disk in part."""


def begin_telling() -> None:
    """Speak to the job folder that the environment names, if it names one.

    Takes the name out of the environment: programs that this one starts are not the job.
    """
    global _folder
    named = os.environ.pop(JOB, None)
    if not named or not Path(named).is_dir():
        return
    _folder = Path(named)
    # Where a shell started the window in its background, Ctrl-C is ignored by all that follow.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A daemon: it holds nothing, and ends with the command.
    threading.Thread(target=_watch_for_cancel, args=(_folder,), name="job", daemon=True).start()


def is_told() -> bool:
    """Whether there is a program that reads events."""
    return _folder is not None


def tell(event: str, *, least_interval_s: float = 0.0, **fields: Any) -> None:
    """Append an event, if anybody reads them. Never waits and never fails.

    Parameters
    ----------
    event
        What kind it is.
    least_interval_s
        Leave it out if the last one of its kind is not so long ago.
    fields
        What JSON can hold.
    """
    global _torn
    folder, now = _folder, time.time()
    if folder is None or now - _last.get(event, 0.0) < least_interval_s:
        return
    line = json.dumps({"event": event, "time": now, **fields}, default=str) + "\n"
    # A disk that is full, or a folder that was cleared away, is no matter of the job.
    with _lock, suppress(OSError):
        _last[event] = now
        # A line that a full disk cut off ends here, or this one would be lost with it.
        begin, _torn = "\n" if _torn else "", True
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(begin + line)
        _torn = False


def ask(sentence: str) -> None:
    """Ask a person for something, and return when it is done."""
    folder = _folder
    if folder is None:
        raise RuntimeError("nobody reads what is asked: begin_telling() found no job folder")
    (folder / ANSWER).unlink(missing_ok=True)
    tell("ask", text=sentence)
    while not _is_set(folder / ANSWER):
        time.sleep(LOOK_S)
    tell("answered")


def _is_set(mark: Path) -> bool:
    """Whether a mark is there; a folder that cannot be asked just now has none."""
    try:
        return mark.exists()
    except OSError:
        return False


def _watch_for_cancel(folder: Path) -> None:
    while not _is_set(folder / CANCEL):
        time.sleep(LOOK_S)
    _thread.interrupt_main()
