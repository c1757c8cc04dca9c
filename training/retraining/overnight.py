"""When retraining happens: every night, between two times of day.

Owns the clock arithmetic and the schedule (APScheduler). What one round does is in `retrain`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from ...errors import QuietscopeError
from ...reporting.console import stderr
from ..errors import TrainingError
from .retrain import Decision

logger = logging.getLogger(__name__)

COMPARISON_SHARE = 0.1
"""Of the window: kept for comparing candidate and model in use."""
SHORTEST_SECONDS = 60.0
"""Below which a round is not begun: reading and export alone take half of it."""


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
        if window.start == window.end:
            raise TrainingError(f"--at {at} and --until {until} leave no time; choose a later end")
        return window

    def seconds(self, now: datetime) -> float:
        """Return the seconds from `now` to the next `end`, as they really pass.

        `now` without a time zone is local time. A night on which the clocks change is an hour
        longer or shorter than the clock says.
        """
        end = datetime.combine(now.date(), self.end, tzinfo=now.tzinfo)
        if end.replace(tzinfo=None) <= now.replace(tzinfo=None):
            end += timedelta(days=1)
        return max(0.0, end.timestamp() - now.timestamp())

    def left(self, now: datetime) -> float:
        """Return the seconds that are left of the window, 0 outside of it.

        A round that was missed because the computer slept or the service stood still may begin
        late, but never outside.
        """
        clock = now.time().replace(tzinfo=None)
        if self.start < self.end:
            inside = self.start <= clock < self.end
        else:
            inside = clock >= self.start or clock < self.end
        return self.seconds(now) if inside else 0.0

    def night(self, now: datetime) -> date:
        """Return the day on which the window began that `now` lies in.

        Clocks that are set back show the start twice in one night.
        """
        crossed = self.start >= self.end and now.time() < self.start
        return now.date() - timedelta(days=crossed)


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
    done: set[date] = set()

    def night() -> None:
        now = datetime.now()
        left = window.left(now)
        if left < SHORTEST_SECONDS or window.night(now) in done:
            stderr.print(f"{now:%H:%M} is no time to retrain; the next round is tomorrow")
            return
        done.add(window.night(now))
        try:
            decision = one_round((1 - COMPARISON_SHARE) * left)
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
