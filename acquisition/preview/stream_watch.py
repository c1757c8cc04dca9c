"""Whether pictures still arrive, and what to say where they do not.

Owns the patience with a slow run, and the difference between one that ended and one that died. The
judgement of a picture is in `model`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import deque
from enum import IntEnum

import psutil

from ...inference.trust.verdict import Grade
from .wording import duration

STALL_PATIENCE_S = 3.0


class StreamState(IntEnum):
    """Where the run stands, as far as the window can see."""

    WAITING = 0
    LIVE = 1
    STALLED = 2
    ENDED = 3
    LOST = 4


class StreamWatch:
    """Tells a run that is slow on purpose from one that has stalled, ended or died.

    A time lapse of one frame a minute is not stalled after three seconds: patience grows with the
    usual interval between pictures.
    """

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque(maxlen=12)

    def arrived(self, now_s: float) -> None:
        """Note that a picture came."""
        self._arrivals.append(now_s)

    def silence_s(self, now_s: float) -> float:
        """Return the seconds since the last picture."""
        return now_s - self._arrivals[-1] if self._arrivals else 0.0

    @property
    def patience_s(self) -> float:
        """Silence that is normal for this run, in seconds."""
        gaps = [after - before for before, after in itertools.pairwise(self._arrivals)]
        return max(STALL_PATIENCE_S, 3 * statistics.median(gaps) if gaps else 0.0)

    def state(self, now_s: float, *, ended: bool, writer_alive: bool) -> StreamState:
        """Return where the run stands."""
        if ended:
            return StreamState.ENDED
        if not writer_alive:
            return StreamState.LOST
        if not self._arrivals:
            return StreamState.WAITING
        stalled = self.silence_s(now_s) > self.patience_s
        return StreamState.STALLED if stalled else StreamState.LIVE

    def words(self, state: StreamState, now_s: float) -> tuple[str, Grade]:
        """Return what to say about `state`, and its grade."""
        return {
            StreamState.WAITING: ("Waiting for the first image", Grade.UNKNOWN),
            StreamState.LIVE: ("Live", Grade.GOOD),
            StreamState.STALLED: (
                f"No new image for {duration(math.floor(self.silence_s(now_s)))}",
                Grade.CARE,
            ),
            StreamState.ENDED: ("Acquisition finished – last image", Grade.UNKNOWN),
            StreamState.LOST: ("The acquisition program has stopped", Grade.BAD),
        }[state]


class WriterProcess:
    """Whether the program that feeds the mailbox still runs."""

    def __init__(self, pid: int) -> None:
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.Error:
            self._process = None

    def alive(self) -> bool:
        """Return whether it does."""
        try:
            return (
                self._process is not None
                and self._process.is_running()
                and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return False
