"""The frames that came before: what a model is given next to the newest one.

Owns where those frames are found, in memory while a run lasts and read back afterwards, so that a
frame gets the same input whether it is denoised live or later. Which frames they are is the rule
of `inference.side_inputs`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ...inference.side_inputs import Moment, side_inputs, stacked
from ...storage.axis_map import Place
from .channel_denoisers import ChannelDenoisers, channel_place

if TYPE_CHECKING:
    from .part import Part

MAX_CONTEXT_BYTES = 512 * 2**20
"""Held for all channels, planes and positions of a part; frames beyond it are read back."""

MAX_CONTEXTS = 8
"""Parts of which frames are held for those that come after; a region may move for hours."""

Pixels = NDArray[Any]
Load = Callable[[], Pixels | None]


class Context:
    """The last frames of every channel, plane and position.

    Used from one thread; the loaders that it returns may be called from another one.

    Parameters
    ----------
    read_back
        Returns the pixels of a frame that is not in memory; None if there is none.
    """

    def __init__(self, read_back: Callable[[Place], Pixels | None]) -> None:
        self._read_back = read_back
        self._held: OrderedDict[Place, Load] = OrderedDict()

    def push(self, place: Place, load: Load, *, frame_bytes: int, count: int) -> None:
        """Remember a frame, of which a model wants `count` back; `load` returns its pixels."""
        self._held[place] = load
        self._held.pop(place._replace(time=place.time - count), None)
        while len(self._held) > 1 and len(self._held) * frame_bytes > MAX_CONTEXT_BYTES:
            self._held.popitem(last=False)

    def side_inputs(
        self,
        place: Place,
        context_frames: int,
        other_channels: Sequence[int | None] = (),
        planes: int = 0,
    ) -> list[Load]:
        """Return loaders of what a model is given next to the frame at `place`.

        Of the planes beside it those below have come. Those above are left out afterwards as
        well, so that a frame that was skipped live is denoised as its neighbours were.
        """
        newest = Moment(place.time, place.channel, place.z)
        return [
            _nothing if moment is None else self._loader(place._replace(**moment._asdict()))
            for moment in side_inputs(newest, context_frames, other_channels, planes, live=True)
        ]

    def _loader(self, place: Place) -> Load:
        return self._held.get(place) or (lambda: self._read_back(place))


def _nothing() -> None:
    return None


class Contexts:
    """Those of the parts of a run that were used last; of others all is read back.

    Parameters
    ----------
    read_back
        Returns the pixels of a part's frame that is not in memory; None if there is none.
    """

    def __init__(self, read_back: Callable[[Part, Place], Pixels | None]) -> None:
        self._read_back = read_back
        self._by_part: OrderedDict[int, Context] = OrderedDict()

    def of(self, part: Part) -> Context:
        """Return what is remembered of a part."""
        if part.number not in self._by_part:
            self._by_part[part.number] = Context(partial(self._read_back, part))
            if len(self._by_part) > MAX_CONTEXTS:
                self._by_part.popitem(last=False)
        self._by_part.move_to_end(part.number)
        return self._by_part[part.number]


def side_input_loaders(
    context: Context,
    place: Place,
    load: Load,
    *,
    part: Part,
    denoisers: ChannelDenoisers,
    channel: int | str | None,
) -> list[Load]:
    """Return loaders of what the model of a channel is given next to the frame at `place`.

    These are the frames before it and then the newest ones of other channels. The frame
    itself, which `load` returns, is remembered for those that come after it.
    """
    known = part.axis_map.channel_names
    other_channels = [channel_place(name, known) for name in denoisers.other_channels(channel)]
    loaders = context.side_inputs(
        place, denoisers.context_frames(channel), other_channels, denoisers.planes(channel)
    )
    stored = known[place.channel] if place.channel < len(known) else str(place.channel)
    if count := denoisers.frames_back(channel, stored):
        frame_bytes = prod(part.frame_shape) * part.dtype.itemsize
        context.push(place, load, frame_bytes=frame_bytes, count=count)
    return loaders


def observations(newest: Pixels, loaders: Sequence[Load], count: int) -> Pixels:
    """Return (1 + `count`, Y, X), newest first, zeros where there is no frame."""
    found = [load() for load in loaders[:count]]
    return stacked(newest, found + [None] * (count - len(found)), newest.dtype)
