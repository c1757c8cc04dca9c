"""The one judgement of each channel's picture, followed over the run.

Owns when a judgement counts as changed, and that it is said where no window is open: in the log,
on the terminal when it turns bad, and in the report. The judgement itself, thresholds and
sentences, is that of the window, in `preview.model`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...inference.trust.verdict import Grade
from ..preview.model import FigureAverage, Reading, trust_readings, verdict

logger = logging.getLogger(__name__)

SETTLED_S = 2.0
"""A judgement that lasts for so long is one; what lies between are moments."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement, and since when it holds.

    Attributes
    ----------
    reading
        Its words.
    since_frame, since
        The first frame that was judged so, and when.
    """

    reading: Reading
    since_frame: int
    since: str

    def result(self) -> dict[str, Any]:
        """Return it as reports take it."""
        return {
            "word": self.reading.grade.name.lower(),
            "cause": self.reading.cause,
            "headline": self.reading.headline,
            "sentence": self.reading.sentence,
            "since_frame": self.since_frame,
            "since": self.since,
        }


class _Channel:
    """What was judged of one channel so far."""

    def __init__(self) -> None:
        self.figures = FigureAverage()
        self.last_s = time.monotonic()
        self.now: Verdict | None = None
        self.settled: Verdict | None = None
        self.worst: Verdict | None = None
        self.began_s = 0.0


class VerdictWatch:
    """Follows the judgement of every channel. Used by the thread that denoises.

    Parameters
    ----------
    log
        Gets a line when a judgement has changed for good.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._channels: dict[str, _Channel] = {}

    def add(
        self, name: str, figures: Mapping[str, Any], shown_span_adu: float, frame_index: int
    ) -> None:
        """Judge a frame of a channel by its trust figures; "" is a run without channels."""
        channel = self._channels.setdefault(name, _Channel())
        now_s = time.monotonic()
        channel.figures.add(figures, now_s - channel.last_s)
        channel.last_s = now_s
        judged = verdict(trust_readings(channel.figures.figures, shown_span_adu))
        if channel.now is None or channel.now.reading.headline != judged.headline:
            when = datetime.now().astimezone().isoformat(timespec="seconds")
            channel.now = Verdict(judged, frame_index, when)
            channel.began_s = now_s
        if now_s - channel.began_s >= SETTLED_S:
            self._settle(name, channel, channel.now)

    def end(self) -> None:
        """Take what held at the end of the run for settled."""
        for name, channel in list(self._channels.items()):
            if channel.now is not None:
                self._settle(name, channel, channel.now)

    def result(self) -> dict[str, Any]:
        """Return the judgement of the run: that of its worst channel, and each by its name."""
        settled = {
            name: channel.settled or channel.now for name, channel in list(self._channels.items())
        }
        known = {name: found for name, found in settled.items() if found is not None}
        worst = max(known.values(), key=lambda found: found.reading.grade, default=None)
        return {
            "verdict": None if worst is None else worst.result(),
            "verdict_by_channel": {name: found.result() for name, found in known.items()},
            "worst_verdict": self._worst_of_all(),
        }

    def _worst_of_all(self) -> dict[str, Any] | None:
        found = [c.worst for c in list(self._channels.values()) if c.worst is not None]
        worst = max(found, key=lambda verdict: verdict.reading.grade, default=None)
        return None if worst is None else worst.result()

    def _settle(self, name: str, channel: _Channel, now: Verdict) -> None:
        if (
            channel.settled is not None
            and channel.settled.reading.headline == now.reading.headline
        ):
            return
        channel.settled = now
        if channel.worst is None or now.reading.grade > channel.worst.reading.grade:
            channel.worst = now
        where = f" of channel {name}" if name else ""
        words = f"{now.reading.headline}. {now.reading.sentence}"
        self._log(
            f"frame {now.since_frame}: picture{where} is judged "
            f"{now.reading.grade.name.lower()}: {words}"
        )
        if now.reading.grade is Grade.BAD:
            logger.warning("picture%s, since frame %d: %s", where, now.since_frame, words)
