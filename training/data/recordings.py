"""What the network learns from: recordings that were read through once.

Owns the one pass over all frames, and the frames that are held out. What they have to be is
decided in `audit`, what stays in memory in `resident_frames`, where patches are taken in
`patches`. Units are ADU throughout.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...inference.bundle import TrainingStack
from ...inference.side_inputs import side_input_indices
from ...storage.stack import Stack
from ..errors import TrainingDataError
from ..options import InputPlanes
from .audit import fitting_patch, require_alike, require_contrast
from .patches import PatchSampler
from .pictures import BYTES, Pictures
from .pixel_statistics import PixelStatistics
from .resident_frames import (
    ChunkPlan,
    ResidentChunk,
    ResidentWindow,
    held_out_frames,
    held_out_indices,
    plan_chunks,
)
from .side_inputs import NO_SIDE_INPUTS, Sample, SideInputs
from .targets import Repeats, Truth, at_rest

HELD_OUT_EDGE = 256
HELD_OUT_FRAMES = 24
"""With their edge: a million and a half pixels, enough for statistics and small in memory."""
SAMPLE_FRAMES = 2
"""Whole: on which the exported graph is compared with PyTorch."""
PROBED_FRAMES = 8
"""Whose reading is timed before all are read."""
READING_SHARE = 0.25
"""Of a budget of time: what reading through the recordings may take."""


@dataclass(frozen=True, slots=True, eq=False)
class Recordings:
    """All frames of one training run, checked.

    Attributes
    ----------
    stacks
        What was given.
    patch
        Edge of the patches in pixels: what was asked for, or what fits.
    statistics
        Of each stack, over the frames that were read.
    pooled
        Of all stacks together.
    held_out
        Crops (1 + T + 2Z + C, Y, X) of frames that are never trained on, from all stacks alike;
        missing frames are zeros.
    samples
        The last of these frames, whole, of up to two stacks.
    window
        The frames in memory.
    sampler
        Draws patches from them.
    truths
        The clean frames of each stack, where they are learned from.
    pairs
        The file of frames that show the same, and what tells it from another; None without one.
    begun_units
        With which a run that is resumed began, as `units`; where time was short, other frames may
        have been read since.
    """

    stacks: tuple[Stack, ...]
    patch: int
    statistics: tuple[PixelStatistics, ...]
    pooled: PixelStatistics
    held_out: tuple[Sample, ...]
    samples: tuple[Sample, ...]
    window: ResidentWindow
    sampler: PatchSampler
    inputs: InputPlanes
    other_channel_statistics: tuple[PixelStatistics, ...] = ()
    truths: tuple[Stack, ...] = ()
    pairs: str | None = None
    begun_units: tuple[tuple[float, float], ...] = ()

    @property
    def resident(self) -> tuple[ResidentChunk, ...]:
        """The frames in memory now."""
        return self.window.resident

    @property
    def low_adu(self) -> float:
        """The darkest pixel."""
        return self.pooled.low_adu

    @property
    def high_adu(self) -> float:
        """The brightest pixel."""
        return self.pooled.high_adu

    @property
    def units(self) -> tuple[tuple[float, float], ...]:
        """Mean and standard deviation of the pixels, then of each other channel's, ADU."""
        other_channels = (
            (found.mean_adu, max(float(np.sqrt(found.variance_adu2)), 1e-3))
            for found in self.other_channel_statistics
        )
        own = self.pooled.mean_adu, float(np.sqrt(self.pooled.variance_adu2))
        return self.begun_units or (own, *other_channels)

    @property
    def centre_adu(self) -> float:
        """The mean of the pixels."""
        return self.units[0][0]

    @property
    def scale_adu(self) -> float:
        """Their standard deviation."""
        return self.units[0][1]

    @property
    def other_channel_units(self) -> list[tuple[float, float]]:
        """Mean and standard deviation of each other channel, ADU."""
        return list(self.units[1:])

    @property
    def plane_units(self) -> list[tuple[float, float]]:
        """Centre and scale of each plane of a patch that holds a frame it is seen with, ADU."""
        own = self.inputs.own_frames
        return [(self.centre_adu, self.scale_adu)] * own + self.other_channel_units

    @property
    def pixel_type(self) -> str:
        """The camera's."""
        return self.stacks[0].dtype.name

    @property
    def saturation_adu(self) -> float | None:
        """The brightest that a pixel of this type can be; None where nothing says."""
        dtype = self.stacks[0].dtype
        return float(np.iinfo(dtype).max) if dtype.kind == "u" else None

    @property
    def frames(self) -> int:
        """How many frames the stacks hold."""
        return sum(len(stack) - stack.absent for stack in self.stacks)

    @property
    def frames_read(self) -> int:
        """How many of these are used; fewer than all where time is short."""
        return self.pooled.frames

    @property
    def holds_out(self) -> bool:
        """Whether there are frames that are validated on and not learned from."""
        return any(held_out_indices(len(s) - s.absent).start > 0 for s in self.stacks)

    @property
    def resident_frames(self) -> int:
        """How many frames are in memory at a time."""
        return sum(len(part.pixels) for part in self.resident)

    def with_patch(self, edge: int) -> Recordings:
        """Return the same with patches of another edge, at most the one that fits the frames."""
        edge = fitting_patch(self.stacks[0], edge)
        return replace(self, patch=edge, sampler=PatchSampler(self.window, edge, self.inputs))

    def share_outside(self, low_adu: float, high_adu: float) -> float:
        """Return the share of pixels outside of a range, among the frames in memory."""
        outside = sum(
            int(((part.pixels < low_adu) | (part.pixels > high_adu)).sum())
            for part in self.resident
        )
        return outside / sum(part.pixels.size for part in self.resident)

    def provenance(self) -> tuple[TrainingStack, ...]:
        """Return what was read, with its hash."""
        return tuple(
            TrainingStack(
                path=str(stack.path),
                frames=read.frames,
                recorded_frames=len(stack) - stack.absent,
                frame_shape=stack.frame_shape,
                sha256=read.sha256,
            )
            for stack, read in zip(self.stacks, self.statistics, strict=True)
        )


