"""The time of a night: between two times of day, whatever the clocks do.

Owns the arithmetic of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from ..errors import TrainingError

SHORTEST_SECONDS = 60.0
"""Below which a round is not begun: reading and export alone take half of it."""


class WindowEndedError(TrainingError):
    """The night is over; the run's checkpoint is written, and the next night goes on from it."""


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
        return cls.between(at, until)

    @classmethod
    def between(cls, at: str, until: str) -> Window:
        """Return the window between two times of day, as HH:MM.

        Raises
        ------
        TrainingError
            If they are none, or the same.
        """
        window = cls(_time_of_day("--at", at), _time_of_day("--until", until))
        if window.start == window.end:
            raise TrainingError(f"--at {at} and --until {until} leave no time; choose a later end")
        return window

    def __str__(self) -> str:
        return f"{self.start:%H:%M}–{self.end:%H:%M}"

    def next_start(self, now: datetime) -> datetime:
        """Return when the window opens next, in the time zone of `now`."""
        start = datetime.combine(now.date(), self.start, tzinfo=now.tzinfo)
        return start if start > now else start + timedelta(days=1)

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
