"""Several libraries of one training machine, one after the other: the trouble of one is its own.

Owns the order, how the time is shared among them, and the one result for all. What is done for one
library is in `retrain` (now) and `service` (a night).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import QuietscopeError, one_line
from ...inference.library import Library
from ..errors import TrainingError
from .decision import Decision, weightiest
from .request import Request
from .window import SHORTEST_SECONDS

logger = logging.getLogger(__name__)

Round = Callable[[Library, Request, str | None], list[Decision]]


@dataclass(frozen=True, slots=True)
class LibraryRound:
    """What became of one library: the decisions, or why there are none."""

    library: Path
    decisions: tuple[Decision, ...] = ()
    failure: str | None = None

    def result(self) -> dict[str, Any]:
        """Return it as the `retrain` command prints it."""
        if self.failure is not None:
            return {"failure": self.failure, "decisions": []}
        return {
            **weightiest(self.decisions).result(),
            "decisions": [decision.named_result() for decision in self.decisions],
        }

    def lines(self) -> list[str]:
        """Return it for a person."""
        if self.failure is not None:
            return [f"FAILED: {self.failure}"]
        return [line for decision in self.decisions for line in decision.lines()]


def rounds_of(
    libraries: Sequence[Path], request: Request, channel: str | None, make: Round
) -> list[LibraryRound]:
    """Make a round of each library by `make`; a budget of seconds is shared among them.

    Raises
    ------
    QuietscopeError, OSError
        If there is but one library, and its round failed.
    """
    ends = time.monotonic() + (request.seconds or 0.0)
    rounds = []
    for number, library in enumerate(libraries):
        share = request
        if request.seconds is not None:
            left = (ends - time.monotonic()) / (len(libraries) - number)
            share = replace(request, seconds=max(left, SHORTEST_SECONDS))
        try:
            rounds.append(LibraryRound(library, tuple(make(Library(library), share, channel))))
        except (QuietscopeError, OSError) as error:  # its drive was taken away
            if len(libraries) == 1:
                raise
            logger.debug("%s failed", library, exc_info=True)
            request.remark(f"{library}: {one_line(error)}")
            rounds.append(LibraryRound(library, failure=one_line(error)))
    return rounds


def require_distinct(libraries: Sequence[Path]) -> None:
    """Refuse a library that was named twice.

    Raises
    ------
    TrainingError
        Naming it.
    """
    seen: set[Path] = set()
    for library in libraries:
        place = library.resolve()
        if place in seen:
            raise TrainingError(f"--library {library} was given twice; name each library once")
        seen.add(place)


@contextmanager
def all_served(
    libraries: Sequence[Path], serving: Callable[[Path], Any], say: Callable[[str], None]
) -> Iterator[list[Path]]:
    """Be the only service of each library for a block; yields those that are served here.

    One that is no library, or is served already, is left to others where there are several.

    Raises
    ------
    QuietscopeError, OSError
        If none can be served: what kept the first.
    """
    with ExitStack() as held:
        ours: list[Path] = []
        refused: list[QuietscopeError | OSError] = []
        for library in libraries:
            try:
                held.enter_context(serving(library))
                ours.append(library)
            except (QuietscopeError, OSError) as error:
                refused.append(error)
        if not ours:
            raise refused[0]
        for left_out in refused:
            say(f"left out: {one_line(left_out)}")
        yield ours
