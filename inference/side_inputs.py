"""Which frames of other channels a model is given: the newest that came before.

Owns the rule, the same for training, offline and live. Channels arrive in their order within a
time point; so of an earlier channel there is the frame of this time point, of a later one that of
the time point before. Planes and positions are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..storage.stack import Stack
from .errors import FrameMismatchError


def other_channel_delay(own: int, other: int) -> int:
    """Return how many time points old the newest frame of another channel is."""
    return 0 if other < own else 1


def other_channel_numbers(
    stack: Stack, other_channels: Sequence[str], *, what: str
) -> tuple[int, ...]:
    """Return the places of the other channels in a stack.

    Raises
    ------
    FrameMismatchError
        If the stack has no such channel; `what` names the model that wants it.
    """
    names = stack.channel_labels
    missing = [name for name in other_channels if name not in names]
    if missing:
        raise FrameMismatchError(
            f"{stack.path}: has the channels {', '.join(names)}, {what} also looks at "
            f"{', '.join(missing)}; record that channel too, or train a model "
            "without --other-channel"
        )
    return tuple(names.index(name) for name in other_channels)


def other_channel_index(stack: Stack, index: int, other: int) -> int | None:
    """Return the newest frame of another channel as frame `index` arrives, None if none is."""
    axes = stack.axes(index)
    there = stack.index({**axes, "channel": other})
    if other_channel_delay(axes["channel"], other):
        return stack.preceding(there, 1)[0]
    return there if stack.is_present(there) else None
