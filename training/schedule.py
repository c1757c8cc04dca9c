"""How much of the budget is used, and what learning rate that means.

Owns the clock of a run. With a budget of steps the schedule is a function of the step alone, so
that a seed gives one result; with a budget of seconds it follows the clock, so that the decay ends
when the time does, however busy the computer is.
"""

from __future__ import annotations

import math

from .working_clock import working_s

WARM_UP_SHARE = 0.02
"""Of the steps: a few dozen, until Adam's averages mean something."""
FINAL_SHARE = 0.01
"""Of the peak learning rate, at the end: weights come to rest."""
LEAST_SHARE = 0.25
"""Of a budget of seconds that the steps have whatever else takes: a model of fewer is no use."""
LATE_SHARE = 1.1
"""Of a budget of seconds: what a run may take before a person is warned that it will."""


class Schedule:
    """The progress of one run.

    Parameters
    ----------
    seconds, steps
        The budget; exactly one is not None.
    started
        `working_s()` when the run began: reading and checking count as well.
    spent
        Seconds used before a resume.
    begun
        Of these and since, how many before the first step; None until `begin`.
    """

    def __init__(
        self,
        *,
        seconds: float | None,
        steps: int | None,
        started: float,
        spent: float = 0.0,
        begun: float | None = None,
    ) -> None:
        self._seconds, self._steps = seconds, steps
        self._started = started - spent
        self.begun = begun
        self._end = seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, those before a resume included."""
        return working_s() - self._started

    def leave_out(self, seconds: float) -> None:
        """Let the last `seconds` not count: the run stood still."""
        self._started += seconds

    @property
    def is_used_up(self) -> bool:
        """Whether the budget is gone, export not counted."""
        return self._seconds is not None and self.elapsed >= self._seconds

    def begin(self, finishing_seconds: float) -> float | None:
        """Let the steps begin, and end so early that what follows them is done in time.

        Returns
        -------
        How many seconds the whole run will take if that is clearly more than its budget, because
        the steps have the least share that is any use; else None.
        """
        if self.begun is None:
            self.begun = self.elapsed
        if self._seconds is None:
            return None
        least = max(self.begun, self.elapsed) + LEAST_SHARE * self._seconds
        self._end = max(self._seconds - finishing_seconds, least)
        whole = self._end + finishing_seconds
        return whole if whole > LATE_SHARE * self._seconds else None

    def progress(self, step: int) -> float:
        """Return the share of the steps that is done, 0 to 1."""
        if self._end is not None:
            begun = self.begun or 0.0
            return min((self.elapsed - begun) / (self._end - begun), 1.0)
        return min(step / self._steps, 1.0) if self._steps else 1.0

    def seconds_left(self, step: int) -> float:
        """Estimate the time to the end of the steps."""
        progress = self.progress(step)
        taken = self.elapsed - (self.begun or 0.0)
        return taken * (1 - progress) / progress if progress else math.nan


def learning_rate_share(progress: float) -> float:
    """Return the share of the peak learning rate: a short warm-up, then a cosine to the end."""
    warm = min(1.0, (progress + 1e-3) / WARM_UP_SHARE)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return warm * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)
