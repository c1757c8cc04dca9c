"""Several channels in one picture: each in a colour of its own, added up as light adds up.

Owns the colours that channels have there, which of them are seen, and the sum. Knows no Qt; a
single image's way to screen greys is in `display_levels`, what a person does in `window`.

The colours are magenta and green first: where both are equally bright the sum is white, and under
the simulations of colour blindness of Machado et al. (2009, doi:10.1109/TVCG.2009.113) magenta,
green and white stay as far apart as they are to other eyes, where red, green and yellow do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .display_levels import SATURATED, Limits, VisiblePart, screen_greys
from .mailbox import Picture
from .model import FigureAverage
from .style import BLACK, SATURATED_COLOUR, TABLES, coloured_table
from .verdict_history import VerdictHistory

MERGE_COLOURS = ((255, 0, 255), (0, 255, 0), (0, 255, 255), (200, 80, 0))
"""Of the first, second … channel of a run; a fifth begins anew."""
ADDS_UP = frozenset({"Green", "Magenta", "Blue", "Orange"})
"""Tables that a person may choose for a channel and that also mean something in a sum."""
PLAIN = next(iter(TABLES))


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One image on its way to the screen.

    Attributes
    ----------
    image
        (Y, X), ADU.
    limits
        Shown as black and as white, ADU.
    table
        (256, 3) uint8, the colours of the greys; the last one marks saturation.
    raw, saturation_adu
        The camera's image, and the value from which on its pixels are marked.
    """

    image: NDArray[Any]
    limits: Limits
    table: NDArray[np.uint8]
    raw: NDArray[Any] | None = None
    saturation_adu: float = math.inf

    def greys(self, part: VisiblePart) -> NDArray[np.uint8]:
        """Return the part's screen values (Y, X) uint8."""
        place = (part.rows, part.columns)
        marked = None if self.raw is None else self.raw[place] >= self.saturation_adu
        return screen_greys(self.image[place], self.limits, marked)


def added_up(layers: Sequence[Layer], part: VisiblePart) -> NDArray[np.uint8]:
    """Return the sum of layers of one shape as colours (Y, X, 3) uint8.

    What is brighter than the screen is cut off; a pixel that is saturated in one of the layers has
    the colour of saturation alone.
    """
    marked: NDArray[np.bool_] | None = None
    total: NDArray[np.uint16] | None = None
    for layer in layers:
        greys = layer.greys(part)
        light = layer.table.astype(np.uint16).take(greys, axis=0)
        total = light if total is None else np.add(total, light, out=total)
        here = greys == SATURATED
        marked = here if marked is None else marked | here
    if total is None:
        raise ValueError("no layers; expected at least one")
    colours = np.minimum(total, 255).astype(np.uint8)
    colours[marked] = SATURATED_COLOUR
    return colours


@dataclass(slots=True, eq=False)
class ChannelView:
    """What is kept of a channel while another one is looked at.

    Attributes
    ----------
    name
        As the store names it; "" in a run without channels.
    table
        The colours that were chosen for it, a key of `TABLES`.
    picture
        The newest one; None before the first.
    seen_s
        When that came.
    """

    name: str
    table: str = PLAIN
    average: FigureAverage = field(default_factory=FigureAverage)
    history: VerdictHistory = field(default_factory=VerdictHistory)
    picture: Picture | None = None
    seen_s: float = -math.inf

    def take(self, picture: Picture, now_s: float) -> None:
        """Take its newest picture."""
        since_last = min(now_s - self.seen_s, 1e6)
        self.picture, self.seen_s = picture, now_s
        self.average.add(picture.figures, since_last)

    def merge_table(self, number: int) -> NDArray[np.uint8]:
        """Return its colours in a sum, as the run's channel `number`: chosen ones, or its own."""
        if self.table in ADDS_UP:
            return TABLES[self.table]()
        return coloured_table(BLACK, MERGE_COLOURS[number % len(MERGE_COLOURS)])


class Channels:
    """All channels of a run: which one is looked at, and which are seen together.

    Attributes
    ----------
    now
        The one whose figures, contrast and profile are shown.
    merging
        Whether several are shown as one picture.
    """

    def __init__(self) -> None:
        self.now = ChannelView("")
        self.merging = False
        self._views: dict[str, ChannelView] = {"": self.now}
        self._order: list[str] = []
        self._hidden: set[str] = set()

    @property
    def names(self) -> Sequence[str]:
        """The channels that there are, in the order of the run."""
        return tuple(self._order)

    def note(self, names: Iterable[str]) -> None:
        """Take which channels the run has by now."""
        self._order += [name for name in names if name not in self._order]

    def of(self, name: str) -> ChannelView:
        """Return what is kept of a channel."""
        return self._views.setdefault(name, ChannelView(name))

    def turn_to(self, name: str) -> None:
        """Look at this one from now on; in a sum it is seen in any case."""
        self.now = self.of(name)
        self._hidden.discard(name)

    def takes(self, name: str) -> bool:
        """Return whether a picture of this channel is shown without turning to it."""
        return self.merging and bool(self.now.name) and name != self.now.name

    def toggle(self, name: str) -> None:
        """Show a channel in the sum, or leave it out; the one that is looked at stays."""
        if name != self.now.name:
            self._hidden ^= {name}

    def is_seen(self, name: str) -> bool:
        """Return whether it takes part in the sum."""
        return name not in self._hidden

    def merged(self) -> list[tuple[ChannelView, NDArray[np.uint8]]]:
        """Return the channels that are seen, each with its colours; one while none are merged.

        Of several only those whose newest picture is of the same place: one of another size or
        stage position would lie over the wrong cells.
        """
        first = self.now.picture
        if first is None:
            return []
        if not self.merging or self.now.name not in self._order:
            return [(self.now, TABLES[self.now.table]())]
        views = ((n, self.of(name)) for n, name in enumerate(self._order) if self.is_seen(name))
        return [
            (view, view.merge_table(number))
            for number, view in views
            if _of_one_place(view.picture, first)
        ]

    def with_pictures(self, pictures: Iterable[Picture]) -> Channels:
        """Return the same channels with other pictures, those of the past; the rest have none."""
        made = copy(self)
        made._views = {name: replace(view, picture=None) for name, view in self._views.items()}
        for picture in pictures:
            made.of(str(picture.figures.get("channel") or "")).picture = picture
        made.now = made.of(self.now.name)
        return made


def _of_one_place(picture: Picture | None, other: Picture) -> bool:
    return (
        picture is not None
        and picture.raw.shape == other.raw.shape
        and picture.step == other.step
        and picture.figures.get("position") == other.figures.get("position")
    )
