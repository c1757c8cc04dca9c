"""What was written is what is read back: pixels, axes, names, sizes and gaps, in every format."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quietscope.storage.open_stack import open_stack
from quietscope.storage.output_kinds import Kind
from quietscope.storage.stack import stack_from_array
from quietscope.storage.writers.open_writer import OutputForm, open_writer

AXES = ("time", "channel", "z", "position", "gain")


@st.composite
def recordings(draw, axes):
    """Stacks with any of the axes, in any order, with gaps; each frame carries its number."""
    chosen = draw(st.permutations(draw(st.lists(st.sampled_from(axes), min_size=1, unique=True))))
    sizes = [draw(st.integers(1, 3)) for _ in chosen]
    shape = (draw(st.integers(5, 9)), draw(st.integers(5, 9)))
    dtype = draw(st.sampled_from(["uint16", "float32"]))
    count = int(np.prod(sizes))
    pixels = (1 + np.arange(count)[:, None, None] + np.zeros(shape)).astype(dtype)
    present = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    present[int(draw(st.integers(0, count - 1)))] = True
    stack = stack_from_array(
        pixels.reshape(*sizes, *shape), axes=chosen, present=present.reshape(sizes)
    )
    channels = stack.sizes.get("channel", 1)
    values = {"gain": tuple(10 * (i + 1) for i in range(stack.sizes.get("gain", 0)))}
    return replace(
        stack,
        pixel_size_yx_um=(0.1083, 0.1083),
        channel_names=tuple(f"C{i}" for i in range(channels)),
        axis_values={name: v for name, v in values.items() if v},
        exposure_ms=12.5,
        camera="Cam",
    )


def written(stack, path):
    form = OutputForm(pixel_type=stack.dtype.name)
    with open_writer(path, stack, form, kind=Kind.DENOISED, attributes={}) as writer:
        for index in stack.present_indices:
            writer.write(stack.frame(int(index)), stack.image_axes(int(index)))
    return open_stack(path)


def places(stack):
    """Which number lies where: axes longer than one, by the values they have."""
    found = {}
    for index in stack.present_indices:
        where = frozenset(
            (name, stack.axis_values[name][i] if name in stack.axis_values else i)
            for name, i in stack.axes(int(index)).items()
            if stack.sizes[name] > 1
        )
        found[where] = stack.frame(int(index))
    return found


def assert_same(back, stack):
    assert (back.frame_shape, back.dtype) == (stack.frame_shape, stack.dtype)
    assert back.pixel_size_um == pytest.approx(0.1083)
    assert back.channel_names == stack.channel_names
    assert (len(back), back.absent) == (len(stack), stack.absent)
    before, after = places(stack), places(back)
    assert before.keys() == after.keys()
    for where, frame in before.items():
        np.testing.assert_array_equal(after[where], frame)


@settings(max_examples=25, deadline=None)
@given(stack=recordings(AXES))
def test_ome_zarr(stack):
    folder = Path(tempfile.mkdtemp())
    try:
        back = written(stack, folder / "a.ome.zarr")
        assert_same(back, stack)
        assert (back.exposure_ms, back.camera) == (12.5, "Cam")
    finally:
        shutil.rmtree(folder)


@settings(max_examples=15, deadline=None)
@given(stack=recordings(("time", "channel", "z")))
def test_ome_tiff(stack):
    folder = Path(tempfile.mkdtemp())
    try:
        assert_same(written(stack, folder / "a.ome.tif"), stack)
    finally:
        shutil.rmtree(folder)
