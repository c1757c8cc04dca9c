"""What earlier nights have looked at, so that no night repeats another.

Owns the file that says which runs were trained on last in each slot, which were refused and why,
how often each slot was trained, and which candidate is to be gone on with. Losing it costs one
night of doing it again, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ...inference.bundle import MANIFEST
from ...inference.library import Library
from ...storage.atomic_output import write_json
from ...storage.bounded_text import read_text
from .decision import Decision
from .run_names import known_name

FILE = "looked_at.json"
MOST_PROMISING_ROUNDS = 12
"""A few nights' rounds: what was not promoted by then never will be."""


class Refused(BaseModel):
    """A run that may not teach, as it was when it was looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    frames: int
    why: str


class SlotMemory(BaseModel):
    """What is known of one slot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    trainings: int = 0
    trained_on: dict[str, int] = {}
    """Name of a run to its frames."""
    refused: dict[str, Refused] = {}
    promising: str | None = None
    """The candidate, in the library's models, that gained on new runs but was not promoted yet."""
    promising_rounds: int = 0
    """In a row that ended so."""

    @property
    def is_promising(self) -> bool:
        """Whether the runs that were trained on last have more to teach, pruned or not."""
        return self.promising is not None and self.promising_rounds < MOST_PROMISING_ROUNDS

    def goes_on(self, shelf: Library) -> Path | None:
        """Return the candidate that the next round begins with, None for the usual beginning."""
        if self.promising is None or not self.is_promising:
            return None
        place = shelf.models_dir / Path(self.promising).name
        return place if (place / MANIFEST).is_file() else None


class LookedAt(BaseModel):
    """Everything that is remembered of a library."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    slots: Mapping[str, SlotMemory] = {}

    @classmethod
    def of(cls, shelf: Library) -> LookedAt:
        """Return what is remembered; nothing where that cannot be read."""
        try:
            found = cls.model_validate_json(read_text(_file(shelf)))
        except (OSError, ValueError, ValidationError):
            return cls()
        return cls(slots={key: _by_names(shelf, one) for key, one in found.slots.items()})

    def slot(self, key: str) -> SlotMemory:
        """Return what is known of a slot."""
        return self.slots.get(key, SlotMemory())


def remember(shelf: Library, key: str, memory: SlotMemory) -> None:
    """Replace what is known of one slot."""
    known = LookedAt.of(shelf)
    slots = {**known.slots, key: memory}
    write_json(_file(shelf), {"slots": {k: m.model_dump() for k, m in slots.items()}})


def remember_promising(shelf: Library, key: str, decision: Decision) -> None:
    """Note the candidate that is to be gone on with, or that there is none."""
    memory = LookedAt.of(shelf).slot(key)
    candidate = decision.candidate if decision.promising else None
    if candidate is None and memory.promising is None:
        return
    update = {
        "promising": None if candidate is None else candidate.name,
        "promising_rounds": 0 if candidate is None else memory.promising_rounds + 1,
    }
    remember(shelf, key, memory.model_copy(update=update))


def _by_names(shelf: Library, memory: SlotMemory) -> SlotMemory:
    """Return a memory whose runs have the names of today; earlier files held their places."""
    update = {
        "trained_on": {known_name(shelf, name): n for name, n in memory.trained_on.items()},
        "refused": {known_name(shelf, name): one for name, one in memory.refused.items()},
    }
    return memory.model_copy(update=update)


def _file(shelf: Library) -> Path:
    return shelf.models_dir / FILE
