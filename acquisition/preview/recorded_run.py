"""What was recorded in this run so far, read back while it is still growing.

Owns how a moment of the past is found in the run's stores and put together as a picture. Reads
only; may be slow where the disk is, so it is called from a thread of its own. Knows no Qt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuietscopeError
from ...storage.open_stack import open_stack
from ...storage.output_kinds import RAW
from ...storage.stack import Stack
from ...storage.written_frames import count_written
from .mailbox import MAX_PIXELS, Picture

DENOISED = "denoised.ome.zarr"


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """A moment of the past.

    Attributes
    ----------
    picture
        As the live view shows one.
    others
        Those of other channels at the same place and time.
    index, count
        Which of the frames of this channel it is, and how many there are by now.
    place
        Its time, plane and position in words.
    """

    picture: Picture
    index: int
    count: int
    place: str
    others: tuple[Picture, ...] = ()


def recorded_frames(run: Path) -> int:
    """Return how many frames are on the disk by now."""
    return count_written(run / RAW)


def past(run: Path, share: float, channel: str, others: Sequence[str] = ()) -> Past | None:
    """Return the frame at `share` (0 to 1) of what was recorded of a channel; None without one.

    With it come the frames of `others`, channels too, of the same moment, where there are any.
    Frames that are not denoised yet come without a denoised image. What the disk does not give
    just now is no moment either: the next wish is asked anew.
    """
    try:
        return _past(run, share, channel, others)
    except (QuietscopeError, OSError, ValueError):
        return None


def _past(run: Path, share: float, channel: str, others: Sequence[str]) -> Past | None:
    whole = open_stack(run / RAW)
    raw = _of_channel(whole, channel)
    there = raw.present_indices
    if not there.size:
        return None
    number = round(min(max(share, 0.0), 1.0) * (there.size - 1))
    index = int(there[number])
    place = raw.axes(index)
    there_too = [name for name in others if name in whole.channel_labels]
    beside = (_picture_at(run, _of_channel(whole, name), place, name) for name in there_too)
    return Past(
        _picture(run, raw, index, channel),
        number,
        int(there.size),
        _words(raw, index),
        tuple(picture for picture in beside if picture is not None),
    )


def _picture_at(run: Path, raw: Stack, place: Mapping[str, int], channel: str) -> Picture | None:
    """Return the picture of a channel at a place of another one; None where it has none."""
    try:
        index = raw.index({name: place.get(name, 0) for name in raw.sizes})
        return _picture(run, raw, index, channel) if raw.is_present(index) else None
    except (KeyError, IndexError):
        return None


def _picture(run: Path, raw: Stack, index: int, channel: str) -> Picture:
    observation = raw.frame(index)
    step = 1
    while (observation.shape[0] // step) * (observation.shape[1] // step) > MAX_PIXELS:
        step += 1
    thin = (slice(None, None, step), slice(None, None, step))
    denoised = _denoised(run / DENOISED, raw, index, channel)
    return Picture(
        raw=observation[thin],
        denoised=None if denoised is None else denoised[thin],
        uncertainty=None,
        figures={"channel": channel or None},
        step=step,
    )


def _of_channel(stack: Stack, channel: str) -> Stack:
    if stack.sizes.get("channel", 1) > 1 and channel in stack.channel_labels:
        return stack.channel(stack.channel_labels.index(channel))
    return stack


def _denoised(path: Path, raw: Stack, index: int, channel: str) -> NDArray[np.float32] | None:
    if not path.exists():
        return None
    try:
        stack = _of_channel(open_stack(path), channel)
        place: dict[str, Any] = raw.axes(index)
        same = stack.index({name: place.get(name, 0) for name in stack.sizes})
        if not stack.is_present(same):
            return None
        return np.asarray(stack.frame(same), np.float32)
    except (QuietscopeError, KeyError, IndexError, ValueError):
        return None  # it was not denoised yet, or the store is only just being made


def _words(stack: Stack, index: int) -> str:
    place = stack.axes(index)
    named = [f"{name} {value + 1}" for name, value in place.items() if stack.sizes[name] > 1]
    return ", ".join(named)
