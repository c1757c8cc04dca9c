"""Where a frame lies in a store: Micro-Manager's axes as time, channel, plane and position.

Owns the numbering: names of channels, labels in place of numbers, everything else as positions.
Does not know how a store is laid out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Axes = Mapping[str, int | str]

MAX_JUMP = 100_000
"""An axis value this far beyond the last one is a label (a time stamp), not an index."""

_AXES_OF_ONE_IMAGE = frozenset({"time", "channel", "camera", "z"})
_Others = tuple[tuple[str, int | str], ...]


class Place(NamedTuple):
    """Where a frame lies in a store. `position` is None in a store of a single image."""

    position: int | None
    time: int
    channel: int
    z: int

    @property
    def tcz(self) -> tuple[int, int, int]:
        """The index into the image's first three axes."""
        return self.time, self.channel, self.z


def channel_of(axes: Axes) -> int | str | None:
    """Return the channel of a frame, with its camera's name where there are several cameras."""
    channel, camera = axes.get("channel"), axes.get("camera")
    if camera is None:
        return channel
    return str(camera) if channel is None else f"{channel} {camera}"


class AxisMap:
    """Gives every frame its place, from Micro-Manager's axes.

    Parameters
    ----------
    number_as_they_appear
        Number positions in the order in which they first appear, without gaps. Otherwise a
        position that is a number keeps it.

    Attributes
    ----------
    channel_names
        In the order of their index. A channel that is a number has no name.
    position_names
        Index to a label, for positions that are more than their number.
    """

    def __init__(self, *, number_as_they_appear: bool = True) -> None:
        self.channel_names: list[str] = []
        self.position_names: dict[int, str] = {}
        self._as_they_appear = number_as_they_appear
        self._positions: dict[_Others, int] = {}
        self._next_position = 0
        self._labels: dict[str, dict[int | str, int]] = {}
        self._sizes: dict[str, int] = {}

    def know_channels(self, names: Sequence[str]) -> None:
        """Add channel names that are not known yet."""
        self.channel_names += [str(name) for name in names if str(name) not in self.channel_names]

    def place(self, axes: Axes) -> Place:
        """Return the place of a frame with these axes; the same axes, the same place."""
        others = tuple(
            sorted((k, _plain(v)) for k, v in axes.items() if k not in _AXES_OF_ONE_IMAGE)
        )
        return Place(
            position=self._position(others),
            time=self._index("time", axes.get("time", 0)),
            channel=self._channel(channel_of(axes)),
            z=self._index("z", axes.get("z", 0)),
        )

    def _position(self, others: _Others) -> int | None:
        value = others[0][1] if len(others) == 1 and others[0][0] == "position" else None
        is_index = isinstance(value, int) and value >= 0 and not self._as_they_appear
        if is_index and value not in self._positions.values():
            self._next_position = max(self._next_position, int(value or 0) + 1)
            return int(value or 0)
        if others not in self._positions:
            number = self._next_position
            self._positions[others] = number
            self._next_position = number + 1
            if value != number and others:
                self.position_names[number] = ", ".join(f"{k} {v}" for k, v in others)
        only_one = self._next_position == 1
        return None if not others and only_one else self._positions[others]

    def _channel(self, name: int | str | None) -> int:
        if not isinstance(name, str):
            return self._index("channel", name or 0)
        if name not in self.channel_names:
            # A channel that so far was but a number keeps its place.
            numbered = range(len(self.channel_names), self._sizes.get("channel", 0))
            self.know_channels([*(str(number) for number in numbered), name])
        return self.channel_names.index(name)

    def _index(self, axis: str, value: int | str) -> int:
        """Return a number as it is; a label gets the next number when it first appears."""
        size = self._sizes.get(axis, 0)
        labels = self._labels.setdefault(axis, {})
        plain = _plain(value)
        is_index = isinstance(plain, int) and 0 <= plain < size + MAX_JUMP
        if is_index and plain not in labels and plain not in labels.values():
            self._sizes[axis] = max(size, int(plain) + 1)
            return int(plain)
        if plain not in labels:
            labels[plain] = size
            self._sizes[axis] = size + 1
        return labels[plain]


def _plain(value: int | str) -> int | str:
    return value if isinstance(value, str) else int(value)
