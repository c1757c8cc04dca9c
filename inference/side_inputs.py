"""Which frames a model is given next to the newest one, and what stands where there is none.

Owns the one rule that training, offline, evaluation and live follow: first the T frames of the
same channel, plane and position that came before, newest first; then of this time point the Z
planes on either side, nearest first, below before above; then the newest frame of each other
channel. Channels arrive in their order within a time point, so that of an earlier channel there is
the frame of this time point, of a later one that of the time point before. A frame that is not
there (before the recording began, absent in it, beyond the z-stack, a channel that has not come)
is all zeros. So are, while a run lasts, the planes above: they have not come yet.

Reading frames is the business of those who hold them: `observation_reader` offline, `context`
live, `resident_frames` in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..storage.stack import Stack
from .errors import FrameMismatchError


class Moment(NamedTuple):
    """When, in which channel and in which plane a frame of one position was taken."""

    time: int
    channel: int
    z: int = 0


def side_inputs(
    newest: Moment,
    context_frames: int,
    other_channels: Sequence[int | None] = (),
    planes: int = 0,
    *,
    live: bool = False,
) -> list[Moment | None]:
    """Return which frames a model is given next to the newest one.

    Parameters
    ----------
    newest
        The frame that is denoised.
    context_frames
        T, how many frames that came before.
    other_channels
        The numbers of the C other channels, in the order of the model's input; None for one that
        has not come yet.
    planes
        Z, how many planes on either side.
    live
        Whether only planes may be given that come before this one.

    Returns
    -------
    list
        T + 2Z + C moments; None where there can be no frame.
    """
    before = [newest._replace(time=newest.time - back) for back in range(1, context_frames + 1)]
    beside = [
        None if live and step > 0 else newest._replace(z=newest.z + step)
        for distance in range(1, planes + 1)
        for step in (-distance, distance)
    ]
    others = [
        None
        if channel is None
        else newest._replace(
            time=newest.time - (not arrives_earlier(channel, newest.channel)), channel=channel
        )
        for channel in other_channels
    ]
    return [
        m if m is not None and min(m.time, m.z) >= 0 else None for m in (*before, *beside, *others)
    ]


def arrives_earlier(channel: int, own: int) -> bool:
    """Whether a channel's frame of a time point is there when that of channel `own` comes."""
    return channel < own


def side_input_indices(
    stack: Stack,
    index: int,
    context_frames: int,
    other_channels: Sequence[int] = (),
    planes: int = 0,
) -> list[int | None]:
    """Return the side inputs of frame `index` of a stack by their indices, None where absent."""
    axes = stack.axes(index)
    return [
        index_at(stack, axes, moment)
        for moment in side_inputs(moment_of(axes), context_frames, other_channels, planes)
    ]


def moment_of(axes: Mapping[str, int]) -> Moment:
    """Return when, in which channel and plane the frame with these axes was taken."""
    return Moment(axes.get("time", 0), axes.get("channel", 0), axes.get("z", 0))


def index_at(stack: Stack, axes: Mapping[str, int], moment: Moment | None) -> int | None:
    """Return the frame of a stack at a moment, in the position of `axes`.

    None where there is no moment, or the recording does not hold that frame.
    """
    if moment is None or moment.z >= stack.sizes.get("z", 1):
        return None
    index = stack.index({**axes, **moment._asdict()})
    return index if stack.is_present(index) else None


def stacked(
    newest: NDArray[Any], further: Sequence[NDArray[Any] | None], pixel_type: np.dtype[Any]
) -> NDArray[Any]:
    """Return the observations (1 + T + 2Z + C, Y, X) that a model takes, zeros for absent frames.

    Parameters
    ----------
    newest
        (Y, X). Without further frames and in the right type it is not copied.
    further
        The pixels of its side inputs, None where absent.
    pixel_type
        Of the result.
    """
    if not further and newest.dtype == pixel_type:
        return newest[np.newaxis]
    out = np.zeros((1 + len(further), *newest.shape), pixel_type)
    out[0] = newest
    for row, pixels in enumerate(further, start=1):
        if pixels is not None:
            out[row] = pixels
    return out


def other_channel_numbers(
    stack: Stack, other_channels: Sequence[str], *, what: str
) -> tuple[int, ...]:
    """Return the places of other channels in a stack.

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
