"""What was before and after a frame: means over longer and longer times, on both sides of it.

Owns which frames these are, and their patches. The frame itself is never among them, nor are the
frames before it that the student will see: what is taught must not share its noise.

A frame's neighbours in time are taken singly, then two, four, eight and sixteen at a time, so that
a dozen planes reach over 32 frames on either side: what rests is known from all of them, what
moves from the nearest. Of a recording without time points the planes of the z-stack are taken so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ...storage.stack import Stack
from ..data.patches import PatchSampler
from ..data.recordings import Recordings
from ..data.resident_frames import ResidentChunk, ResidentWindow
from ..data.side_inputs import Sample
from ..options import InputPlanes

WINDOWS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32))
"""First and last frame of each mean, counted from the first that may be seen."""
COUNTS = tuple(last - first + 1 for first, last in WINDOWS) * 2
LEAST_SHARE = 0.5
"""Of a window's frames: a mean of fewer would be taken for less noisy than it is."""
_UINT32 = 2**32


@dataclass(frozen=True, slots=True)
class Reach:
    """Along which axis a stack's frames follow each other, and which of them are hidden.

    Attributes
    ----------
    axis
        `time`, or `z` where there is but one time point; None where there is nothing around.
    before, after
        How many of the nearest frames on either side are hidden.
    """

    axis: str | None
    before: int = 0
    after: int = 0

    @classmethod
    def of(cls, stack: Stack, inputs: InputPlanes) -> Reach:
        """Return that of a student's stack: what the student sees stays hidden."""
        if stack.sizes.get("time", 1) > 1:
            return cls("time", before=inputs.context_frames)
        if stack.sizes.get("z", 1) > 1:
            return cls("z", before=inputs.planes, after=inputs.planes)
        return cls(None)

    def windows(self, place: int, length: int) -> list[tuple[int, int]]:
        """Return each mean's frames as (start, stop) of a series; start = stop where too few are.

        Those after the frame come first, nearest first.
        """
        found = []
        for first, last in WINDOWS:
            found.append((place + self.after + first, place + self.after + last + 1))
        for first, last in WINDOWS:
            found.append((place - self.before - last, place - self.before - first + 1))
        return [self._within(start, stop, length) for start, stop in found]

    @staticmethod
    def _within(start: int, stop: int, length: int) -> tuple[int, int]:
        wanted = stop - start
        start, stop = max(start, 0), min(stop, length)
        return (start, stop) if stop - start >= LEAST_SHARE * wanted else (0, 0)

    def series(self, stack: Stack, indices: Sequence[int]) -> list[list[int]]:
        """Return the frames of each position (and plane) in their order, of those given."""
        found: dict[tuple[tuple[str, int], ...], list[int]] = {}
        for index in sorted(indices):
            axes = stack.axes(index)
            others = tuple((name, n) for name, n in axes.items() if name != self.axis)
            found.setdefault(others, []).append(index)
        return list(found.values())


class Surroundings:
    """What was around each frame of a chunk in memory.

    Parameters
    ----------
    chunk
        Read.
    reach
        Of its stack.
    """

    def __init__(self, chunk: ResidentChunk, reach: Reach) -> None:
        row_of = {int(index): row for row, index in enumerate(chunk.chunk.indices)}
        series = reach.series(chunk.chunk.stack, list(row_of))
        order = [row_of[index] for one in series for index in one]
        self._sums = _running_sums(chunk.pixels, order)
        self._windows: dict[int, list[tuple[int, int]]] = {}
        start = 0
        for one in series:
            for place, index in enumerate(one):
                self._windows[row_of[index]] = [
                    (start + a, start + b) if b > a else (0, 0)
                    for a, b in reach.windows(place, len(one))
                ]
            start += len(one)

    def has_any(self, row: int) -> bool:
        """Whether there is anything around the frame of a row."""
        return any(stop > start for start, stop in self._windows[row])

    def planes(self, row: int, here: tuple[slice, slice]) -> NDArray[np.float32]:
        """Return the means (A, y, x) around a part of a frame, ADU; NaN where there is none."""
        windows = self._windows[row]
        found = [
            (self._sums[stop][here] - self._sums[start][here]) / np.float32(stop - start)
            if stop > start
            else None
            for start, stop in windows
        ]
        shape = self._sums[0][here].shape
        return np.stack(
            [np.full(shape, np.nan) if plane is None else plane for plane in found]
        ).astype(np.float32)


