"""When the verdict was what: a run's judgements over time, and the words for the last change.

Owns the spans and that moments do not count as changes. The judgement itself is made in `model`.
Knows no Qt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...inference.trust.verdict import Grade
from .wording import duration

SETTLED_S = 2.0
"""A judgement that lasts for so long is one; what lies between are moments."""
MOST_SPANS = 200


@dataclass(frozen=True, slots=True)
class Span:
    """A judgement, from when (seconds since the run began) and from which frame on."""

    grade: Grade
    since_s: float
    frame: int | None
    headline: str


class VerdictHistory:
    """The judgements of one channel, oldest first."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._candidate: Span | None = None
        self.now_s = 0.0

    def add(self, grade: Grade, headline: str, now_s: float, frame: int | None) -> None:
        """Take a judgement of `now_s` seconds since the run began."""
        self.now_s = max(self.now_s, now_s)
        if grade is Grade.UNKNOWN:
            return
        if self._spans and grade is self._spans[-1].grade:
            self._candidate = None
            return
        if self._candidate is None or self._candidate.grade is not grade:
            self._candidate = Span(grade, now_s, frame, headline)
        if not self._spans or now_s - self._candidate.since_s >= SETTLED_S:
            self._spans = [*self._spans, self._candidate][-MOST_SPANS:]
            self._candidate = None

    @property
    def spans(self) -> Sequence[Span]:
        """The judgements so far; the last one holds until now."""
        return tuple(self._spans)

    def words(self) -> str:
        """Return since when the present judgement holds, and what was before it."""
        if len(self._spans) < 2:
            return ""
        last, before = self._spans[-1], self._spans[-2]
        at = duration(round(last.since_s)) if last.since_s >= 1 else "the beginning"
        frame = "" if last.frame is None else f", image {last.frame}"
        names = {Grade.GOOD: "good", Grade.CARE: "with care", Grade.BAD: "bad"}
        return f"{names[last.grade]} since {at}{frame}; {names[before.grade]} before"
