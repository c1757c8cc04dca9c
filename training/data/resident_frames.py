"""The frames that are in memory, and which of a long recording they are at each step.

Owns the cutting of recordings into chunks, the reading of chunks in the background, and the
bounded set of them that is resident. Which patches are taken from it is decided in `patches`.

A recording that fits into memory is one chunk that stays. Of a longer one a window of chunks
is resident, and moves along a sequence that visits all of them, in an order drawn from the seed,
then all of them again. Where the window stands is a function of the step alone, so a run
that was killed goes on with the very frames it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...inference.side_inputs import side_input_indices
from ...storage.stack import Stack
from ..errors import TrainingDataError
from .pictures import BYTES, Pictures
from .side_inputs import NO_SIDE_INPUTS, SideInputs
from .targets import Repeats, Truth, at_rest

HELD_OUT_SHARE = 0.1
FEW_FRAMES = 4
LONGEST_CHUNK = 32
WANTED_CHUNKS = 9
"""Among which memory is divided, one of them being read: many, so that frames differ."""
VISITED_AT = 0.9
"""Share of a run after which every frame was resident: what comes last still has to be learned."""


def held_out_indices(count: int) -> range:
    """Return which of `count` frames are never trained on: the last tenth.

    Of very few frames none can be spared: then all are trained on and all are validated on, which
    a network that cannot see its target stands far better than others.
    """
    held = max(1, round(HELD_OUT_SHARE * count)) if count >= FEW_FRAMES else count
    return range(count - held, count)


def held_out_frames(stack: Stack) -> NDArray[np.intp]:
    """Return which of a stack's frames are never trained on; absent frames are not counted."""
    there = stack.present_indices
    return there[held_out_indices(len(there))]