def load_recordings(
    stacks: Sequence[Stack],
    *,
    context_frames: int,
    patch: int,
    memory_mib: int,
    seed: int = 0,
    worker: int = 0,
    seconds: float | None = None,
    side_inputs: Sequence[SideInputs] | None = None,
    planes: int = 0,
) -> Recordings:
    """Read the stacks through once, keeping what fits into memory.

    Parameters
    ----------
    stacks
        Recordings of one camera setting.
    context_frames
        T preceding frames.
    patch
        Edge of the patches, pixels.
    memory_mib
        Frames in memory. A window over longer recordings moves while training goes on.
    seed, worker
        Of the order in which it moves; workers that train together see different frames.
    seconds
        The budget of the run. If reading everything would take a quarter of it or more, evenly
        spread chunks are used instead.
    side_inputs
        What each stack is seen together with; by default nothing.
    planes
        Z neighbouring planes on either side.

    Raises
    ------
    TrainingDataError
        If they are of mixed shapes or types, constant, saturated, or smaller than a patch.
    """
    require_alike(stacks)
    patch = fitting_patch(stacks[0], patch)
    known = dict(zip(stacks, side_inputs or [NO_SIDE_INPUTS] * len(stacks), strict=True))
    first = known[stacks[0]]
    inputs = InputPlanes(
        context_frames,
        len(first.other_channels),
        pixel_maps=first.pixel_maps is not None,
        target=first.target_planes,
        planes=planes,
    )
    plan = plan_chunks(
        stacks,
        context_frames=context_frames,
        memory_bytes=int(
            memory_mib * 2**20 / (1 + inputs.other_channels + _target_share(stacks[0], first))
        ),
        planes=planes,
    )
    plan = replace(plan, chunks=tuple(replace(s, side_inputs=known[s.stack]) for s in plan.chunks))
    if plan.streams and seconds is not None:
        plan = _thinned(plan, READING_SHARE * seconds)
    window = ResidentWindow(plan, context_frames, (seed, worker), planes)
    one_pass = _OnePass(known, planes)
    for part in window.resident:
        one_pass.fill(part)
    crops = _held_out_crops(one_pass, stacks, context_frames, np.random.default_rng(seed))
    samples = _samples(one_pass, stacks, context_frames)
    statistics, of_other_channels = one_pass.run(plan)
    held_out = _with_targets(crops, known)
    pooled = reduce(PixelStatistics.pooled_with, statistics)
    require_contrast(stacks[0], pooled)
    window.start_reading()
    return Recordings(
        stacks=tuple(stacks),
        patch=patch,
        statistics=statistics,
        pooled=pooled,
        held_out=held_out,
        samples=samples,
        window=window,
        sampler=PatchSampler(window, patch, inputs),
        inputs=inputs,
        other_channel_statistics=of_other_channels,
        truths=tuple(s.target.stack for s in known.values() if isinstance(s.target, Truth)),
    )


