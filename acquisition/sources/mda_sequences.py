"""The sequences of pymmcore-plus that hand their images to one run.

Owns how they are followed: which of them run, whose images come how, why they ended, and how many
images each was to give. pymmcore-plus hands images to its outputs over a queue without an end,
under Qt over the event loop of the very thread that waits for the sequence; it logs what goes
wrong, and runs no sequence in the thread of the script. So images are taken from the core's own
signals, in the thread that acquires, as pycro-manager's hook is called; what comes over the queue
later is the same once more.
"""

from __future__ import annotations

import importlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from ...errors import one_line
from ..errors import AcquisitionError
from ..microscope.core_plus import PACKAGE
from .useq_frames import Axes, SequenceFrames, Tags

CHECK_S = 0.1
"""How soon Ctrl-C is noticed."""
FIRST = 1000
"""Before other listeners: where one of them raises, psygnal tells those after it nothing."""


class TakesSequences(Protocol):
    """What pymmcore-plus takes as an output; a `LiveDenoiser`."""

    def sequenceStarted(self, sequence: Any, summary: Mapping[str, Any], /) -> None:
        """Take note that a sequence has begun."""
        ...

    def frameReady(self, image: Any, event: Any, meta: Mapping[str, Any], /) -> None:
        """Take an image."""
        ...

    def sequenceCanceled(self, sequence: Any, /) -> None:
        """Take note that somebody cancelled it."""
        ...


