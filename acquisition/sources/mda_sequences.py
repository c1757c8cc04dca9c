"""The sequences of pymmcore-plus that hand their images to one run.

Owns how they are followed: which of them run, why they ended, how many images each was to give,
and that no more of them wait in memory than there is room for. pymmcore-plus hands images to its
outputs over a queue without an end, logs what goes wrong, and starts no sequence in the thread of
the script; so all of this has to be asked.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ...errors import one_line
from ..errors import AcquisitionError
from ..microscope.core_plus import PACKAGE
from .useq_frames import Axes, SequenceFrames, Tags

CHECK_S = 0.1
"""How soon Ctrl-C and a queue that has ended are noticed."""


@dataclass
class _Sequence:
    """One sequence: what it was to give, and what came of it."""

    plan: Any
    cameras: int
    came: int = 0
    cancelled: bool = False

    def planned(self) -> int:
        """Return how many images it was to give; what came, where nobody knows."""
        if self.cancelled or type(self.plan).__name__ == "GeneratorMDASequence":
            return self.came
        images = sum(getattr(e.action, "type", "") in _TAKES_IMAGE for e in self.plan)
        return images * self.cameras


_TAKES_IMAGE = ("acquire_image", "")


class MdaSequences:
    """Follows the sequences of pymmcore-plus during one block.

    Parameters
    ----------
    core
        The CMMCorePlus whose images come; None where it is not known, or none is used.
    most_waiting
        How many images may wait in pymmcore-plus' queue before its acquisition waits for them.
    """

    def __init__(self, core: Any | None, most_waiting: int) -> None:
        self._core = core
        self._most_waiting = most_waiting
        self._frames = SequenceFrames()
        self._sequences: list[_Sequence] = []
        self._failure: BaseException | None = None
        self._queue: threading.Thread | None = None
        self._emitted = 0
        self._handed = 0
        self._room = threading.Condition()
        self._hook_before: Any = None

    def __enter__(self) -> Self:
        self._hook_before = threading.excepthook
        threading.excepthook = self._hear
        if self._core is not None:
            _connect(self._core.mda.events.sequenceStarted, self._emit_start)
            _connect(self._core.mda.events.frameReady, self._emit_frame)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.excepthook == self._hear:
            threading.excepthook = self._hook_before
        if self._core is not None:
            self._core.mda.events.sequenceStarted.disconnect(self._emit_start)
            self._core.mda.events.frameReady.disconnect(self._emit_frame)

    # ------------------------------------------------------------------------- what they say

    def begin(self, sequence: Any, summary: Mapping[str, Any]) -> None:
        """Take note that a sequence has begun whose images come here."""
        infos = summary.get("image_infos") or ({},)
        cameras = int(infos[0].get("num_camera_adapter_channels", 1))
        self._sequences.append(_Sequence(sequence, cameras))
        self._frames.begin(summary)
        thread = threading.current_thread()
        with self._room:
            self._queue = thread if _is_queue(thread) else None

    def named(self, event: Any, meta: Mapping[str, Any]) -> tuple[Axes, Tags]:
        """Return the axes and tags of an image that has come."""
        if self._sequences:
            self._sequences[-1].came += 1
        return self._frames.named(event, meta)

    def note_handed(self) -> None:
        """Take note that the stream has the image, which therefore waits no longer."""
        with self._room:
            self._handed += 1
            self._room.notify_all()

    def cancel(self) -> None:
        """Take note that somebody cancelled the sequence."""
        if self._sequences:
            self._sequences[-1].cancelled = True

    def stop(self) -> None:
        """Cancel what runs: the stream cannot take its images."""
        runners = [_runner_of(thread) for thread in _running()]
        if self._core is not None:
            runners.append(self._core.mda)
        for runner in runners:
            runner.cancel()

    @property
    def planned(self) -> int | None:
        """How many images all sequences were to give; None where there was none."""
        if not self._sequences:
            return None
        return sum(sequence.planned() for sequence in self._sequences)

    # ----------------------------------------------------------------------------- their end

    def ended_by(self, error: BaseException | None) -> BaseException | None:
        """Wait until no sequence runs; return what the block was ended by, None if by nothing.

        A block that is left by an error, or by Ctrl-C while it waits, cancels them.
        """
        if error is not None:
            self.stop()
        try:
            _await_all()
        except KeyboardInterrupt as stopped:
            self.stop()
            _await_all()
            return stopped
        return self._failure if error is None else error

    def _hear(self, told: Any) -> None:
        """Keep the first error by which a thread of pymmcore-plus ended, and hand it on."""
        if self._failure is None and _is_theirs(told.exc_traceback):
            error = told.exc_value
            reason = one_line(error.__cause__ or error)
            if _is_queue(told.thread):
                what = "another output of the sequence failed, and no image came after that"
            else:
                what = "pymmcore-plus ended the sequence"
            self._failure = AcquisitionError(
                f"{what} ({type(error).__name__}: {reason}); what came until then is kept"
            )
            self._failure.__cause__ = error
        self._hook_before(told)

    # ------------------------------------------------------- in the thread that acquires

    def _emit_start(self, *_: object) -> None:
        with self._room:
            self._queue, self._emitted, self._handed = None, 0, 0

    def _emit_frame(self, *_: object) -> None:
        """Let the acquisition wait while the queue is full; Micro-Manager's buffer absorbs it."""
        with self._room:
            self._emitted += 1
            while (
                self._queue is not None
                and self._queue.is_alive()
                and self._emitted - self._handed > self._most_waiting
            ):
                self._room.wait(CHECK_S)


def _connect(signal: Any, slot: Any) -> None:
    """Have `slot` called in the thread that acquires, whoever made the signal."""
    if type(signal).__module__.startswith("psygnal"):
        signal.connect(slot)
        return
    qt = importlib.import_module("qtpy.QtCore").Qt
    signal.connect(slot, qt.ConnectionType.DirectConnection)


def _is_queue(thread: threading.Thread | None) -> bool:
    return type(thread).__name__ == "MDARelayThread"


def _running() -> list[threading.Thread]:
    """Return the threads of this program in which pymmcore-plus runs a sequence.

    `run_mda` returns before its sequence has begun, so the runner's own word would be too late.
    """
    if PACKAGE not in sys.modules:
        return []
    return [thread for thread in threading.enumerate() if _runner_of(thread) is not None]


def _runner_of(thread: threading.Thread) -> Any:
    runner = getattr(getattr(thread, "_target", None), "__self__", None)
    return runner if type(runner).__name__ == "MDARunner" else None


def _await_all() -> None:
    own = threading.current_thread()
    while waiting := [thread for thread in _running() if thread is not own]:
        waiting[0].join(CHECK_S)


def _is_theirs(trace: TracebackType | None) -> bool:
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith(f"{PACKAGE}.mda"):
            return True
        trace = trace.tb_next
    return False