def _target_share(stack: Stack, side_inputs: SideInputs) -> float:
    """Return the size of a frame's target relative to the frame; of one for all, nothing."""
    truth = side_inputs.target
    if isinstance(truth, Pictures):
        return BYTES / stack.dtype.itemsize
    if not isinstance(truth, Truth) or len(truth.stack) == 1:
        return 0.0
    return truth.stack.dtype.itemsize / stack.dtype.itemsize


def _thinned(plan: ChunkPlan, seconds: float) -> ChunkPlan:
    """Keep evenly spread chunks that can be read in `seconds`; all of them if they can."""
    probe = plan.chunks[len(plan.chunks) // 2]
    started = time.perf_counter()
    probed = PixelStatistics()
    for index in probe.indices[:PROBED_FRAMES]:
        probed.add(probe.stack.frame(int(index)))
    per_frame = (time.perf_counter() - started) / probed.frames
    frames = sum(len(s.indices) * (1 + len(s.side_inputs.other_channels)) for s in plan.chunks)
    share = seconds / (per_frame * frames)
    if share >= 1:
        return plan
    count = max(plan.resident, int(share * len(plan.chunks)))
    kept = np.linspace(0, len(plan.chunks) - 1, count).astype(int)
    return replace(plan, chunks=tuple(plan.chunks[i] for i in kept), thinned=True)


Crop = tuple[slice, slice]
WHOLE: Crop = (slice(None), slice(None))


class _OnePass:
    """Reads each frame once, in order, and puts it wherever it is wanted."""

    def __init__(self, side_inputs: Mapping[Stack, SideInputs], planes: int) -> None:
        self._side_inputs = side_inputs
        self._planes = planes
        self._wanted: dict[tuple[Stack, int], list[tuple[NDArray[Any], Crop]]] = {}

    def want(self, stack: Stack, index: int, into: NDArray[Any], crop: Crop = WHOLE) -> None:
        """Let frame `index` be put into an array."""
        self._wanted.setdefault((stack, index), []).append((into, crop))

    def fill(self, chunk: ResidentChunk) -> None:
        """Let a chunk be filled."""
        for stack, index, into in chunk.wanted():
            self.want(stack, index, into)

    def observations(
        self, stack: Stack, index: int, context_frames: int, crop: Crop = WHOLE
    ) -> Sample:
        """Return what will be frame `index` and what is seen with it; zeros are missing."""
        shape = np.empty(stack.frame_shape, dtype=bool)[crop].shape
        side_inputs = self._side_inputs[stack]
        further = side_input_indices(stack, index, context_frames, planes=self._planes)
        sources = [(stack, i) for i in (index, *further)]
        sources += [(other.stack, other.index(index)) for other in side_inputs.other_channels]
        out = np.zeros((len(sources), *shape), dtype=stack.dtype)
        for row, (source, there) in enumerate(sources):
            if there is not None:
                self.want(source, there, out[row], crop)
        maps = side_inputs.pixel_maps
        return Sample(
            out,
            None if maps is None else maps[:, crop[0], crop[1]],
            self._target(stack, index, context_frames, crop),
            (stack, index, crop),
        )

    def with_target(
        self, stack: Stack, indices: NDArray[np.intp], context_frames: int
    ) -> Sequence[int]:
        """Return those of some frames that have a target, of all frames if none of them has."""
        target = self._side_inputs[stack].target
        if target is None or isinstance(target, Pictures):
            return [int(index) for index in indices]
        for these in (indices, stack.present_indices):
            found = [
                int(index)
                for index in these
                if (
                    target.candidates(stack, int(index), context_frames)
                    if isinstance(target, Repeats)
                    else target.place(stack.axes(int(index))) is not None
                )
            ]
            if found:
                return found
        raise TrainingDataError(
            f"{stack.path}: no frame has another of the same scene ({stack.frames_there} along "
            f"{dict(stack.sizes)}); give repeats along time, or train a method that needs none "
            "(--algorithm lattice)"
        )

    def _target(
        self, stack: Stack, index: int, context_frames: int, crop: Crop
    ) -> NDArray[Any] | None:
        """Return what will be the target of frame `index`; None if it has none."""
        target = self._side_inputs[stack].target
        source, there = stack, None
        if isinstance(target, Truth):
            source, there = target.stack, target.place(stack.axes(index))
        if isinstance(target, Repeats):
            there = next(iter(target.candidates(stack, index, context_frames)), None)
        if there is None:
            return None
        out = np.zeros(np.empty(stack.frame_shape, dtype=bool)[crop].shape, source.dtype)
        self.want(source, there, out, crop)
        return out

    def run(
        self, plan: ChunkPlan
    ) -> tuple[tuple[PixelStatistics, ...], tuple[PixelStatistics, ...]]:
        """Read; return the statistics of each stack, and of each other channel over all."""
        stacks = [
            *self._side_inputs,
            *(c.stack for b in self._side_inputs.values() for c in b.other_channels),
        ]
        found = []
        for stack in stacks:
            statistics = PixelStatistics()
            for index in self._indices(stack, plan):
                frame = stack.frame(index)
                statistics.add(frame)
                for into, crop in self._wanted.get((stack, index), ()):
                    into[...] = frame[crop]
            found.append(statistics)
        for stack in {wanting for wanting, _ in self._wanted} - set(stacks):  # the truths
            for (wanting, index), places in self._wanted.items():
                if wanting is stack:
                    frame = stack.frame(index)
                    for into, crop in places:
                        into[...] = frame[crop]
        own, others = found[: len(self._side_inputs)], found[len(self._side_inputs) :]
        count = len(others) // len(own)
        pooled = [reduce(PixelStatistics.pooled_with, others[k::count]) for k in range(count)]
        return tuple(own), tuple(pooled)

    def _indices(self, stack: Stack, plan: ChunkPlan) -> Sequence[int]:
        if not plan.thinned:
            return [int(index) for index in stack.present_indices]
        used = {index for wanting, index in self._wanted if wanting is stack}
        for chunk in plan.chunks:
            if chunk.stack is stack:
                used.update(chunk.indices.tolist())
            for other in chunk.side_inputs.other_channels:
                if other.stack is stack:
                    there = (other.index(int(index)) for index in chunk.indices)
                    used.update(index for index in there if index is not None)
        return sorted(used)


def _held_out_crops(
    reading: _OnePass, stacks: Sequence[Stack], context_frames: int, rng: np.random.Generator
) -> list[tuple[Stack, Sample]]:
    """Return what will be the held-out samples, each with the stack it is of."""
    places = [
        (stack, int(index))
        for stack in stacks
        for index in reading.with_target(stack, held_out_frames(stack), context_frames)
    ]
    chosen = np.linspace(0, len(places) - 1, min(HELD_OUT_FRAMES, len(places))).round().astype(int)
    return [
        (stack, reading.observations(stack, index, context_frames, _crop(stack, rng)))
        for stack, index in (places[i] for i in chosen)
    ]


def _with_targets(
    samples: Sequence[tuple[Stack, Sample]], known: Mapping[Stack, SideInputs]
) -> tuple[Sample, ...]:
    """Return samples that were read, without those whose target shows something else."""
    found = []
    for stack, sample in samples:
        side_inputs = known[stack]
        if sample.target is None:
            found.append(sample)
            continue
        repeats = side_inputs.target
        tested = isinstance(repeats, Repeats) and repeats.tested
        if not tested or at_rest(sample.observations[0], sample.target):
            found.append(replace(sample, target=side_inputs.brought(sample.target)))
    return tuple(found) or tuple(
        # A curve of losses that motion raises a little is better than none.
        sample
        for _, sample in samples
    )


def _crop(stack: Stack, rng: np.random.Generator) -> Crop:
    # Anywhere in the frame: its corner is darker than its middle.
    starts = [int(rng.integers(max(0, edge - HELD_OUT_EDGE) + 1)) for edge in stack.frame_shape]
    return slice(starts[0], starts[0] + HELD_OUT_EDGE), slice(starts[1], starts[1] + HELD_OUT_EDGE)


def _samples(
    reading: _OnePass, stacks: Sequence[Stack], context_frames: int
) -> tuple[Sample, ...]:
    return tuple(
        reading.observations(stack, int(held_out_frames(stack)[-1]), context_frames)
        for stack in stacks[:SAMPLE_FRAMES]
    )
