"""What a teacher is shown: means of what was before and after, nothing of what stays hidden."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.data.recordings import load_recordings
from quietscope.training.data.resident_frames import Chunk, ResidentChunk
from quietscope.training.options import InputPlanes
from quietscope.training.teaching.surroundings import (
    COUNTS,
    WINDOWS,
    Reach,
    Surroundings,
    with_surroundings,
)

WHOLE = (slice(None), slice(None))


def numbered(count: int, **axes: int) -> Stack:
    """Return frames whose every pixel is their number."""
    shape = tuple(axes.values()) or (count,)
    pixels = np.arange(count, dtype=np.uint16).reshape(*shape, 1, 1)
    return stack_from_array(
        np.broadcast_to(pixels, (*shape, 4, 5)).copy(), axes=tuple(axes or ["time"])
    )


def around(stack: Stack, inputs: InputPlanes) -> Surroundings:
    chunk = ResidentChunk(Chunk(stack, np.arange(len(stack))), inputs.context_frames).read()
    return Surroundings(chunk, Reach.of(stack, inputs))


def test_means_are_of_the_frames_that_they_are_said_to_be_of():
    planes = around(numbered(80), InputPlanes()).planes(40, WHOLE)[:, 2, 3]
    after = [np.mean([40 + n for n in range(first, last + 1)]) for first, last in WINDOWS]
    before = [np.mean([40 - n for n in range(first, last + 1)]) for first, last in WINDOWS]
    np.testing.assert_allclose(planes, after + before)
    assert len(planes) == len(COUNTS)


def test_at_an_end_there_is_one_side_alone_and_no_mean_of_a_few():
    planes = around(numbered(8), InputPlanes()).planes(0, WHOLE)[:, 0, 0]
    half = len(WINDOWS)
    np.testing.assert_allclose(planes[:4], [1, 2, 3.5, 6])  # of the fourth, three of four frames
    assert np.isnan(planes[4:]).all()
    assert np.isnan(around(numbered(8), InputPlanes()).planes(7, WHOLE)[:half]).all()


@pytest.mark.parametrize("context", [0, 3])
def test_neither_the_frame_nor_what_the_student_sees_is_shown(context):
    """Whatever these frames hold, the planes are the same."""
    inputs = InputPlanes(context_frames=context)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 60_000, (30, 4, 5), dtype=np.uint16)
    other = frames.copy()
    other[20 - context : 21] = rng.integers(0, 60_000, (context + 1, 4, 5))
    one, two = (around(stack_from_array(f), inputs).planes(20, WHOLE) for f in (frames, other))
    np.testing.assert_array_equal(one, two)
    changed = frames.copy()
    changed[19 - context] += 1
    three = around(stack_from_array(changed), inputs).planes(20, WHOLE)
    assert not np.array_equal(one, three, equal_nan=True)


def test_positions_are_not_mixed_and_of_a_z_stack_planes_are_taken():
    stack = numbered(12, position=2, time=6)
    planes = around(stack, InputPlanes()).planes(6, WHOLE)[:, 0, 0]  # the first of the second
    np.testing.assert_allclose(planes[:2], [7, 8])
    assert np.isnan(planes[len(WINDOWS) :]).all()
    deep = numbered(9, z=9)
    reach = Reach.of(deep, InputPlanes(planes=2))
    assert (reach.axis, reach.before, reach.after) == ("z", 2, 2)
    planes = around(deep, InputPlanes(planes=2)).planes(4, WHOLE)[:, 0, 0]
    assert planes[0] == 7
    assert planes[len(WINDOWS)] == 1


def test_patches_hold_the_frame_and_what_was_around_it():
    rng = np.random.default_rng(0)
    frames = rng.integers(100, 200, (40, 64, 64), dtype=np.uint16)
    frames += np.arange(40, dtype=np.uint16)[:, None, None] * 300
    recordings = load_recordings(
        [stack_from_array(frames)], context_frames=1, patch=32, memory_mib=64
    )
    seen = with_surroundings(recordings)
    patches = seen.sampler.draw(8, np.random.default_rng(1))
    assert patches.shape == (8, 1 + len(COUNTS), 32, 32)
    steps = patches[:, 1] - patches[:, 0]  # the next frame is 300 brighter
    there = ~np.isnan(steps).all(axis=(1, 2))
    assert there.sum() >= 6
    np.testing.assert_allclose(steps[there].mean(axis=(1, 2)), 300, atol=10)
    first = patches[:, 1 + len(WINDOWS)] - patches[:, 0]  # the one before is the student's
    there = ~np.isnan(first).all(axis=(1, 2))
    np.testing.assert_allclose(first[there].mean(axis=(1, 2)), -600, atol=10)
    for sample, own in zip(seen.held_out, recordings.held_out, strict=True):
        np.testing.assert_array_equal(sample.observations[0], own.observations[0])
