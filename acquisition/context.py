"""The frames that came before: what a model with context is given next to the newest one.

Owns which earlier frames those are, in memory while a run lasts and read back afterwards, so that
a frame gets the same input whether it is denoised live or later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..frame_store import Place

MAX_CONTEXT_BYTES = 512 * 2**20
"""Held for all channels, planes and positions together; frames beyond it are read back."""

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

    def earlier(self, place: Place, count: int) -> list[Load]:
        """Return loaders of the `count` frames before `place`, newest first."""
        return [
            self._loader(place._replace(time=place.time - back))
            for back in range(1, min(count, place.time) + 1)
        ]

    def _loader(self, place: Place) -> Load:
        return self._held.get(place) or (lambda: self._read_back(place))


def observations(newest: Pixels, earlier: Sequence[Load], count: int) -> Pixels:
    """Return (1 + `count`, Y, X), newest first, zeros where there is no frame."""
    if count == 0:
        return newest[np.newaxis]
    out = np.zeros((1 + count, *newest.shape), newest.dtype)
    out[0] = newest
    for row, load in enumerate(earlier, start=1):
        pixels = load()
        if pixels is not None:
            out[row] = pixels
    return out
