"""NDTiff as acquisitions leave it: stopped, with gaps, with axes of its own, damaged."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.storage.open_options import OpenOptions
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError

SHAPE = (16, 20)

pytestmark = (
    pytest.mark.filterwarnings(  # the library's own writer leaves its file to the collector
        "ignore:Exception ignored in.*NDTiffStack:pytest.PytestUnraisableExceptionWarning"
    )
)


def dataset(folder, images, summary=None, **metadata):
    from ndstorage import NDTiffDataset

    writer = NDTiffDataset(
        str(folder), name="acq", summary_metadata=summary or {"PixelSizeUm": 0.1083}, writable=True
    )
    for axes, pixels in images:
        writer.put_image(
            axes, pixels, {"PixelSizeUm": 0.1083, "Camera": "Cam", "Axes": axes, **metadata}
        )
    writer.finish()
    writer.close()
    return next(path.parent for path in folder.rglob("NDTiff.index"))


def frame(number, shape=SHAPE):
    return np.full(shape, number, np.uint16)


def numbers_of(stack):
    return [int(stack.frame(int(i))[0, 0]) for i in stack.present_indices]


def test_stopped_in_mid_round(tmp_path):
    images = [
        ({"time": t, "channel": c}, frame(2 * t + k))
        for t in range(3)
        for k, c in enumerate(["GFP", "RFP"])
        if (t, k) != (2, 1)
    ]
    stack = open_stack(dataset(tmp_path, images, Exposure=12.5))
    assert (len(stack), stack.absent) == (6, 1)
    assert stack.channel_names == ("GFP", "RFP")
    assert stack.pixel_size_um == 0.1083
    assert (stack.camera, stack.exposure_ms) == ("Cam", 12.5)
    assert not stack.is_present(stack.index({"time": 2, "channel": 1}))
    assert sorted(numbers_of(stack)) == [0, 1, 2, 3, 4]


def test_the_first_image_is_missing(tmp_path):
    images = [
        ({"position": p, "time": t}, frame(3 * p + t))
        for t in range(3)
        for p in range(2)
        if (p, t) != (0, 0)
    ]
    stack = open_stack(dataset(tmp_path, images))
    assert (len(stack), stack.absent) == (6, 1)
    assert sorted(numbers_of(stack)) == [1, 2, 3, 4, 5]


def test_axes_of_one_s_own_with_their_values(tmp_path):
    images = [
        ({"time": 0, "repetition": r, "exposure": e, "filter": f}, frame(100 * r + e + len(f)))
        for r in range(2)
        for e in (5, 10, 50)
        for f in ("ND1", "none!")
    ]
    stack = open_stack(dataset(tmp_path, images))
    assert stack.sizes["repetition"], stack.sizes["exposure"] == (2, 3)
    assert stack.axis_values["exposure"] == (5, 10, 50)
    assert set(stack.axis_values["filter"]) == {"ND1", "none!"}
    assert stack.absent == 0
    for index in range(len(stack)):
        axes = stack.axes(index)
        values = {n: stack.axis_values.get(n, range(9))[i] for n, i in axes.items()}
        expected = 100 * values["repetition"] + values["exposure"] + len(values["filter"])
        assert stack.frame(index)[0, 0] == expected


def test_images_with_and_without_a_channel(tmp_path):
    images = [({"time": 0}, frame(1)), ({"time": 0, "channel": "GFP"}, frame(2))]
    stack = open_stack(dataset(tmp_path, images))
    assert sorted(numbers_of(stack)) == [1, 2]
    assert any("no channel" in remark for remark in stack.remarks)


def test_several_frame_sizes_are_chosen_from(tmp_path):
    images = [({"time": t}, frame(t, SHAPE if t < 3 else (8, 8))) for t in range(5)]
    folder = dataset(tmp_path, images)
    with pytest.raises(StackError, match=r"0: 16×20, 3 images; 1: 8×8, 2 images.*--series"):
        open_stack(folder)
    small = open_stack(folder, OpenOptions(series=1))
    assert (small.frame_shape, numbers_of(small)) == ((8, 8), [3, 4])


def test_a_named_file_stands_for_its_dataset(tmp_path):
    folder = dataset(tmp_path, [({"time": t}, frame(t)) for t in range(3)])
    stack = open_stack(next(folder.glob("*NDTiff*.tif")))
    assert numbers_of(stack) == [0, 1, 2]
    assert any("whole dataset" in remark for remark in stack.remarks)


def test_a_file_cut_short(tmp_path):
    folder = dataset(tmp_path, [({"time": t}, frame(t)) for t in range(5)])
    file = next(folder.glob("*.tif"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    stack = open_stack(folder)
    there = numbers_of(stack)
    assert there == list(range(len(there)))
    assert 0 < len(there) < 5


def test_a_missing_an_empty_and_a_blank_file(tmp_path):
    folder = dataset(tmp_path, [({"time": t}, frame(t)) for t in range(3)])
    file = next(folder.glob("*.tif"))
    file.write_bytes(bytes(5000))
    with pytest.raises(StackError, match=r"NDTiffStack\.tif is empty"):
        open_stack(folder)
    file.unlink()
    with pytest.raises(StackError, match=r"NDTiffStack\.tif is not there"):
        open_stack(folder)


def test_an_index_cut_short_or_empty(tmp_path):
    folder = dataset(tmp_path, [({"time": t}, frame(t)) for t in range(4)])
    index = folder / "NDTiff.index"
    index.write_bytes(index.read_bytes()[:-20])
    stack = open_stack(folder)
    assert numbers_of(stack) == [0, 1, 2]
    assert any("middle of an entry" in remark for remark in stack.remarks)
    index.write_bytes(b"")
    with pytest.raises(StackError, match="lists no image"):
        open_stack(folder)


def test_of_a_multi_resolution_dataset_the_full_one(tmp_path):
    folder = dataset(tmp_path, [({"row": r, "column": 0}, frame(r)) for r in range(2)])
    top = tmp_path / "pyramid"
    (top / "Downsampled_x2").mkdir(parents=True)
    folder.rename(top / "Full resolution")
    stack = open_stack(top)
    assert dict(stack.sizes) == {"row": 2, "column": 1}
    assert numbers_of(stack) == [0, 1]
