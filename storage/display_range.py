"""From where to where the channels of a recording are shown, so that all made of it look alike.

Owns the rule: as the file itself says, or else by its first frames. A result takes the range of
what it was made from, not its own: less noise is then seen as less noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .stack import DisplayRange, Stack

SHOWN_PERCENT = (0.1, 99.9)
"""Of the first frame: a few hot pixels would leave all others dark."""


def display_ranges(stack: Stack) -> tuple[DisplayRange, ...]:
    """Return the range of each channel, ADU: its own, or by the channel's first frame."""
    if stack.display_ranges:
        return stack.display_ranges
    channels = stack.sizes.get("channel", 1)
    return tuple(_by_first_frame(stack.channel(number)) for number in range(channels))


def plausible(ranges: Sequence[tuple[Any, Any]]) -> tuple[DisplayRange, ...]:
    """Return the ranges that a file tells, one for each channel; () if one of them is none."""
    try:
        found = tuple((float(low), float(high)) for low, high in ranges)
    except (TypeError, ValueError):
        return ()
    usable = all(isfinite(low) and isfinite(high) and low < high for low, high in found)
    return found if usable else ()


def _by_first_frame(channel: Stack) -> DisplayRange:
    there = channel.present_indices
    return range_of(channel.frame(int(there[0]))) if there.size else (0.0, 1.0)


def of_windows(channels: Sequence[Mapping[str, Any]]) -> tuple[DisplayRange, ...]:
    """Return the ranges by the channels of NGFF's `omero`; () if they tell none."""
    windows = [channel.get("window") for channel in channels]
    told = [(w.get("start"), w.get("end")) for w in windows if isinstance(w, Mapping)]
    return plausible(told) if len(told) == len(windows) else ()


def range_of(pixels: NDArray[Any]) -> DisplayRange:
    """Return from where to where a frame is shown, a few hot pixels left out."""
    low, high = (float(value) for value in np.percentile(pixels, SHOWN_PERCENT))
    return (low, high) if low < high else (low, low + 1)