def _training_frames(stack: Stack) -> NDArray[np.intp]:
    there = stack.present_indices
    return there[: held_out_indices(len(there)).start or len(there)]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Frames of one stack that are read together.

    Attributes
    ----------
    stack
        Where they are.
    indices
        Which frames of the stack, in order of time.
    lead
        How many of them, at the start, only serve as context.
    side_inputs
        What they are seen together with.
    """

    stack: Stack
    indices: NDArray[np.int64]
    lead: int = 0
    side_inputs: SideInputs = NO_SIDE_INPUTS

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        frames = len(self.indices) * (1 + len(self.side_inputs.other_channels))
        truth = self.side_inputs.target
        true_bytes = truth.bytes_for(len(self.indices)) if isinstance(truth, Truth) else 0
        if isinstance(truth, Pictures):
            true_bytes = BYTES * len(self.indices) * prod(self.stack.frame_shape)
        return frames * frame_bytes(self.stack) + true_bytes


def frame_bytes(stack: Stack) -> int:
    """Return the size of one frame in memory."""
    return stack.bytes // len(stack)


class ResidentChunk:
    """A chunk in memory.

    Attributes
    ----------
    chunk
        Which.
    pixels
        (N, Y, X) in the camera's type.
    preceding
        (N, T + 2Z) rows of `pixels` that came before each frame, newest first, and of the planes
        on either side; −1 where missing.
    other_channels
        (N, C, Y, X) frames of the other channels.
    accompanied
        (N, C) whether there is such a frame.
    truths
        (M, Y, X) true frames; `truth_of` (N,) says which of them belongs to a frame, −1 for none.
    pictures
        (N, 2, Y, X) a teacher's pictures of the frames; `pictured` (N,) says which there are.
        Empty before the teacher has learned.
    """

    def __init__(self, chunk: Chunk, context_frames: int, planes: int = 0) -> None:
        stack = chunk.stack
        self.chunk = chunk
        self._context_frames = context_frames
        self._known: dict[tuple[int, int], bool] = {}
        self.pixels: NDArray[Any] = np.empty(
            (len(chunk.indices), *stack.frame_shape), dtype=stack.dtype
        )
        further = context_frames + 2 * planes
        self.preceding = np.full((len(self.pixels), further), -1, dtype=np.int64)
        row_of = {int(index): row for row, index in enumerate(chunk.indices)}
        for index, row in row_of.items():
            beside = side_input_indices(stack, index, context_frames, planes=planes)
            for place, earlier in enumerate(beside):
                if earlier is not None:
                    self.preceding[row, place] = row_of.get(earlier, -1)
        others = chunk.side_inputs.other_channels
        self.other_channels: NDArray[Any] = np.zeros(
            (len(self.pixels), len(others), *stack.frame_shape), dtype=stack.dtype
        )
        self.accompanied = np.zeros(self.other_channels.shape[:2], dtype=bool)
        self.truths, self.truth_of, self._truths_wanted = _truths(chunk)
        self.pictures: NDArray[np.float32] = np.empty((0, 2, *stack.frame_shape), np.float32)
        self.pictured = np.zeros(len(self.pixels), dtype=np.bool_)

    @cached_property
    def learned_from(self) -> list[int]:
        """The rows to learn from: all that have a target where there are targets."""
        rows = range(self.chunk.lead, len(self.pixels))
        target = self.chunk.side_inputs.target
        if isinstance(target, Truth):
            return [row for row in rows if self.truth_of[row] >= 0]
        if isinstance(target, Repeats):
            return [row for row in rows if self._has_partner(row, target)]
        if isinstance(target, Pictures) and len(self.pictures):
            return [row for row in rows if self.pictured[row]]
        return list(rows)

    def targets(self, row: int, rng: np.random.Generator) -> Sequence[NDArray[Any] | None]:
        """Return what is to be predicted of a row, (Y, X) ADU each; none if its own pixels are."""
        target = self.chunk.side_inputs.target
        if isinstance(target, Truth):
            return [self.truths[self.truth_of[row]]]
        if isinstance(target, Repeats):
            candidates = self._candidates(row, target)
            order = (candidates[place] for place in rng.permutation(len(candidates)))
            partner = next(other for other in order if self._alike(row, other, target))
            return [self.pixels[partner]]
        return target.targets(self, row) if isinstance(target, Pictures) else []

    def learn_pictures(self) -> None:
        """Have the frames painted by the teacher, if there is one and it has learned."""
        target = self.chunk.side_inputs.target
        if isinstance(target, Pictures) and target.paint is not None:
            self.pictures, self.pictured = target.paint(self)
            self.__dict__.pop("learned_from", None)

    def _has_partner(self, row: int, repeats: Repeats) -> bool:
        return any(self._alike(row, r, repeats) for r in self._candidates(row, repeats))

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {index: row for row, index in enumerate(self.chunk.indices.tolist())}

    def _candidates(self, row: int, repeats: Repeats) -> list[int]:
        """Return the rows that may show what a row shows."""
        index = int(self.chunk.indices[row])
        named = repeats.candidates(self.chunk.stack, index, self._context_frames)
        return [self._row_of[other] for other in named if other in self._row_of]

    def _alike(self, row: int, other: int, repeats: Repeats) -> bool:
        """Whether two rows show the same; tested when it is first asked."""
        pair = (min(row, other), max(row, other))
        if pair not in self._known:
            self._known[pair] = not repeats.tested or at_rest(*(self.pixels[r] for r in pair))
        return self._known[pair]

    def read(self) -> ResidentChunk:
        """Read the pixels from the stack; return itself."""
        for stack, index, into in self.wanted():
            into[...] = stack.frame(index)
        self.learn_pictures()
        _ = self.learned_from  # here, where nobody waits for it
        return self

    def wanted(self) -> Iterator[tuple[Stack, int, NDArray[Any]]]:
        """Yield which frame of which stack has to be put where."""
        for row, index in enumerate(self.chunk.indices):
            yield self.chunk.stack, int(index), self.pixels[row]
            for place, other in enumerate(self.chunk.side_inputs.other_channels):
                there = other.index(int(index))
                self.accompanied[row, place] = there is not None
                if there is not None:
                    yield other.stack, there, self.other_channels[row, place]
        for truth, index, row in self._truths_wanted:
            yield truth, index, self.truths[row]


def _truths(chunk: Chunk) -> tuple[NDArray[Any], NDArray[np.int64], list[tuple[Stack, int, int]]]:
    """Return room for the true frames of a chunk, which belongs to which row, and what to read.

    One true frame of many repeats is held once.
    """
    truth = chunk.side_inputs.target
    truth_of = np.full(len(chunk.indices), -1, dtype=np.int64)
    if not isinstance(truth, Truth):
        return np.empty((0, *chunk.stack.frame_shape), np.float32), truth_of, []
    places: dict[int, int] = {}
    for row, index in enumerate(chunk.indices.tolist()):
        place = truth.place(chunk.stack.axes(index))
        if place is not None:
            truth_of[row] = places.setdefault(place, len(places))
    room = np.empty((len(places), *chunk.stack.frame_shape), truth.stack.dtype)
    return room, truth_of, [(truth.stack, place, row) for place, row in places.items()]


@dataclass(frozen=True, slots=True, eq=False)
class ChunkPlan:
    """How recordings are cut to fit into memory.

    Attributes
    ----------
    chunks
        All there are.
    resident
        How many are in memory at a time; one more is being read where that is not all of them.
    thinned
        Whether chunks were left out because reading them would take too long.
    """

    chunks: tuple[Chunk, ...]
    resident: int
    thinned: bool = False

    @property
    def streams(self) -> bool:
        """Whether the recordings exceed the memory."""
        return self.resident < len(self.chunks)


def plan_chunks(
    stacks: Sequence[Stack], *, context_frames: int, memory_bytes: int, planes: int = 0
) -> ChunkPlan:
    """Cut what may be trained on into chunks that fit into memory.

    With `planes` the planes of a time point stay together, as far as they fit.

    Raises
    ------
    TrainingDataError
        If not even two of the shortest chunks fit.
    """
    trained = [_training_frames(stack) for stack in stacks]
    needed = sum(
        len(frames) * frame_bytes(stack) for stack, frames in zip(stacks, trained, strict=True)
    )
    if needed <= memory_bytes:
        whole = [Chunk(stack, frames) for stack, frames in zip(stacks, trained, strict=True)]
        return ChunkPlan(tuple(whole), len(whole))
    if planes:  # what came before lies whole z-stacks back
        context_frames *= stacks[0].sizes.get("z", 1)
    capacity = memory_bytes // frame_bytes(stacks[0])
    length = _chunk_length(capacity, context_frames)
    resident = capacity // (length + context_frames) - 1
    if resident < 1:
        least = -(-2 * (1 + context_frames) * frame_bytes(stacks[0]) // 2**20)
        height, width = stacks[0].frame_shape
        raise TrainingDataError(
            f"{stacks[0].path}: frames of {height}×{width} pixels with {context_frames} before "
            f"them do not fit into {memory_bytes / 2**20:.0f} MiB; give at least "
            f"--memory-mib {least}"
        )
    cut = tuple(s for stack in stacks for s in _cut(stack, context_frames, length, planes))
    return ChunkPlan(cut, min(resident, len(cut)))


def _chunk_length(capacity: int, context_frames: int) -> int:
    """Return how many frames to learn from a chunk has, without those that lead in."""
    fair = capacity // WANTED_CHUNKS - context_frames
    # Where memory is short, fewer chunks rather than chunks that are nearly all lead-in.
    least = max(1, min(context_frames + 2, capacity // 3 - context_frames))
    return min(max(fair, least), LONGEST_CHUNK)


def _cut(stack: Stack, context_frames: int, length: int, planes: int) -> Iterator[Chunk]:
    for series in _series(stack, context_frames, planes):
        for start in range(0, len(series), length):
            lead = min(context_frames, start)
            yield Chunk(stack, series[start - lead : start + length], lead)


def _series(stack: Stack, context_frames: int, planes: int) -> Iterator[NDArray[np.int64]]:
    """Return the frames to train on: one array per plane and position where time matters.

    Where planes matter, they follow each other within a time point.
    """
    indices = np.arange(len(stack)).reshape(tuple(stack.sizes.values()))
    if planes and "z" in stack.sizes:
        last = [name for name in ("time", "z") if name in stack.sizes]
        places = [list(stack.sizes).index(name) for name in last]
        rows = np.moveaxis(indices, places, range(-len(last), 0))
        rows = rows.reshape(-1, prod(stack.sizes[name] for name in last))
    elif context_frames and "time" in stack.sizes:
        time = list(stack.sizes).index("time")
        rows = np.moveaxis(indices, time, -1).reshape(-1, stack.sizes["time"])
    else:
        rows = indices.reshape(1, -1)
    trained = np.zeros(len(stack), dtype=np.bool_)
    trained[_training_frames(stack)] = True
    yield from (training for row in rows if len(training := row[trained[row]]))


class ResidentWindow:
    """The chunks that are resident, of a sequence that visits all of them again and again.

    Parameters
    ----------
    plan
        The chunks, and how many may be resident.
    context_frames
        T preceding frames of each.
    seed
        Of the order.
    planes
        Z neighbouring planes on either side.
    """

    def __init__(
        self, plan: ChunkPlan, context_frames: int, seed: Sequence[int], planes: int = 0
    ) -> None:
        self._plan = plan
        self._context_frames, self._planes = context_frames, planes
        self._seed = tuple(seed)
        self._start = 0
        self._ahead: tuple[int, Future[ResidentChunk]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="chunks")
        self._resident = self._first()

    @property
    def resident(self) -> tuple[ResidentChunk, ...]:
        """What is resident now. At first unread: whoever reads the recordings fills it."""
        return tuple(self._resident.values())

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """All that are resident at one time or another."""
        return self._plan.chunks

    def place(self, drawn_bytes: int, progress: float) -> int:
        """Return where the window should stand.

        Parameters
        ----------
        drawn_bytes
            Size of the pixels that were drawn so far.
        progress
            Share of the run.
        """
        unseen = len(self._plan.chunks) - self._plan.resident
        if unseen <= 0:
            return 0
        # Once through everything in this run; and as many pixels are read as are learned from.
        largest = max(chunk.nbytes for chunk in self._plan.chunks)
        once = int(unseen * min(progress / VISITED_AT, 1.0))
        return max(once, drawn_bytes // largest)

    def move(self, place: int, *, wait: bool) -> bool:
        """Let the window stand at `place`; return whether anything changed.

        Parameters
        ----------
        place
            Where.
        wait
            Read whatever is missing, however long that takes. Otherwise go one further if the
            next chunk has been read, and leave things as they are if not.
        """
        if not wait:
            place = min(place, self._start + self._is_ready())
        if place <= self._start:
            return False
        self._start = place
        last = place + self._plan.resident
        for old in [old for old in self._resident if old < place]:
            del self._resident[old]
        for missing in range(place, last):
            if missing not in self._resident:
                self._resident[missing] = self._read(missing)
        self._read_ahead(last)
        return True

    def rewind(self) -> None:
        """Stand where every window begins, with the frames read anew where it has moved on."""
        if not self._plan.streams:
            return
        if self._ahead is not None:
            self._ahead[1].cancel()
        self._start, self._ahead = 0, None
        self._resident.clear()  # before others take their room
        self._resident.update(self._first())
        for part in self.resident:
            for stack, index, into in part.wanted():
                into[...] = stack.frame(index)
        self.start_reading()

    def start_reading(self) -> None:
        """Begin to read the chunk that comes next."""
        if self._plan.streams:
            self._read_ahead(self._start + self._plan.resident)

    def _chunk(self, place: int) -> Chunk:
        count = len(self._plan.chunks)
        turn, place = divmod(place, count)
        if not self._plan.streams:
            return self._plan.chunks[place]
        order = np.random.default_rng([*self._seed, turn]).permutation(count)
        return self._plan.chunks[int(order[place])]

    def _first(self) -> dict[int, ResidentChunk]:
        return {place: self._unread(place) for place in range(self._plan.resident)}

    def _unread(self, place: int) -> ResidentChunk:
        return ResidentChunk(self._chunk(place), self._context_frames, self._planes)

    def _is_ready(self) -> bool:
        return self._ahead is not None and self._ahead[1].done()

    def _read_ahead(self, place: int) -> None:
        unread = self._unread(place)
        self._ahead = (place, self._reader.submit(unread.read))

    def _read(self, place: int) -> ResidentChunk:
        if self._ahead is not None:
            ahead, future = self._ahead
            self._ahead = None
            found = future.result()
            if ahead == place:
                return found
        return self._unread(place).read()
