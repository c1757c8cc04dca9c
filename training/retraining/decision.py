"""What became of one slot in one round, and the record of a slot that was left alone.

Owns the plain data that commands print and nights keep. How it was decided is in `gate`, when a
slot is left alone in `new_runs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...inference.library import Decision as DecisionName
from ...inference.library import Library
from .slots import Slot


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one slot in one round."""

    decision: DecisionName
    reason: str
    candidate: Path | None
    current: Path | None
    figures: dict[str, float | None]
    channel: str | None = None
    camera: str = ""
    before: Path | None = None
    """The model that was in use when the round began."""
    runs: tuple[str, ...] = ()
    """That the candidate learned from."""
    promising: bool = False
    """It was kept, but gained on what is new: longer training may make it the better one."""

    def result(self) -> dict[str, Any]:
        """Return the JSON object of the `retrain` command."""
        return {
            "decision": self.decision,
            "reason": self.reason,
            "candidate": None if self.candidate is None else str(self.candidate),
            "current": None if self.current is None else str(self.current),
            "figures": self.figures,
        }

    def lines(self) -> list[str]:
        """Return the decision for a person."""
        about = " ".join(filter(None, [self.channel, self.camera]))
        return [
            f"{about + ': ' if about else ''}{self.decision}: {self.reason}",
            f"in use: {'no model yet' if self.current is None else self.current}",
        ]

    def named_result(self) -> dict[str, Any]:
        """Return the same with the channel and the camera that it is about."""
        return {**self.result(), "channel": self.channel, "camera": self.camera}


def weightiest(decisions: Sequence[Decision]) -> Decision:
    """Return the first promotion, else the first model that was kept, else the first."""
    order: tuple[DecisionName, ...] = ("promoted", "kept")
    for name in order:
        for decision in decisions:
            if decision.decision == name:
                return decision
    return decisions[0]


def skip(shelf: Library, slot: Slot | None, reason: str) -> Decision:
    """Record that a slot was left alone, and why."""
    shelf.keep(None, reason, decision="skipped")
    if slot is None:
        return Decision("skipped", reason, None, None, {})
    return Decision(
        "skipped",
        reason,
        None,
        slot.current,
        {},
        channel=slot.channel,
        camera=slot.camera_words,
        before=slot.current,
    )
