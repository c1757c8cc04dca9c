"""Whether anything is new in a slot, and which runs a candidate is to learn from.

Owns that decision, on the recordings alone: no torch is loaded, so that a night with nothing to
learn costs seconds. Which runs may teach is told by `run_audit`, which of them do by `run_choice`,
what earlier nights have seen by `looked_at`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...inference.bundle import Bundle
from ...inference.library import Library
from ...storage.stack import Stack
from ..data.side_inputs import one_channel
from ..options import TrainingOptions
from . import run_audit, run_choice
from .channel_likeness import EarlierChannels
from .drift import drift_in
from .looked_at import LookedAt, Refused, remember
from .request import Request
from .run_names import run_name
from .slots import FEWEST_FRAMES, Slot, stacks_of

logger = logging.getLogger(__name__)

OFFERED_RUNS = 24
"""The newest of a slot, among which is chosen: a few weeks, with a run a day."""
LEAST_NEW_SHARE = 0.05
"""Of the frames that the model in use has learned from: fewer new ones teach it nothing, unless
its picture has drifted."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The runs to learn from, or why there are none."""

    stacks: list[Stack]
    reason: str | None = None


def look(
    shelf: Library,
    slot: Slot,
    current: Bundle | None,
    options: TrainingOptions,
    request: Request,
) -> Found:
    """Return the runs that a candidate for a slot is to learn from, or why there are none.

    Parameters
    ----------
    shelf, slot, current
        The library, and the model in use of one camera, setting and channel in it.
    options
        The candidate's.
    request
        Whether earlier nights count, and whom to tell of runs that are left out.
    """
    memory = LookedAt.of(shelf).slot(slot.key)
    known = learned(shelf, current)
    refused: dict[str, Refused] = {}

    def fit(whole: Stack, own: Stack) -> bool:
        name, frames = run_name(shelf, own.path), len(own) - own.absent
        if known.get(name) == frames:
            return True  # was looked at before it was learned from
        before = memory.refused.get(name)
        same = before is not None and before.frames == frames
        why = before.why if before is not None and same else run_audit.why_unfit(own)
        if why is not None:
            refused[name] = Refused(frames=frames, why=why)
        return why is None

    offered = stacks_of(shelf, slot, options.other_channels, fit, OFFERED_RUNS)
    pairs = [(whole, one_channel(whole, slot.channel)) for whole in offered]
    # What a candidate is to learn more of is new until one of its kind was promoted.
    done = request.since_last and not memory.is_promising
    seen = {**known, **(memory.trained_on if done else {})}
    old = [pair for pair in pairs if is_known(shelf, pair[1], seen)]
    earlier = _earlier(slot.channel, [whole for whole, _ in old])
    new = []
    for whole, own in (pair for pair in pairs if not is_known(shelf, pair[1], seen)):
        why = None if earlier is None else earlier.why_another(whole)
        if why is None:
            new.append((whole, own))
        else:
            refused[run_name(shelf, own.path)] = Refused(frames=len(own) - own.absent, why=why)
    merged = {**memory.refused, **refused}
    if merged != memory.refused:
        remember(shelf, slot.key, memory.model_copy(update={"refused": merged}))
    left_out = [f"{name}: {found.why}" for name, found in refused.items()]
    for line in left_out:
        request.remark(f"{line}; it is left out")
    reason = _why_not(shelf, slot, options, pairs, new, known)
    if reason is not None:
        return Found([], "; ".join([reason, *left_out]))
    return Found(run_choice.chosen(new, old))


def _earlier(channel: str | None, runs: Sequence[Stack]) -> EarlierChannels | None:
    return None if channel is None else EarlierChannels(channel, runs)


def _why_not(
    shelf: Library,
    slot: Slot,
    options: TrainingOptions,
    pairs: Sequence[tuple[Stack, Stack]],
    new: Sequence[tuple[Stack, Stack]],
    known: Mapping[str, int],
) -> str | None:
    if not pairs:
        if options.other_channels and stacks_of(shelf, slot, most=1):
            names = ", ".join(options.other_channels)
            return f"no run can be read that holds the channels {names}"
        return f"no run with at least {FEWEST_FRAMES} frames that can be read"
    if not new:
        return "no run was recorded since the last training"
    frames = sum(len(own) - own.absent for _, own in new)
    before = sum(known.values())
    if frames < LEAST_NEW_SHARE * before:
        if (drift := drift_in([whole for whole, _ in new], slot.channel)) is None:
            return (
                f"only {frames} new frames, under {LEAST_NEW_SHARE:.0%} of the {before} that the "
                "model in use has learned from"
            )
        logger.info("%s", drift)
    return None


def learned(shelf: Library, current: Bundle | None) -> dict[str, int]:
    """Return the runs that a model has learned from by name, and how many frames each had."""
    if current is None:
        return {}
    return {
        run_name(shelf, part.path): part.recorded_frames or part.frames
        for part in current.manifest.training.stacks
    }


def is_known(shelf: Library, own: Stack, known: Mapping[str, int]) -> bool:
    """Whether a run of one channel is among those that are known, with as many frames."""
    return known.get(run_name(shelf, own.path)) == len(own) - own.absent
