"""What patches go through before the network sees them.

Owns flips, missing context and things that appear from nowhere. Pure functions of their input and
the source of chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Patches = NDArray[np.float32]

NO_CONTEXT_SHARE = 0.1
GAP_SHARE = 0.15
PASTED_SHARE = 0.3


def augmented(patches: Patches, chance: np.random.Generator, *, transpose: bool) -> Patches:
    """Return patches (B, 1 + T, P, P) in network units, turned, with missing context at zero.

    `transpose` is False where the noise has a direction that must be kept.
    """
    turned = np.stack([_turned(patch, chance, transpose=transpose) for patch in patches])
    if turned.shape[1] > 1:
        _paste_from_elsewhere(turned, chance)
        _drop_context(turned, chance)
    return np.nan_to_num(turned, copy=False, nan=0.0)


def _turned(patch: Patches, chance: np.random.Generator, *, transpose: bool) -> Patches:
    flip_y, flip_x, swap = chance.random(3) < 0.5
    if flip_y:
        patch = patch[:, ::-1]
    if flip_x:
        patch = patch[:, :, ::-1]
    return patch.transpose(0, 2, 1) if swap and transpose else patch


def _drop_context(patches: Patches, chance: np.random.Generator) -> None:
    # The first frames of a run, a gap, a skipped frame.
    context_frames = patches.shape[1] - 1
    for patch in patches:
        fate = chance.random()
        if fate < NO_CONTEXT_SHARE:
            patch[1:] = 0
        elif fate < NO_CONTEXT_SHARE + GAP_SHARE:
            patch[1 + int(chance.integers(context_frames)) :] = 0
        elif fate < NO_CONTEXT_SHARE + 2 * GAP_SHARE:
            patch[1 + int(chance.integers(context_frames))] = 0


def _paste_from_elsewhere(patches: Patches, chance: np.random.Generator) -> None:
    # Things appear, vanish and flash: the past of a rectangle is taken from another patch, for
    # all preceding frames (it has just appeared) or for some of them (a flash that is over).
    count, frames, edge, _ = patches.shape
    original = patches.copy()
    for place in range(count):
        if chance.random() >= PASTED_SHARE:
            continue
        other = original[int(chance.integers(count))]
        height, width = (int(n) for n in chance.integers(4, edge // 2 + 1, size=2))
        y, x = int(chance.integers(edge - height + 1)), int(chance.integers(edge - width + 1))
        v, u = int(chance.integers(edge - height + 1)), int(chance.integers(edge - width + 1))
        first, last = 1, frames
        if chance.random() < 0.5:
            first = 1 + int(chance.integers(frames - 1))
            last = first + 1 + int(chance.integers(frames - first))
        patches[place, first:last, y : y + height, x : x + width] = other[
            first:last, v : v + height, u : u + width
        ]
