"""What the network learns from: frames in memory, held-out frames, patches.

Owns the reading of stacks within a bound on memory, the refusal of recordings that cannot teach
anything, and where in them patches are taken. Units are ADU throughout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.bundle import TrainingStack
from ..stacks import Stack
from .errors import TrainingDataError

SMALLEST_PATCH = 32
CELL = 16
"""Edge of the cells, in pixels, whose information steers where patches are taken."""
UNIFORM_SHARE = 0.5
HELD_OUT_SHARE = 0.1
FEW_FRAMES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """The frames of one stack that are held in memory.

    Attributes
    ----------
    stack
        Where they come from.
    pixels
        (N, Y, X) in the camera's type.
    preceding
        (N, T) rows of `pixels` that came before each frame, newest first; −1 where missing.
    held_out
        Rows that are never trained on, only predicted.
    """

    stack: Stack
    pixels: NDArray[Any]
    preceding: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def observations(self, row: int) -> NDArray[np.float32]:
        """Return frame `row` and its context, (1 + T, Y, X) ADU, missing frames zero."""
        return self.camera_pixels(row).astype(np.float32)

    def camera_pixels(self, row: int) -> NDArray[Any]:
        """Return the same in the camera's pixel type."""
        rows = [row, *self.preceding[row]]
        out = np.zeros((len(rows), *self.stack.frame_shape), dtype=self.pixels.dtype)
        for place, source in enumerate(rows):
            if source >= 0:
                out[place] = self.pixels[source]
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Recordings:
    """All footage of one training run, checked.

    Attributes
    ----------
    footage
        One per stack.
    patch
        Edge of the patches in pixels: what was asked for, or what fits.
    low_adu, high_adu
        Extremes of the pixels.
    centre_adu, scale_adu
        Their mean and standard deviation.
    """

    footage: tuple[Footage, ...]
    patch: int
    low_adu: float
    high_adu: float
    centre_adu: float
    scale_adu: float
    pixel_type: str
    sampler: PatchSampler

    def share_outside(self, low_adu: float, high_adu: float) -> float:
        """Return the share of pixels outside of a range."""
        outside = sum(
            int(((part.pixels < low_adu) | (part.pixels > high_adu)).sum())
            for part in self.footage
        )
        return outside / sum(part.pixels.size for part in self.footage)

    def provenance(self) -> tuple[TrainingStack, ...]:
        """Return what was read, with its hash."""
        return tuple(
            TrainingStack(
                path=str(part.stack.path),
                frames=len(part.pixels),
                frame_shape=part.stack.frame_shape,
                sha256=hashlib.sha256(part.pixels.tobytes()).hexdigest(),
            )
            for part in self.footage
        )

    def held_out(self, limit: int = 32) -> list[NDArray[np.float32]]:
        """Return up to `limit` held-out observations (1 + T, Y, X), from all stacks alike."""
        places = [(part, int(row)) for part in self.footage for row in part.held_out]
        chosen = np.linspace(0, len(places) - 1, min(limit, len(places))).round().astype(int)
        return [part.observations(row) for part, row in (places[i] for i in chosen)]


def load_recordings(
    stacks: Sequence[Stack], *, context_frames: int, patch: int, memory_mib: int
) -> Recordings:
    """Read the stacks, evenly thinned to contiguous stretches where they exceed the memory.

    Raises
    ------
    TrainingDataError
        If they are of mixed shapes or types, constant, saturated, or smaller than a patch.
    """
    _require_alike(stacks)
    patch = _fitting_patch(stacks[0], patch)
    share = memory_mib * 2**20 / max(sum(stack.bytes for stack in stacks), 1)
    footage = tuple(_load(stack, context_frames, share) for stack in stacks)
    low = min(float(part.pixels.min()) for part in footage)
    high = max(float(part.pixels.max()) for part in footage)
    _require_contrast(footage, low, high)
    mean, deviation = _moments(footage)
    return Recordings(
        footage=footage,
        patch=patch,
        low_adu=low,
        high_adu=high,
        centre_adu=mean,
        scale_adu=deviation,
        pixel_type=stacks[0].dtype.name,
        sampler=PatchSampler(footage, patch),
    )


def _require_alike(stacks: Sequence[Stack]) -> None:
    if not stacks:
        raise TrainingDataError("no stacks were given; name at least one recording to learn from")
    first = stacks[0]
    for stack in stacks:
        if stack.dtype != first.dtype:
            raise TrainingDataError(
                f"{stack.path}: pixels are {stack.dtype}, those of {first.path} {first.dtype}; "
                "a model belongs to one pixel type: train one model for each"
            )
        if stack.frame_shape != first.frame_shape:
            raise TrainingDataError(
                f"{stack.path}: frames are {_shape(stack)}, those of {first.path} are "
                f"{_shape(first)}; give recordings of one camera setting, or crop them alike"
            )
        if stack.sizes.get("channel", 1) > 1:
            raise TrainingDataError(
                f"{stack.path}: holds {stack.sizes['channel']} channels; name one with --channel "
                "and train a model for each"
            )


def _shape(stack: Stack) -> str:
    return f"{stack.frame_shape[0]}×{stack.frame_shape[1]}"


