"""Which frames are scored, and which the methods that learn are given.

Owns the division of a recording. Training holds out frames of its own to choose its best weights
and to calibrate its uncertainty; those are no test. So the frames that are scored are taken out of
the recording before anything is trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..storage.stack import Stack

TEST_SHARE = 0.2
FEWEST_TO_DIVIDE = 10
"""Of fewer frames none can be spared: all are trained on and all are scored, and it is said."""


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """A recording in two parts.

    Attributes
    ----------
    training
        The recording without the frames that are scored: they count as absent.
    scored
        Indices of the frames that are scored, in order.
    zero_shot
        Whether there were too few frames to divide, so that methods are scored on the very frames
        that they learned from.
    """

    training: Stack
    scored: tuple[int, ...]
    zero_shot: bool


def divided(stack: Stack, most_scored: int) -> Division:
    """Take the last fifth of a recording for scoring; `most_scored` of it, evenly spread.

    Parameters
    ----------
    stack
        Of one channel.
    most_scored
        More frames tell smaller differences, and take longer.
    """
    there = stack.present_indices
    zero_shot = len(there) < FEWEST_TO_DIVIDE
    test = there if zero_shot else there[-max(1, round(TEST_SHARE * len(there))) :]
    count = min(most_scored, len(test))
    chosen = test[np.linspace(0, len(test) - 1, count).round().astype(int)]
    scored = tuple(int(index) for index in chosen)
    if zero_shot:
        return Division(stack, scored, zero_shot=True)
    left = np.zeros(len(stack), dtype=np.bool_)
    left[there[: len(there) - len(test)]] = True
    present = left.reshape(tuple(stack.sizes.values()))
    return Division(replace(stack, present=present), scored, zero_shot=False)
