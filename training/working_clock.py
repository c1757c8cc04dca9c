"""The time in which this process could work: not while it was halted, or the computer slept.

Owns the one clock that budgets are kept by. Where nobody halts the process it is the monotonic
clock; a night's process, halted as a whole for live sessions, has `watch_for_halts` look on.
"""

from __future__ import annotations

import threading
import time

TICK_S = 0.5
HALTED_S = 3.0
"""Between two ticks: a busy computer takes a second, a live session never ends so soon."""

_lock = threading.Lock()
_last: float | None = None
"""The last tick; None where nobody looks on."""
_halted_s = 0.0


def working_s() -> float:
    """Return the seconds that were worked, from a beginning that means nothing by itself."""
    with _lock:
        _tick()
        return time.monotonic() - _halted_s


def watch_for_halts() -> None:
    """Notice from now on when this process is halted as a whole."""
    global _last
    with _lock:
        if _last is not None:
            return
        _last = time.monotonic()
    threading.Thread(target=_tick_on, name="quietscope working clock", daemon=True).start()


def _tick_on() -> None:
    while True:
        time.sleep(TICK_S)
        with _lock:
            _tick()


def _tick() -> None:
    global _last, _halted_s
    if _last is None:
        return
    now = time.monotonic()
    if now - _last > HALTED_S:
        _halted_s += now - _last - TICK_S
    _last = now