def _fitting_patch(stack: Stack, wanted: int) -> int:
    fitting = min(wanted, *(edge // CELL * CELL for edge in stack.frame_shape))
    if fitting < SMALLEST_PATCH:
        raise TrainingDataError(
            f"{stack.path}: frames are {_shape(stack)} pixels, expected at least "
            f"{SMALLEST_PATCH}×{SMALLEST_PATCH}, one training patch; record a larger ROI"
        )
    return fitting


def _load(stack: Stack, context_frames: int, share: float) -> Footage:
    indices = _chosen(len(stack), context_frames, share)
    row_of = {index: row for row, index in enumerate(indices)}
    preceding = np.full((len(indices), context_frames), -1, dtype=np.int64)
    for row, index in enumerate(indices):
        for place, earlier in enumerate(stack.preceding(index, context_frames)):
            if earlier is not None:
                preceding[row, place] = row_of.get(earlier, -1)
    return Footage(
        stack=stack,
        pixels=stack.frames(indices),
        preceding=preceding,
        held_out=np.array(held_out_indices(len(indices))),
    )


def held_out_indices(count: int) -> range:
    """Return which of `count` frames are never trained on: the last tenth.

    Of very few frames none can be spared: then all are trained on and all are validated on, which
    a network that cannot see its target stands far better than others.
    """
    held = max(1, round(HELD_OUT_SHARE * count)) if count >= FEW_FRAMES else count
    return range(count - held, count)


def _chosen(count: int, context_frames: int, share: float) -> list[int]:
    if share >= 1:
        return list(range(count))
    stretch = max(8, 2 * (context_frames + 1))
    keep = max(1, int(count * share) // stretch)
    starts = np.linspace(0, max(count - stretch, 0), keep).astype(int)
    return sorted({int(i) for start in starts for i in range(start, min(start + stretch, count))})


def _require_contrast(footage: Sequence[Footage], low: float, high: float) -> None:
    path = footage[0].stack.path
    if low == high:
        raise TrainingDataError(
            f"{path}: every pixel is {low:g} ADU, expected an image; open the shutter, check the "
            "exposure and record again"
        )
    saturated = sum(int((part.pixels == high).sum()) for part in footage)
    total = sum(part.pixels.size for part in footage)
    if saturated > 0.5 * total:
        raise TrainingDataError(
            f"{path}: {saturated / total:.0%} of the pixels are saturated at {high:g} ADU, "
            "expected less than half; lower exposure or illumination and record again"
        )


def _moments(footage: Sequence[Footage]) -> tuple[float, float]:
    counts = np.array([part.pixels.size for part in footage], dtype=np.float64)
    means = np.array([part.pixels.mean(dtype=np.float64) for part in footage])
    squares = np.array(
        [part.pixels.var(dtype=np.float64) + m**2 for part, m in zip(footage, means, strict=True)]
    )
    mean = float((counts * means).sum() / counts.sum())
    return mean, float(np.sqrt((counts * squares).sum() / counts.sum() - mean**2))


class PatchSampler:
    """Draws patches: half of them anywhere, half where the frames hold structure."""

    def __init__(self, footage: Sequence[Footage], patch: int) -> None:
        self._patch = patch
        self._footage = footage
        held_everything = all(len(part.held_out) == len(part.pixels) for part in footage)
        self._places = [
            (number, row)
            for number, part in enumerate(footage)
            for row in range(len(part.pixels))
            if held_everything or len(part.held_out) == len(part.pixels) or row < part.held_out[0]
        ]
        shape = footage[0].stack.frame_shape
        self._cells = (shape[0] // CELL, shape[1] // CELL)
        information = np.stack(
            [_information(footage[number].pixels[row]) for number, row in self._places]
        )
        self._cumulative = np.cumsum(information, dtype=np.float64)

    def draw(self, count: int, chance: np.random.Generator) -> NDArray[np.float32]:
        """Return `count` patches (count, 1 + T, P, P) in ADU; missing context is NaN."""
        first = self._footage[0]
        edge = self._patch
        out = np.full((count, 1 + first.preceding.shape[1], edge, edge), np.nan, dtype=np.float32)
        for patch in out:
            number, row, y, x = self._somewhere(chance)
            part = self._footage[number]
            for place, source in enumerate((row, *part.preceding[row])):
                if source >= 0:
                    patch[place] = part.pixels[source, y : y + edge, x : x + edge]
        return out

    def _somewhere(self, chance: np.random.Generator) -> tuple[int, int, int, int]:
        height, width = self._footage[0].stack.frame_shape
        most_y, most_x = height - self._patch, width - self._patch
        if chance.random() < UNIFORM_SHARE or self._cumulative[-1] <= 0:
            number, row = self._places[chance.integers(len(self._places))]
            y, x = int(chance.integers(most_y + 1)), int(chance.integers(most_x + 1))
            return number, row, y, x
        cell = int(np.searchsorted(self._cumulative, chance.random() * self._cumulative[-1]))
        place, cell = divmod(min(cell, len(self._cumulative) - 1), self._cells[0] * self._cells[1])
        number, row = self._places[place]
        # The patch holds the cell at a random place of its own.
        y = cell // self._cells[1] * CELL - int(chance.integers(self._patch - CELL + 1))
        x = cell % self._cells[1] * CELL - int(chance.integers(self._patch - CELL + 1))
        return number, row, min(max(y, 0), most_y), min(max(x, 0), most_x)


def _information(frame: NDArray[Any]) -> NDArray[np.float32]:
    """Return the local contrast of a frame per cell: structure, beyond what averages out."""
    rows, columns = frame.shape[0] // CELL, frame.shape[1] // CELL
    cells = frame[: rows * CELL, : columns * CELL].astype(np.float32)
    quarters = cells.reshape(rows, 4, CELL // 4, columns, 4, CELL // 4).mean(axis=(2, 5))
    contrast: NDArray[np.float32] = quarters.std(axis=(1, 3))
    return contrast
