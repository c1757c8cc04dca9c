"""Absent frames: known to every reader, never read as images, kept by every view."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import zarr

from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import AbsentFrameError, StackError, stack_from_array

SHAPE = (8, 8)


def frames(*leading):
    """Frames that carry their own index, from 1: nothing that is there is all zeros."""
    numbers = 1 + np.arange(np.prod(leading), dtype=np.uint16).reshape(*leading, 1, 1)
    return numbers + np.zeros(SHAPE, np.uint16)


def with_gaps(*absent, leading=(3, 2)):
    present = np.ones(leading, bool)
    for place in absent:
        present[place] = False
    return stack_from_array(frames(*leading), axes=("time", "channel"), present=present)


# ------------------------------------------------------------------------------ the contract


def test_all_frames_are_there_where_nothing_is_said():
    stack = stack_from_array(frames(4))
    assert stack.present is None
    assert stack.absent == 0
    assert stack.present_indices.tolist() == [0, 1, 2, 3]


def test_an_absent_frame_is_no_image():
    stack = with_gaps((1, 0))
    assert len(stack) == 6
    assert stack.absent == 1
    assert [stack.is_present(i) for i in range(6)] == [True, True, False, True, True, True]
    with pytest.raises(AbsentFrameError, match=r"frame 2 .*'time': 1.*5 of 6 frames; 1 absent"):
        stack.frame(2)
    assert [int(frame[0, 0]) for frame in stack] == [1, 2, 4, 5, 6]


def test_what_came_before_leaves_it_out():
    stack = with_gaps((1, 0))
    assert stack.preceding(4, 2) == [None, 0]
    seen = stack.observations(4, 2)
    assert [int(plane[0, 0]) for plane in seen] == [5, 0, 1]


def test_a_channel_keeps_its_own_gaps():
    stack = with_gaps((1, 0), (2, 1))
    assert stack.channel(0).present.tolist() == [True, False, True]
    assert stack.channel(1).present.tolist() == [True, True, False]


def test_a_recording_without_a_frame_is_refused():
    with pytest.raises(StackError, match="holds no frame"):
        stack_from_array(frames(2), present=np.zeros(2, bool))


# ------------------------------------------------------------------- chunks of any layout

LAYOUTS = {
    "one frame": (1, 1, 8, 8),
    "several frames": (2, 1, 8, 8),
    "tiles": (1, 1, 4, 8),
    "tiles of several frames": (2, 2, 4, 4),
}


@pytest.mark.parametrize("chunks", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    "keys",
    [
        {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"zarr_format": 3},
        {"zarr_format": 3, "chunk_key_encoding": {"name": "default", "separator": "."}},
    ],
    ids=["2.", "2/", "3/", "3."],
)
def test_missing_chunks_are_absent_frames(tmp_path, chunks, keys):
    pixels = frames(4, 2)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=pixels.shape, chunks=chunks, dtype="uint16", **keys
    )
    array[...] = pixels
    assert open_stack(tmp_path / "a.zarr").present is None
    key = array.metadata.encode_chunk_key((1, 0, 0, 0))
    (tmp_path / "a.zarr" / key).unlink()
    expected = np.ones((4, 2), bool)
    expected[chunks[0] : 2 * chunks[0], : chunks[1]] = False
    stack = open_stack(tmp_path / "a.zarr")
    np.testing.assert_array_equal(stack.present, expected)
    for index in stack.present_indices:
        np.testing.assert_array_equal(stack.frame(index), pixels.reshape(-1, *SHAPE)[index])


def test_chunks_missing_from_a_shard(tmp_path):
    pixels = frames(5, 2)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=pixels.shape,
        chunks=(1, 1, 8, 8),
        shards=(2, 2, 8, 8),
        dtype="uint16",
    )
    for place in itertools.product(range(5), range(2)):
        if place != (1, 1):
            array[place] = pixels[place]
    stack = open_stack(tmp_path / "a.zarr")
    assert np.argwhere(~stack.present).tolist() == [[1, 1]]
    (tmp_path / "a.zarr" / "c" / "1" / "0" / "0" / "0").unlink()
    stack = open_stack(tmp_path / "a.zarr")
    assert np.argwhere(~stack.present).tolist() == [[1, 1], [2, 0], [2, 1], [3, 0], [3, 1]]


def test_a_masked_corner_is_not_missing(tmp_path):
    pixels = frames(3)
    pixels[:, :4, :4] = 0
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=pixels.shape, chunks=(1, 4, 4), dtype="uint16"
    )
    array[...] = pixels
    assert open_stack(tmp_path / "a.zarr").absent == 0


def test_a_file_without_content_is_no_frame(tmp_path):
    with OmeZarrWriter(tmp_path / "a.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        for time in range(3):
            writer.write(frames(3)[time], {"time": time})
    (tmp_path / "a.ome.zarr" / "0" / "c.1.0.0.0.0").write_bytes(b"")
    assert open_stack(tmp_path / "a.ome.zarr").present.ravel().tolist() == [True, False, True]


def test_a_gap_in_our_own_recording(tmp_path):
    with OmeZarrWriter(tmp_path / "a.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        for time in (0, 2):
            writer.write(frames(3)[time], {"time": time})
    stack = open_stack(tmp_path / "a.ome.zarr")
    assert stack.present_indices.tolist() == [0, 2]


def test_positions_that_end_in_mid_round(tmp_path):
    with OmeZarrWriter(tmp_path / "raw.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        for time, position in itertools.product(range(3), range(2)):
            if (time, position) != (2, 1):
                writer.write(frames(3, 2)[time, position], {"time": time, "position": position})
    stack = open_stack(tmp_path / "raw.ome.zarr")
    assert dict(stack.sizes) == {"position": 2, "time": 3, "channel": 1, "z": 1}
    assert np.flatnonzero(~stack.present.ravel()).tolist() == [5]
    assert [int(frame[0, 0]) for frame in stack] == [1, 3, 5, 2, 4]


def test_positions_of_other_frames_are_refused_by_name(tmp_path):
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for number, edge in enumerate((8, 6)):
        group = root.create_group(str(number))
        array = group.create_array("0", shape=(1, edge, edge), chunks=(1, edge, edge), dtype="u2")
        array[...] = 1
        axes = [{"name": name} for name in "tyx"]
        group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    with pytest.raises(StackError, match=r"stacks of several kinds .*--series"):
        open_stack(tmp_path / "a.zarr")