@dataclass
class _Sequence:
    """One sequence: what it was to give, and what came of it."""

    plan: Any
    cameras: int
    heard_directly: bool
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
    output
        What its sequences are given as their output.
    """

    def __init__(self, core: Any | None, output: TakesSequences) -> None:
        self._core = core
        self._output = output
        self._frames = SequenceFrames()
        self._sequences: list[_Sequence] = []
        self._failure: BaseException | None = None
        self._is_output = False
        self._echoes: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._connected = ExitStack()
        self._hook_before: Any = None

    def __enter__(self) -> Self:
        self._hook_before = threading.excepthook
        threading.excepthook = self._hear
        if self._core is not None:
            signals = self._core.mda.events
            self._connected.enter_context(_connected(signals.sequenceStarted, self._on_start))
            self._connected.enter_context(_connected(signals.frameReady, self._on_frame))
            self._connected.enter_context(_connected(signals.sequenceCanceled, self._on_cancel))
        return self

    def __exit__(self, *_: object) -> None:
        if threading.excepthook == self._hear:
            threading.excepthook = self._hook_before
        self._connected.close()

    # ------------------------------------------------------------------------- what they say

    def is_echo(self, sequence: Any = None) -> bool:
        """Whether what the present thread says was heard in the thread that acquires.

        `sequence` is one that this thread tells to have begun.
        """
        thread = threading.current_thread()
        heard = (one.plan for one in self._sequences if one.heard_directly)
        if sequence is not None and _is_queue(thread) and any(one is sequence for one in heard):
            self._echoes.add(thread)
        return thread in self._echoes

    def begin(self, sequence: Any, summary: Mapping[str, Any]) -> None:
        """Take note that a sequence has begun whose images come here."""
        infos: Any = summary.get("image_infos") or ({},)
        cameras = int(infos[0].get("num_camera_adapter_channels", 1))
        self._sequences.append(_Sequence(sequence, cameras, heard_directly=self._is_output))
        self._frames.begin(summary)

    def named(self, event: Any, meta: Mapping[str, Any]) -> tuple[Axes, Tags]:
        """Return the axes and tags of an image that has come."""
        if self._sequences:
            self._sequences[-1].came += 1
        return self._frames.named(event, meta)

    def cancel(self) -> None:
        """Take note that somebody cancelled the sequence."""
        if self._sequences:
            self._sequences[-1].cancelled = True

    def stop(self) -> None:
        """Cancel what runs for this output: the stream cannot take its images."""
        own = self._own()
        runners = [_runner_of(thread) for thread in own]
        if self._core is not None and len(own) == len(_running()):
            runners.append(self._core.mda)
        for runner in runners:
            runner.cancel()

    def _own(self) -> list[threading.Thread]:
        """Return the threads of sequences, without those that another block is the output of."""
        return [thread for thread in _running() if not self._is_of_another(thread)]

    def _is_of_another(self, thread: threading.Thread) -> bool:
        # Before a sequence begins, its thread alone knows where its images will go.
        given = (getattr(thread, "_kwargs", None) or {}).get("output")
        outputs = given if isinstance(given, list | tuple | set) else (given,)
        blocks = [output for output in outputs if isinstance(output, type(self._output))]
        return bool(blocks) and all(block is not self._output for block in blocks)

    @property
    def planned(self) -> int | None:
        """How many images all sequences were to give; None where there was none."""
        if not self._sequences:
            return None
        return sum(sequence.planned() for sequence in self._sequences)

    # ----------------------------------------------------------------------------- their end

    def ended_by(self, error: BaseException | None) -> BaseException | None:
        """Wait until no sequence of ours runs; return what the block was ended by.

        None if by nothing. A block that is left by an error, or by Ctrl-C while it waits, cancels
        them.
        """
        if error is not None:
            self._stop_all()
            return error
        try:
            _await_all(self._own)
        except KeyboardInterrupt as stopped:
            self._stop_all()
            return stopped
        return self._failure

    def _stop_all(self) -> None:
        """Cancel whatever runs for this output until nothing does.

        pymmcore-plus forgets a cancellation of a sequence whose thread has not begun to run.
        """
        _await_all(self._own, meanwhile=self.stop)

    def _hear(self, told: Any) -> None:
        """Keep the first error by which a thread of pymmcore-plus ended, and hand it on."""
        if self._failure is None and _is_theirs(told.exc_traceback):
            error = told.exc_value
            reason = one_line(error.__cause__ or error)
            what = "pymmcore-plus ended the sequence"
            if _is_queue(told.thread):
                what = "another output of the sequence failed"
            self._failure = AcquisitionError(
                f"{what} ({type(error).__name__}: {reason}); the images that came are kept"
            )
            self._failure.__cause__ = error
        self._hook_before(told)

    # ------------------------------------------------------- in the thread that acquires

    def _on_start(self, sequence: Any, summary: Mapping[str, Any]) -> None:
        # pymmcore-plus has no other word for what its outputs are; without it the queue counts.
        outputs = getattr(getattr(self._core, "mda", None), "_handlers", ())
        self._is_output = self._output in outputs
        if self._is_output:
            self._output.sequenceStarted(sequence, summary)

    def _on_frame(self, image: Any, event: Any, meta: Mapping[str, Any]) -> None:
        if self._is_output:
            self._output.frameReady(image, event, meta)

    def _on_cancel(self, sequence: Any) -> None:
        if self._is_output:
            self._output.sequenceCanceled(sequence)


@contextmanager
def _connected(signal: Any, slot: Callable[..., None]) -> Iterator[None]:
    """Have `slot` called in the thread that acquires, whoever made the signal."""
    if type(signal).__module__.startswith("psygnal"):
        signal.connect(slot, priority=FIRST)
    else:
        qt = importlib.import_module("qtpy.QtCore").Qt
        signal.connect(slot, qt.ConnectionType.DirectConnection)
    try:
        yield
    finally:
        with suppress(RuntimeError, TypeError):  # of Qt: somebody disconnected all
            signal.disconnect(slot)


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


def _await_all(
    running: Callable[[], list[threading.Thread]], *, meanwhile: Callable[[], None] = lambda: None
) -> None:
    own = threading.current_thread()
    while waiting := [thread for thread in running() if thread is not own]:
        meanwhile()
        waiting[0].join(CHECK_S)


def _is_theirs(trace: TracebackType | None) -> bool:
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith(f"{PACKAGE}.mda"):
            return True
        trace = trace.tb_next
    return False
