"""When retraining happens: every night, between two times of day.

Owns the clock arithmetic and the schedule (APScheduler). What one round does is in `retrain`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from ...errors import QuietscopeError
from ...reporting.console import stderr
from ..errors import TrainingError
from .retrain import Decision

logger = logging.getLogger(__name__)

COMPARISON_SHARE = 0.1
"""Of the window: kept for comparing candidate and model in use."""
SHORTEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to `end`, local time; an end before the start is on the next day."""

    start: time
    end: time

    @classmethod
    def chosen(cls, *, once: bool, at: str | None, until: str | None) -> Window | None:
        """Return the window that the options stand for, None for `--once`.

        Raises
        ------
        TrainingError
            If the options contradict each other or are no times of day.
        """
        if once and (at or until):
            raise TrainingError("--once was given together with --at or --until; give one of them")
        if once:
            return None
        if at is None or until is None:
            raise TrainingError("give --once, or both --at HH:MM and --until HH:MM")
        window = cls(_time_of_day("--at", at), _time_of_day("--until", until))
        if (
            window.seconds(datetime.combine(datetime.now().date(), window.start))
            < SHORTEST_SECONDS
        ):
            raise TrainingError(f"--at {at} and --until {until} leave no time; choose a later end")
        return window

    def seconds(self, now: datetime) -> float:
        """Return the seconds from `now` to the next `end`."""
        end = now.replace(hour=self.end.hour, minute=self.end.minute, second=0, microsecond=0)
        return ((end - now) % timedelta(days=1)).total_seconds()


def _time_of_day(option: str, text: str) -> time:
    try:
        return datetime.strptime(text, "%H:%M").time()
    except ValueError as error:
        raise TrainingError(f"{option} is {text!r}, expected a time of day as HH:MM") from error


def run_overnight(window: Window, one_round: Callable[[float], Decision]) -> Decision:
    """Run a round at every start of the window until the process is interrupted.

    Parameters
    ----------
    window
        When.
    one_round
        Trains, given its budget in seconds, and decides. If it fails, the failure is shown and
        the next night is another try.

    Returns
    -------
    Decision
        The last round's.

    Raises
    ------
    KeyboardInterrupt
        If interrupted before a round was done.
    """
    scheduler, decisions = _scheduler(), []

    def night() -> None:
        budget = (1 - COMPARISON_SHARE) * window.seconds(datetime.now())
        try:
            decision = one_round(max(budget, SHORTEST_SECONDS))
        except QuietscopeError as error:
            logger.exception("the round failed")
            stderr.print(f"this round failed: {error}", markup=False, soft_wrap=True)
            return
        decisions.append(decision)
        stderr.print(f"{decision.decision}: {decision.reason}", markup=False, soft_wrap=True)

    scheduler.add_job(night, "cron", hour=window.start.hour, minute=window.start.minute)
    stderr.print(
        f"retraining every day at {window.start:%H:%M} until {window.end:%H:%M}; stop with Ctrl+C"
    )
    try:
        scheduler.start()
    except (KeyboardInterrupt, SystemExit):
        if not decisions:
            raise
    return decisions[-1]


def _scheduler() -> Any:
    from apscheduler.schedulers.blocking import BlockingScheduler

    # A round that runs into the next start is not doubled; a computer that slept catches up once.
    return BlockingScheduler(
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600}
    )
