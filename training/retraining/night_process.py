"""The night's work, as the process that trains: every slot of a library in turn, until time is up.

Owns the order of the slots and how the night's time is shared among them. No torch is loaded
before there is something to train. It prints a JSON object for each decision as it falls; who
watches over it, and what becomes of that, is in `service`.
Started as `python -m quietscope.training.retraining.night_process LIBRARY --until TIME`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import QuietscopeError, one_line
from ...inference.library import Library
from ...storage.atomic_output import jsonable
from ..working_clock import watch_for_halts
from . import begun
from .decision import Decision, skip
from .giving_way import GiveWay
from .request import Request
from .retrain import another_round, go_on_with_begun, one_round, only_one
from .slots import FEWEST_FRAMES, Slot, slots_of
from .window import SHORTEST_SECONDS, WindowEndedError

logger = logging.getLogger(__name__)

TRAINING_SHARE = 0.9
"""Of the time: the rest is for comparing candidate and model in use."""
FIRST_SHARE = 1 / 7
"""Of a slot's time for its first round; each further one has twice as long, so that three rounds
fill it."""
SHORTEST_ROUND_S = 120.0
"""Below which a slot's time is not divided: reading and export alone take a good part of it."""
UNFINISHED = 3
"""Exit status: the next night goes on."""

Tell = Callable[[dict[str, Any]], None]


def night(library: Path, until: float, tell: Tell, request: Request) -> int:
    """Make the night's rounds; return the exit status.

    Parameters
    ----------
    library
        The directory of runs and models.
    until
        `time.time()` at which it has to be done.
    tell
        Called with each decision, as JSON takes it, and with each failure.
    request
        How; its budget of seconds is replaced by what each slot has.
    """
    shelf = Library(library)
    shelf.runs()
    with only_one(shelf):
        begun.sweep(shelf)
        try:
            for decision in go_on_with_begun(shelf, request):
                tell(_told(decision))
            failed = _all_slots(shelf, until, tell, request)
        except WindowEndedError as error:
            tell({"unfinished": one_line(error)})
            return UNFINISHED
    return 1 if failed else 0


def _all_slots(shelf: Library, until: float, tell: Tell, request: Request) -> bool:
    slots, failed = slots_of(shelf), False
    if not slots:
        tell(_told(skip(shelf, None, f"no run with at least {FEWEST_FRAMES} frames can be read")))
    for number, slot in enumerate(slots):
        left = until - time.time()
        if left < SHORTEST_SECONDS:
            raise WindowEndedError(
                f"no time was left for {len(slots) - number} of {len(slots)} cameras and "
                "channels; they wait for the next night"
            )
        share = max(TRAINING_SHARE * left / (len(slots) - number), SHORTEST_SECONDS)
        try:
            tell(_told(_until_nothing_is_gained(shelf, slot, share, request)))
        except WindowEndedError:
            raise
        except QuietscopeError as error:  # one camera's trouble is not another's
            logger.exception("the round of %s failed", slot.key)
            tell({"failure": one_line(error), "channel": slot.channel})
            failed = True
    return failed


def _until_nothing_is_gained(
    shelf: Library, slot: Slot, seconds: float, request: Request
) -> Decision:
    """Make rounds of a slot, each from the last one's model and longer, while they gain.

    One that gained on what is new, and lost on the old, is gone on with as well.
    """
    ends = time.time() + seconds
    budget = seconds * FIRST_SHARE if seconds * FIRST_SHARE >= SHORTEST_ROUND_S else seconds
    rounds = [one_round(shelf, slot, replace(request, seconds=max(budget, 1.0)))]
    while rounds[-1].decision == "promoted" or rounds[-1].promising:
        budget = min(2 * budget, ends - time.time())
        if budget < SHORTEST_ROUND_S:
            break
        rounds.append(another_round(shelf, rounds[-1], replace(request, seconds=budget)))
    return _of_the_night(rounds)


def _of_the_night(rounds: Sequence[Decision]) -> Decision:
    """Return what the rounds of a slot come to: the last promotion, else the last of them."""
    promoted = [number for number, one in enumerate(rounds, 1) if one.decision == "promoted"]
    number = promoted[-1] if promoted else len(rounds)
    decision, more = rounds[number - 1], len(rounds) - number
    reason = decision.reason if number == 1 else f"{decision.reason}; in {number} rounds"
    if more:
        reason += f"; {more} further round{'s' if more > 1 else ''} gained nothing more"
    if decision.promising:
        reason += "; better on what is new, so the next night goes on with it"
    return replace(decision, reason=reason, before=rounds[0].before)


def _told(decision: Decision) -> dict[str, Any]:
    before = None if decision.before is None else str(decision.before)
    return {**decision.named_result(), "before": before, "runs": list(decision.runs)}


def _speak() -> None:
    """Say on standard error what this program does; of other libraries only what is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("quietscope")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)


def main() -> int:
    """Run the night from the command line."""
    parser = argparse.ArgumentParser(prog="quietscope night")
    parser.add_argument("library", type=Path)
    parser.add_argument("--until", type=float, required=True)
    given = parser.parse_args()
    _speak()
    watch_for_halts()
    request = Request(since_last=True, between_steps=GiveWay(given.until))

    def tell(what: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(jsonable(what), ensure_ascii=False) + "\n")
        sys.stdout.flush()

    try:
        return night(given.library, given.until, tell, request)
    except QuietscopeError as error:
        tell({"failure": one_line(error), "channel": None})
        return 1


if __name__ == "__main__":
    sys.exit(main())
