"""Whether a channel of a new run shows what another channel showed until now: a label was swapped.

Owns that comparison. A label says nothing about what lies under it, so a run is compared with
earlier ones that hold both channels: it has to look clearly more like the other channel, and that
one, where it was recorded too, clearly more like this. A specimen that is new to both looks like
neither, and is learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...storage.stack import Stack
from ..data.side_inputs import one_channel
from .run_choice import describe

EARLIER_RUNS = 3
"""With which a run is compared, the newest."""
LEAST_APART = 1.0
"""Distance of the two channels in earlier runs, in natural logarithms: nearer ones are alike."""
LEAST_ADU = 0.01
"""Of brightness and structure: below it is rounding."""
CLEARLY = 0.5
"""Of the distance to its own channel, what the distance to the other one has to be under."""


class EarlierChannels:
    """How a channel and the others looked until now, measured when it is first asked for.

    Parameters
    ----------
    channel
        By its name.
    earlier
        Whole runs that the model in use has learned from, newest first.
    """

    def __init__(self, channel: str, earlier: Sequence[Stack]) -> None:
        self._channel = channel
        self._runs = [run for run in earlier if _names(run) > {channel}][:EARLIER_RUNS]

    def why_another(self, whole: Stack) -> str | None:
        """Return why the channel of a run is taken for another one, None if it is not."""
        if not self._runs:
            return None
        channel, own = self._channel, self._looks[self._channel]
        here = _described(whole, channel)
        for other, theirs in self._looks.items():
            if other == channel or _nearest(own[0], theirs) < LEAST_APART:
                continue
            if not _is_nearer(here, theirs, own):
                continue
            if other in _names(whole) and not _is_nearer(_described(whole, other), own, theirs):
                continue
            return f"its channel {channel} looks like {other} until now; were the two exchanged?"
        return None

    @cached_property
    def _looks(self) -> dict[str, list[NDArray[np.float64]]]:
        """Descriptions of the channels that all of the runs have, run by run."""
        names = sorted(set.intersection(*map(_names, self._runs)))
        return {name: [_described(run, name) for run in self._runs] for name in names}


def _names(whole: Stack) -> set[str]:
    return set(whole.channel_names)


def _described(whole: Stack, channel: str) -> NDArray[np.float64]:
    found = np.expm1(describe(one_channel(whole, channel)))
    return np.asarray(np.log(np.maximum(found, LEAST_ADU)))


def _nearest(one: NDArray[np.float64], others: Iterable[NDArray[np.float64]]) -> float:
    return min(float(np.linalg.norm(one - other)) for other in others)


def _is_nearer(
    one: NDArray[np.float64],
    these: Sequence[NDArray[np.float64]],
    those: Sequence[NDArray[np.float64]],
) -> bool:
    return _nearest(one, these) < CLEARLY * _nearest(one, those)