def _running_sums(pixels: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """Return the sums (N + 1, Y, X) of the first n rows in an order, exact for whole numbers."""
    whole = pixels.dtype.kind == "u" and len(order) * int(np.iinfo(pixels.dtype).max) < _UINT32
    sums = np.zeros((len(order) + 1, *pixels.shape[1:]), np.uint32 if whole else np.float64)
    for place, row in enumerate(order):
        np.add(sums[place], pixels[row], out=sums[place + 1])
    return sums


class SurroundingsSampler(PatchSampler):
    """Draws patches of frames and of what was around them.

    Parameters
    ----------
    window, patch, inputs
        As of `PatchSampler`; `inputs` are the teacher's.
    student
        What the student is given.
    """

    def __init__(
        self, window: ResidentWindow, patch: int, inputs: InputPlanes, student: InputPlanes
    ) -> None:
        self._edge, self._planes, self._student = patch, inputs, student
        self._known: WeakKeyDictionary[ResidentChunk, Surroundings] = WeakKeyDictionary()
        super().__init__(window, patch, inputs)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return `count` patches (count, planes, P, P), ADU; what is missing is NaN.

        The planes are the frame, the means around it, and how noisy each pixel is.
        """
        edge = self._edge
        out = np.empty((count, 1 + self._planes.further, edge, edge), np.float32)
        for patch in out:
            part, row, y, x = self.somewhere(rng)
            here = (slice(y, y + edge), slice(x, x + edge))
            patch[0] = part.pixels[row][here]
            patch[1 : self._planes.frames] = self._around(part).planes(row, here)
            maps = part.chunk.side_inputs.pixel_maps
            if maps is not None:
                factor, summand, excess = maps[:, *here]
                patch[: self._planes.frames] *= factor
                patch[: self._planes.frames] += summand
                patch[self._planes.frames] = excess
        return out

    def let_go(self) -> None:
        """Hold no frames, and nothing that was computed of them."""
        super().let_go()
        self._known.clear()

    def _around(self, part: ResidentChunk) -> Surroundings:
        if part not in self._known:
            self._known[part] = Surroundings(part, Reach.of(part.chunk.stack, self._student))
        return self._known[part]


def with_surroundings(recordings: Recordings) -> Recordings:
    """Return the recordings as the teacher sees them."""
    student = recordings.inputs
    inputs = InputPlanes(around=len(COUNTS), pixel_maps=student.pixel_maps)
    reader = _Around(student)
    return replace(
        recordings,
        inputs=inputs,
        sampler=SurroundingsSampler(recordings.window, recordings.patch, inputs, student),
        held_out=tuple(map(reader.sample, recordings.held_out)),
        samples=(),  # of use to what is exported, which a teacher is not
        other_channel_statistics=(),
        begun_units=recordings.units[:1],
    )


class _Around:
    """Reads what was around held-out frames, each frame of a stack once in a while."""

    def __init__(self, student: InputPlanes) -> None:
        self._student = student
        self._series: dict[Stack, dict[int, tuple[list[int], int]]] = {}

    def sample(self, sample: Sample) -> Sample:
        """Return a sample of the frame and what was around it; zeros are missing."""
        if sample.origin is None:
            raise ValueError("a held-out frame has to say which it is")
        stack, index, crop = sample.origin
        reach = Reach.of(stack, self._student)
        series, place = self._places(stack, reach)[index]
        newest = sample.observations[:1].astype(np.float32)
        planes = [newest[0]]
        for start, stop in reach.windows(place, len(series)):
            frames = (stack.frame(series[i])[crop].astype(np.float32) for i in range(start, stop))
            planes.append(sum(frames, np.zeros_like(newest[0])) / max(stop - start, 1))
        return replace(sample, observations=np.stack(planes), target=None)

    def _places(self, stack: Stack, reach: Reach) -> dict[int, tuple[list[int], int]]:
        if stack not in self._series:
            indices = [int(index) for index in stack.present_indices]
            self._series[stack] = {
                index: (one, place)
                for one in reach.series(stack, indices)
                for place, index in enumerate(one)
            }
        return self._series[stack]
