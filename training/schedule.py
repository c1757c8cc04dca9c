"""How much of the budget is used, and what learning rate that means.

Owns the clock of a run. With a budget of steps the schedule is a function of the step alone, so
that a seed gives one result; with a budget of seconds it follows the clock, so that the decay ends
when the time does, however busy the computer is.
"""

from __future__ import annotations

import math
import time

WARM_UP_SHARE = 0.02
FINAL_SHARE = 0.01
EXPORT_SECONDS = 10.0
"""What export, checks and report take on two idle cores, generously."""
LARGEST_EXPORT_SHARE = 0.28


class Schedule:
    """The progress of one run.

    Parameters
    ----------
    seconds, steps
        The budget; exactly one is not None.
    started
        `time.monotonic()` when the run began: reading and checking count as well.
    spent
        Seconds used before a resume.
    export_seconds
        What to leave of a budget of seconds for the export.
    """

    def __init__(
        self,
        *,
        seconds: float | None,
        steps: int | None,
        started: float,
        spent: float = 0.0,
        export_seconds: float = EXPORT_SECONDS,
    ) -> None:
        self._seconds = None if seconds is None else training_seconds(seconds, export_seconds)
        self._steps = steps
        self._started = started - spent

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, those before a resume included."""
        return time.monotonic() - self._started

    def progress(self, step: int) -> float:
        """Return the share of the budget that is used, 0 to 1."""
        if self._seconds is not None:
            return min(self.elapsed / self._seconds, 1.0)
        return min(step / self._steps, 1.0) if self._steps else 1.0

    def seconds_left(self, step: int) -> float:
        """Estimate the time to the end."""
        progress = self.progress(step)
        return self.elapsed * (1 - progress) / progress if progress else math.nan


def training_seconds(seconds: float, export_seconds: float) -> float:
    """Return what remains for training when the export has had its share of the budget."""
    return seconds - min(export_seconds, LARGEST_EXPORT_SHARE * seconds)


def learning_rate_share(progress: float) -> float:
    """Return the share of the peak learning rate: a short warm-up, then a cosine to the end."""
    warm = min(1.0, (progress + 1e-3) / WARM_UP_SHARE)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return warm * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)
