"""Which runs a candidate learns from: new ones that cover brightness and structure, and old ones.

Owns the choice among runs that are fit. What may teach at all is decided in `run_audit`.

Each run is described by how bright it is (quantiles of its pixels) and by how much structure it
has at each of a few widths (differences of blurs). Runs are taken one after the other, each the
one that is least like those taken before (farthest-point sampling: Gonzalez 1985,
doi:10.1016/0304-3975(85)90224-5), so that a week of one dim specimen does not crowd out the one
bright evening. The newest comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...storage.stack import Stack

MOST_NEW = 6
MOST_OLD = 2
"""Of those that the model in use has learned from: yesterday's specimen is not forgotten."""
DESCRIBED_FRAMES = 3
QUANTILES = (0.05, 0.5, 0.95, 0.999)
WIDTHS_PX = (1.0, 2.0, 4.0, 8.0)
LARGEST_EDGE = 1024
"""Pixels of the middle of a frame: what a specimen is like is seen there as well."""


def chosen(new: Sequence[tuple[Stack, Stack]], old: Sequence[tuple[Stack, Stack]]) -> list[Stack]:
    """Return the runs to learn from, as whole runs.

    Parameters
    ----------
    new, old
        Whole runs, each with its channel, newest first; `old` are known to the model in use.
    """
    taken = _spread([], new, MOST_NEW)
    # Where there is little that is new, more of the old is learned again.
    return [whole for whole, _ in _spread(taken, old, MOST_OLD + MOST_NEW - len(taken))]


def _spread(
    taken: Sequence[tuple[Stack, Stack]], offered: Sequence[tuple[Stack, Stack]], most: int
) -> list[tuple[Stack, Stack]]:
    """Return what was taken, and up to `most` more that are least like it."""
    found = list(taken)
    if len(offered) <= most:
        return [*found, *offered]
    described = [describe(own) for _, own in found]
    left = [(pair, describe(pair[1])) for pair in offered]
    scale = np.std([d for _, d in left], axis=0) + 1e-6
    for _ in range(most):
        far = [
            min((float(np.linalg.norm((d - known) / scale)) for known in described), default=0.0)
            for _, d in left
        ]
        pair, description = left.pop(int(np.argmax(far)))
        found.append(pair)
        described.append(description)
    return found


def describe(own: Stack) -> NDArray[np.float64]:
    """Return (QUANTILES + WIDTHS,) logarithms: of brightness over the darkest, of structure."""
    there = own.present_indices
    count = min(DESCRIBED_FRAMES, len(there))
    rows = []
    for index in there[np.linspace(0, len(there) - 1, count).astype(int)]:
        frame = _middle(own.frame(int(index))).astype(np.float64)
        brightness = np.quantile(frame, QUANTILES) - frame.min()
        blurs = [gaussian_filter(frame, width) for width in (*WIDTHS_PX, 2 * WIDTHS_PX[-1])]
        structure = [(a - b).std() for a, b in pairwise(blurs)]
        rows.append(np.log1p([*brightness, *structure]))
    found: NDArray[np.float64] = np.mean(rows, axis=0)
    return found


def _middle(frame: NDArray[Any]) -> NDArray[Any]:
    starts = [max(0, (edge - LARGEST_EDGE) // 2) for edge in frame.shape]
    rows, columns = (slice(start, start + LARGEST_EDGE) for start in starts)
    return frame[rows, columns]
