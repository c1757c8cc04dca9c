"""What came of a comparison.

Owns the JSON object that `compare` prints and keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .advice import Advice
from .rows import PAGE, Row


@dataclass(frozen=True, slots=True)
class Comparison:
    """A finished comparison.

    Attributes
    ----------
    folder
        Where it is kept.
    rows
        Of all contestants, those left out at the end.
    advice
        Which one to take.
    remarks
        What a person should know before believing it.
    facts
        Of recording, ruler and machine.
    """

    folder: Path
    rows: tuple[Row, ...]
    advice: Advice
    remarks: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def page(self) -> Path:
        """The page for a person."""
        return self.folder / PAGE

    def result(self) -> dict[str, Any]:
        """Return the JSON object of `quietscope compare`, as `comparison.json` has it."""
        return {
            **self.facts,
            "rows": [row.result() for row in self.rows],
            "ranking": list(self.advice.ranking),
            "chosen": self.advice.chosen,
            "advice": self.advice.sentence,
            "based_on": self.advice.based_on,
            "remarks": list(self.remarks),
            "page": str(self.page),
        }
