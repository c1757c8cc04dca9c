"""A night's training as a process of its own, and who watches over it.

Owns that process: it is halted as a whole when a live session starts (whatever it is doing: only
training steps can ask for themselves, reading and export cannot), goes on when the session has
ended, and is ended when the night is. What it does is in `night_process`; no torch is loaded
here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

import psutil

from ...storage.live_sessions import who_is_live

LOOK_EVERY_S = 0.2
COURTESY_S = 1.0
"""For the loop to write its checkpoint and to free the GPU's memory, before it is halted."""
SETTLED_S = 5.0
"""Without a session before the process goes on: the next one often follows at once."""
OVERTIME_S = 120.0
"""Beyond the end of the night: writing a checkpoint takes less. Then the process is killed.

Of this program's own time: where the computer slept over the end, the process has it on waking."""
LAST_LINES = 20

# Windows: no console window at night, and below what a person runs. Zero elsewhere.
_QUIETLY: int = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(
    subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0
)


@dataclass(slots=True)
class Ended:
    """How the process ended.

    Attributes
    ----------
    status
        Its exit status; negative for a signal.
    lines
        What it printed on standard output.
    last_words
        The end of what it printed on standard error.
    waited_s
        For how long it was halted, or stood still by itself, for live sessions.
    overran
        Whether it was killed because it did not end with the night.
    """

    status: int
    lines: list[str] = field(default_factory=list)
    last_words: list[str] = field(default_factory=list)
    waited_s: float = 0.0
    overran: bool = False


def supervise(
    command: Sequence[str],
    *,
    until: float | None,
    live: Callable[[], str | None] = who_is_live,
    on_line: Callable[[str], None] = lambda line: None,
    on_halt: Callable[[str | None], None] = lambda who: None,
    on_start: Callable[[int], None] = lambda pid: None,
    settled_s: float = SETTLED_S,
) -> Ended:
    """Run `command` to its end, halted while a session is live.

    Parameters
    ----------
    command
        Prints its results on standard output, a line each, and what it does on standard error.
    until
        `time.time()` at which it should have ended by itself; None for never.
    live
        Returns who is live, None if nobody is.
    on_line
        Called with each line of standard error, from another thread.
    on_halt
        Called with who is live when the process has to wait, and with None when it goes on.
    on_start
        Called with the number of the process.
    settled_s
        For how long nobody may have been live before the process goes on.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        creationflags=_QUIETLY,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
    )
    ended = Ended(status=0)

    def remark(line: str) -> None:
        ended.last_words = [*ended.last_words, line][-LAST_LINES:]
        on_line(line)

    takers = ((process.stdout, ended.lines.append), (process.stderr, remark))
    readers = [_reader(pipe, take) for pipe, take in takers if pipe is not None]
    try:
        on_start(process.pid)
        _watch(process, ended, until, live, on_halt, settled_s)
    finally:
        if process.poll() is None:
            _kill(process)
        for reader in readers:
            reader.join()
        for pipe, _ in takers:
            if pipe is not None:
                pipe.close()
    ended.status = process.returncode
    return ended


def _watch(
    process: subprocess.Popen[str],
    ended: Ended,
    until: float | None,
    live: Callable[[], str | None],
    on_halt: Callable[[str | None], None],
    settled_s: float,
) -> None:
    halted = _Halted(process)
    came: float | None = None  # when the session came that the process waits for
    seen = 0.0
    over: float | None = None  # when it was seen that the night is over
    while process.poll() is None:
        now = time.monotonic()
        who = live()
        if who is not None:
            seen = now
            if came is None:
                came = now
                on_halt(who)
            if now - came >= COURTESY_S:
                halted.halt()
        elif came is not None and now - seen >= settled_s:
            halted.go_on()
            ended.waited_s += now - came
            came = None
            on_halt(None)
        if over is None and until is not None and time.time() > until:
            over = now
        if over is not None and now - over > OVERTIME_S:
            ended.overran = True
            _kill(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY_S)
    if came is not None:
        ended.waited_s += time.monotonic() - came


class _Halted:
    """The process with all that it has started, halted or not."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._halted: list[psutil.Process] = []

    def halt(self) -> None:
        if self._halted:
            return
        for one in _family(self._process.pid):
            with suppress(psutil.Error):
                one.suspend()
                self._halted.append(one)

    def go_on(self) -> None:
        for one in reversed(self._halted):
            with suppress(psutil.Error):
                one.resume()
        self._halted = []


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def _kill(process: subprocess.Popen[str]) -> None:
    for one in _family(process.pid):
        with suppress(psutil.Error):
            one.kill()
    process.wait()


def _reader(pipe: IO[str], take: Callable[[str], None]) -> threading.Thread:
    def read() -> None:
        for line in pipe:
            take(line.rstrip("\r\n"))

    thread = threading.Thread(target=read, name="quietscope night output")
    thread.start()
    return thread


def own_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package in a process of its own."""
    return [sys.executable, "-P", "-m", module, *arguments]
