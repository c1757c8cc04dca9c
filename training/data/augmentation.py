"""What patches go through before the network sees them.

Owns flips, missing context and things that appear from nowhere. Pure functions of their input and
of the random generator.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..options import InputPlanes

Patches = NDArray[np.float32]

NO_CONTEXT_SHARE = 0.1
GAP_SHARE = 0.15
NO_PLANES_SHARE = 0.1
ONE_SIDE_SHARE = 0.25
PASTED_SHARE = 0.3
ALL_FRAMES_SHARE = 0.6
FLASH_SHARE = 0.6
MOST_FLASHES = 8
FLASH_HEIGHTS = (0.3, 30.0)
"""In network units: what flashes may be far brighter than everything that was recorded."""
STRANGE_SHARE = 0.2
ABSENT_CHANNEL_SHARE = 0.15


def augmented(
    patches: Patches,
    rng: np.random.Generator,
    *,
    transpose: bool,
    inputs: InputPlanes | None = None,
) -> Patches:
    """Return patches (B, planes, P, P) in network units, turned, with missing context at zero.

    `transpose` is False where the noise has a direction that must be kept. `inputs` says what the
    planes are; by default all but the first are preceding frames.
    """
    inputs = inputs or InputPlanes(context_frames=patches.shape[1] - 1)
    turned = np.stack([_turned(patch, rng, transpose=transpose) for patch in patches])
    if inputs.context_frames:
        with_past = turned[:, : 1 + inputs.context_frames]
        _disturb_past(with_past, rng)
        _drop_context(with_past, rng)
        if inputs.target > 1:  # a picture, and those of the frames before
            painted = turned[:, -1 - inputs.context_frames :]
            _disturb_past(painted, rng)
            _drop_context(painted, rng)
    if inputs.planes:
        _drop_planes(turned[:, 1 + inputs.context_frames : inputs.own_frames], rng)
    if inputs.other_channels:
        first = inputs.own_frames
        _disturb_other_channels(turned[:, first : first + inputs.other_channels], rng)
    return np.nan_to_num(turned, copy=False, nan=0.0)


def _turned(patch: Patches, rng: np.random.Generator, *, transpose: bool) -> Patches:
    flip_y, flip_x, swap = rng.random(3) < 0.5
    if flip_y:
        patch = patch[:, ::-1]
    if flip_x:
        patch = patch[:, :, ::-1]
    return patch.transpose(0, 2, 1) if swap and transpose else patch


def _drop_context(patches: Patches, rng: np.random.Generator) -> None:
    # The first frames of a run, a gap, a skipped frame.
    context_frames = patches.shape[1] - 1
    for patch in patches:
        fate = rng.random()
        if fate < NO_CONTEXT_SHARE:
            patch[1:] = 0
        elif fate < NO_CONTEXT_SHARE + GAP_SHARE:
            patch[1 + int(rng.integers(context_frames)) :] = 0
        elif fate < NO_CONTEXT_SHARE + 2 * GAP_SHARE:
            patch[1 + int(rng.integers(context_frames))] = 0


def _drop_planes(planes: Patches, rng: np.random.Generator) -> None:
    # The ends of a stack, a plane that was not recorded; and live, where none above has come.
    for patch in planes:
        fate = rng.random()
        if fate < NO_PLANES_SHARE:
            patch[:] = 0
        elif fate < NO_PLANES_SHARE + ONE_SIDE_SHARE:
            patch[int(rng.integers(2)) :: 2] = 0
        elif fate < NO_PLANES_SHARE + ONE_SIDE_SHARE + GAP_SHARE:
            patch[int(rng.integers(len(patch)))] = 0


def _disturb_past(patches: Patches, rng: np.random.Generator) -> None:
    # What has just appeared, what has just gone, and what flashed once: the past of a rectangle is
    # taken from another patch, or a spot lights up in one preceding frame.
    original = patches.copy()
    for patch in patches:
        if rng.random() < PASTED_SHARE:
            other = original[int(rng.integers(len(original)))]
            first, last = 1, len(patch)
            if rng.random() >= ALL_FRAMES_SHARE:
                first = int(rng.integers(1, len(patch)))
                last = int(rng.integers(first + 1, len(patch) + 1))
            _paste(patch, other, rng, first=first, last=last)
        if rng.random() < FLASH_SHARE:
            for _ in range(int(rng.integers(1, MOST_FLASHES + 1))):
                _flash(patch, rng)


def _paste(
    patch: Patches, other: Patches, rng: np.random.Generator, *, first: int, last: int
) -> None:
    edge = patch.shape[1]
    height, width = (int(n) for n in rng.integers(4, edge // 2 + 1, size=2))
    y, v = (int(n) for n in rng.integers(edge - height + 1, size=2))
    x, u = (int(n) for n in rng.integers(edge - width + 1, size=2))
    patch[first:last, y : y + height, x : x + width] = other[
        first:last, v : v + height, u : u + width
    ]


def _disturb_other_channels(other_channels: Patches, rng: np.random.Generator) -> None:
    # A channel that is not there yet, and things that only one of two channels shows.
    original = other_channels.copy()
    for patch in other_channels:
        if rng.random() < STRANGE_SHARE:
            other = original[int(rng.integers(len(original)))]
            _paste(patch, other, rng, first=0, last=len(patch))
        patch[rng.random(len(patch)) < ABSENT_CHANNEL_SHARE] = 0


def _flash(patch: Patches, rng: np.random.Generator) -> None:
    frames, edge, _ = patch.shape
    # The newest of the past half of the time: its echo is the one that shows most.
    frame = 1 if rng.random() < 0.5 else int(rng.integers(1, frames))
    y, x = rng.uniform(0, edge, size=2)
    sigma = rng.uniform(1.0, 6.0)
    height = math.exp(rng.uniform(*np.log(FLASH_HEIGHTS)))
    rows = np.exp(-0.5 * ((np.arange(edge) - y) / sigma) ** 2)
    columns = np.exp(-0.5 * ((np.arange(edge) - x) / sigma) ** 2)
    patch[frame] += (height * rows[:, None] * columns[None, :]).astype(np.float32)
