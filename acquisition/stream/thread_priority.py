"""Whose turn it is when there are fewer cores than threads: camera and hook before the denoiser.

Owns the interpreter's switch interval and the priority of a thread while a stream runs, and the
thread in which a model is loaded meanwhile.

pycro-manager's engine asks the core for the next image in a loop without a pause. In Python one
thread runs at a time, and that loop keeps its turn for the switch interval, 5 ms by default: half
the exposure of a fast camera, which the hook would spend waiting for its turn.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")

SWITCH_INTERVAL_S = 0.0005
"""Longest turn of a thread while frames are recorded."""

NICENESS = 5
"""On Linux: a third of the processor time of a thread at normal priority that competes with it."""

_WINDOWS_BELOW_NORMAL = -1


class _Interval:
    """How many streams want short turns, and what the interval was before the first of them."""

    lock = threading.Lock()
    streams = 0
    before_s = 0.0
    ours_s = 0.0


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Let threads take turns of at most 0.5 ms; the last stream to end sets the interval back.

    An interval that a script chose itself stays if it is shorter or was set meanwhile.
    """
    with _Interval.lock:
        if _Interval.streams == 0:
            _Interval.before_s = sys.getswitchinterval()
            if _Interval.before_s > SWITCH_INTERVAL_S:
                sys.setswitchinterval(SWITCH_INTERVAL_S)
            _Interval.ours_s = sys.getswitchinterval()
        _Interval.streams += 1
    try:
        yield
    finally:
        with _Interval.lock:
            _Interval.streams -= 1
            unchanged = sys.getswitchinterval() == _Interval.ours_s
            if _Interval.streams == 0 and unchanged and _Interval.ours_s != _Interval.before_s:
                sys.setswitchinterval(_Interval.before_s)


def never_preempt() -> None:
    """Have the calling thread wait for a core instead of taking one from a thread that runs.

    The hook wakes the recorder. On Linux the recorder would take the hook's core at once, find
    that the hook still has the interpreter, and the hook would get its core back only after the
    next thread in the queue, the camera's say, has had a turn of some milliseconds. Threads
    started by the calling one do the same. Other systems wake threads in their own ways, and a
    thread that somebody gave another policy keeps it.
    """
    if sys.platform == "linux":
        try:
            if os.sched_getscheduler(0) == os.SCHED_OTHER:  # 0 is this thread
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError:  # forbidden in some containers
            return


def lower_thread_priority() -> None:
    """Lower the priority of the calling thread, on Linux also of the threads it will start.

    Where the system has no such thing (macOS) or does not allow it, nothing changes.
    """
    never_preempt()
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentThread.restype = ctypes.c_void_p
        kernel.SetThreadPriority.argtypes = (ctypes.c_void_p, ctypes.c_int)
        kernel.SetThreadPriority(kernel.GetCurrentThread(), _WINDOWS_BELOW_NORMAL)
    elif sys.platform == "linux":
        thread = threading.get_native_id()  # Linux keeps a niceness for every thread
        try:
            now = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, now + NICENESS)
        except OSError:  # forbidden in some containers
            return


def at_low_priority(work: Callable[[], Result]) -> Result:
    """Return what `work` gives, done in a thread of lower priority while the caller waits.

    A caller's own priority could not be raised again, and threads that `work` starts (a model's)
    would keep the caller's for as long as they last. The program may end without it: who waits
    for a drive that does not answer must not keep it open.

    Raises
    ------
    BaseException
        What `work` raises.
    """
    done: Future[Result] = Future()

    def run() -> None:
        lower_thread_priority()
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="quietscope loading", daemon=True).start()
    return done.result()
