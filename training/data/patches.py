"""Where patches are taken: half of them anywhere, half where the frames hold structure.

Structure says where in a recording, not in which: each has the share of its frames. By contrast in
ADU a specimen under eight times the light would have nearly all, and the dim one be forgotten.

Owns the drawing of patches from the frames in memory. Units are ADU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.stack import Stack
from ..errors import TrainingDataError
from ..options import InputPlanes
from .pictures import Pictures
from .resident_frames import ResidentChunk, ResidentWindow

CELL = 16
"""Edge of the cells, in pixels, whose information steers where patches are taken."""
UNIFORM_SHARE = 0.5


class PatchSampler:
    """Draws patches from the frames in memory.

    Parameters
    ----------
    window
        The frames, read.
    patch
        Edge of the patches, pixels.
    inputs
        The planes of each.
    """

    def __init__(self, window: ResidentWindow, patch: int, inputs: InputPlanes) -> None:
        self._window = window
        self._patch = patch
        self._inputs = inputs
        self._maps: dict[ResidentChunk, _InformationMap] = {}
        self._resident_chunks: tuple[ResidentChunk, ...] = ()
        self._take(window.resident)

    def move(self, drawn: int, progress: float, *, wait: bool) -> None:
        """Let the frames in memory be those after `drawn` patches, at this share of the run.

        See `ResidentWindow.move` for `wait`.
        """
        drawn_bytes = drawn * self._patch**2 * self._window.resident[0].pixels.itemsize
        moved = self._window.move(self._window.place(drawn_bytes, progress), wait=wait)
        if moved or not self._resident_chunks:
            self._take(self._window.resident)

    def let_go(self) -> None:
        """Hold no frames until it is moved again: another sampler goes through the same window."""
        self._maps, self._resident_chunks = {}, ()

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return `count` patches (count, planes, P, P); missing frames are NaN.

        The planes are those of `InputPlanes`: frames in ADU, brought to the offset and gain of the
        camera on the whole where its pixels differ, then how noisy they are, then the target.
        """
        edge = self._patch
        frames = self._inputs.frames
        shape = (count, 1 + self._inputs.further + self._inputs.target, edge, edge)
        out = np.full(shape, np.nan, dtype=np.float32)
        for patch in out:
            part, row, y, x = self.somewhere(rng)
            here = (slice(y, y + edge), slice(x, x + edge))
            for place, source in enumerate((row, *part.preceding[row])):
                if source >= 0:
                    patch[place] = part.pixels[source][here]
            first = self._inputs.own_frames
            for number, there in enumerate(part.accompanied[row]):
                if there:
                    patch[first + number] = part.other_channels[row, number][here]
            targets = patch[len(patch) - self._inputs.target :]
            for place, target in enumerate(part.targets(row, rng)):
                if target is not None:
                    targets[place] = part.chunk.side_inputs.brought(target[here])
            if part.chunk.side_inputs.pixel_maps is not None:
                factor, summand, excess = part.chunk.side_inputs.pixel_maps[:, *here]
                patch[:frames] = patch[:frames] * factor + summand
                patch[frames] = excess
                if not isinstance(part.chunk.side_inputs.target, Pictures):
                    targets[:] = targets * factor + summand
        return out

    def _take(self, resident: Sequence[ResidentChunk]) -> None:
        known = self._maps
        # Where nothing in memory has a target, what was there before is learned from again.
        resident = [part for part in resident if part.learned_from] or self._resident_chunks
        if not resident:
            raise TrainingDataError(
                "no two frames of the recordings show the same: something moves between all of "
                "them; name the pairs that do with --pairs, or train a method that needs none "
                "(--algorithm lattice)"
            )
        self._maps = {part: known.get(part) or _InformationMap(part) for part in resident}
        self._resident_chunks = tuple(resident)
        self._frames = np.cumsum([len(part.learned_from) for part in resident])
        self._weights = _weights(self._maps)
        totals = [one.total for one in self._maps.values()]
        self._information = np.cumsum(np.multiply(totals, self._weights))

    def somewhere(self, rng: np.random.Generator) -> tuple[ResidentChunk, int, int, int]:
        """Return where a patch is taken: chunk, row of it, and the upper left pixel."""
        height, width = self._resident_chunks[0].pixels.shape[1:]
        most_y, most_x = height - self._patch, width - self._patch
        if rng.random() < UNIFORM_SHARE or self._information[-1] <= 0:
            number, frame = _located(self._frames, int(rng.integers(self._frames[-1])))
            part = self._resident_chunks[number]
            y, x = int(rng.integers(most_y + 1)), int(rng.integers(most_x + 1))
            return part, part.learned_from[int(frame)], y, x
        number, amount = _located(self._information, rng.random() * self._information[-1])
        part = self._resident_chunks[number]
        frame, top, left = self._maps[part].cell_at(amount / self._weights[number])
        # The patch holds the cell at a random place of its own.
        y = top - int(rng.integers(self._patch - CELL + 1))
        x = left - int(rng.integers(self._patch - CELL + 1))
        return part, part.learned_from[frame], min(max(y, 0), most_y), min(max(x, 0), most_x)


def _weights(maps: Mapping[ResidentChunk, _InformationMap]) -> list[float]:
    """Return what the information of each chunk counts: of a recording's, one for each frame."""
    frames: Counter[Stack] = Counter()
    information: dict[Stack, float] = {}
    for part, of_it in maps.items():
        stack = part.chunk.stack
        frames[stack] += len(part.learned_from)
        information[stack] = information.get(stack, 0.0) + of_it.total
    stacks = [part.chunk.stack for part in maps]
    return [frames[one] / information[one] if information[one] > 0 else 1.0 for one in stacks]


def _located(cumulative: NDArray[Any], amount: float) -> tuple[int, float]:
    """Return in which part an amount falls, and how far into it."""
    number = min(int(np.searchsorted(cumulative, amount, side="right")), len(cumulative) - 1)
    return number, amount - (cumulative[number - 1] if number else 0)


class _InformationMap:
    """How much structure each cell of a chunk's frames holds, added up."""

    def __init__(self, chunk: ResidentChunk) -> None:
        cells = [information(_even(chunk, row)) for row in chunk.learned_from]
        self._rows, self._columns = cells[0].shape
        self._cumulative = np.cumsum(cells, dtype=np.float64)
        self.total = float(self._cumulative[-1])

    def cell_at(self, amount: float) -> tuple[int, int, int]:
        """Return frame, and upper left pixel, of the cell in which an amount falls."""
        cell, _ = _located(self._cumulative, amount)
        frame, place = divmod(cell, self._rows * self._columns)
        row, column = divmod(place, self._columns)
        return frame, row * CELL, column * CELL


def _even(resident: ResidentChunk, row: int) -> NDArray[Any]:
    """Return a frame without what the camera's pixels make of it: that is no structure."""
    frame: NDArray[Any] = resident.pixels[row]
    maps = resident.chunk.side_inputs.pixel_maps
    return frame if maps is None else frame * maps[0] + maps[1]


def information(frame: NDArray[Any]) -> NDArray[np.float32]:
    """Return the local contrast of a frame per cell: structure, beyond what averages out."""
    rows, columns = frame.shape[0] // CELL, frame.shape[1] // CELL
    cells = frame[: rows * CELL, : columns * CELL].astype(np.float32)
    quarters = cells.reshape(rows, 4, CELL // 4, columns, 4, CELL // 4).mean(axis=(2, 5))
    contrast: NDArray[np.float32] = quarters.std(axis=(1, 3))
    return contrast
