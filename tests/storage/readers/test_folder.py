"""Folders and patterns: the names of files are axes, numbers left out are absent frames."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode

from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError

SHAPE = (16, 20)


def image(path, number, shape=SHAPE):
    pixels = np.full(shape, number, np.uint16)
    if path.suffix == ".png":
        path.write_bytes(png_encode(pixels))
    else:
        tifffile.imwrite(path, pixels)


def numbers_of(stack):
    return [int(stack.frame(int(i))[0, 0]) for i in stack.present_indices]


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("name", ["img{}", "img_{:04}", "t{:03}", "2026-11-25 cells {} raw"])
def test_single_images_in_the_order_of_their_numbers(tmp_path, suffix, name):
    for number in range(12):
        image(tmp_path / f"{name.format(number)}.{suffix}", number)
    stack = open_stack(tmp_path)
    assert dict(stack.sizes) == {"time": 12}
    assert numbers_of(stack) == list(range(12))


def test_a_number_left_out_is_an_absent_frame(tmp_path):
    for number in (1, 2, 4, 5, 6):
        image(tmp_path / f"img_{number}.tif", number)
    stack = open_stack(tmp_path)
    assert stack.present.tolist() == [True, True, False, True, True, True]
    assert numbers_of(stack) == [1, 2, 4, 5, 6]


def test_numbers_far_apart_are_labels(tmp_path):
    for number in (1, 200, 5000):
        image(tmp_path / f"img_{number}.tif", number)
    stack = open_stack(tmp_path)
    assert (stack.absent, numbers_of(stack)) == (0, [1, 200, 5000])


def test_letters_with_numbers_are_axes(tmp_path):
    for t in range(3):
        for z in range(2):
            for c in range(2):
                image(tmp_path / f"cells_t{t:03}_z{z}_ch{c}.tif", 100 * t + 10 * z + c)
    stack = open_stack(tmp_path)
    assert dict(stack.sizes) == {"time": 3, "z": 2, "channel": 2}
    assert numbers_of(stack) == [
        100 * t + 10 * z + c for t in range(3) for z in range(2) for c in range(2)
    ]


def test_micro_manager_s_single_images(tmp_path):
    for t in range(2):
        for k, channel in enumerate(("DAPI", "GFP")):
            image(tmp_path / f"img_{t:09}_{channel}_000.tif", 10 * t + k)
    (tmp_path / "metadata.txt").write_text("{}")
    stack = open_stack(tmp_path)
    assert dict(stack.sizes) == {"time": 2, "channel": 2}
    assert stack.channel_names == ("DAPI", "GFP")


def test_a_pattern_names_some(tmp_path):
    for number in range(4):
        image(tmp_path / f"a{number}.tif", number)
        image(tmp_path / f"b{number}.tif", 10 + number, shape=(8, 8))
    assert numbers_of(open_stack(tmp_path / "b*.tif")) == [10, 11, 12, 13]
    with pytest.raises(StackError, match="matches no"):
        open_stack(tmp_path / "c*.tif")


def test_an_empty_file_is_an_absent_frame(tmp_path):
    for number in range(4):
        image(tmp_path / f"a{number}.tif", number)
    (tmp_path / "a2.tif").write_bytes(b"")
    stack = open_stack(tmp_path)
    assert numbers_of(stack) == [0, 1, 3]
    assert stack.remarks


def test_an_image_of_another_size_is_named_when_it_is_read(tmp_path):
    for number in range(4):
        image(tmp_path / f"a{number}.tif", number, SHAPE if number < 3 else (8, 8))
    stack = open_stack(tmp_path)
    with pytest.raises(StackError, match=r"frame 3 is \(8, 8\)"):
        stack.frame(3)


def test_stacks_are_positions(tmp_path):
    for position in range(3):
        pixels = np.zeros((4 - position, *SHAPE), np.uint16) + 10 * position
        pixels += np.arange(len(pixels), dtype=np.uint16)[:, None, None]
        tifffile.imwrite(tmp_path / f"cell {position + 8}.tif", pixels, photometric="minisblack")
    stack = open_stack(tmp_path)
    assert stack.axis_values["position"] == ("cell 8", "cell 9", "cell 10")
    assert dict(stack.sizes)["position"] == 3
    assert stack.present.sum(axis=1).tolist() == [4, 3, 2]
    assert numbers_of(stack) == [0, 1, 2, 3, 10, 11, 12, 20, 21]


def test_a_damaged_stack_does_not_stop_the_others(tmp_path):
    for name in ("a", "b", "c"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ones((5, *SHAPE), np.uint16), metadata=None)
    (tmp_path / "b.tif").write_bytes(b"II*\0rubbish")
    stack = open_stack(tmp_path)
    assert len(stack) == 10
    assert any("left out: b.tif" in remark for remark in stack.remarks)


def test_a_set_of_one_file_per_time_point_is_opened_as_the_set(tmp_path):
    from .test_tiff import ome_set

    ome_set(tmp_path)
    assert dict(open_stack(tmp_path).sizes) == {"time": 3}


def test_pictures_of_other_kinds_are_named(tmp_path):
    image(tmp_path / "a0.tif", 0)
    image(tmp_path / "a1.tif", 1)
    (tmp_path / "overview.jpg").write_bytes(b"x")
    assert any("overview.jpg" in remark for remark in open_stack(tmp_path).remarks)


def test_several_series_in_one_folder_are_asked_about(tmp_path):
    for number in range(3):
        image(tmp_path / f"a{number}.tif", number)
        image(tmp_path / f"b{number}.tif", 10 + number)
    with pytest.raises(StackError, match=r"several series \(a\*\.tif \(3\), b\*\.tif \(3\)\)"):
        open_stack(tmp_path)


def test_images_without_numbers_are_in_the_order_of_their_names(tmp_path):
    for number, name in enumerate(("after", "before", "mid")):
        image(tmp_path / f"{name}.tif", number)
    stack = open_stack(tmp_path)
    assert numbers_of(stack) == [0, 1, 2]
    assert any("order of their names" in remark for remark in stack.remarks)


@pytest.mark.parametrize("ending", ["}", ""])
def test_micro_manager_s_folders_of_single_images_are_positions(tmp_path, ending):
    said = {
        "Summary": {"ChNames": ["DAPI", "GFP"], "z-step_um": 0.5, "Interval_ms": 2000},
        "Metadata-Pos0/first.tif": {"PixelSizeUm": 0.1083, "Camera": "Cam", "Exposure-ms": 20},
    }
    for position in range(2):
        folder = tmp_path / f"{1 + position}-Pos_000_00{position}"
        folder.mkdir()
        text = json.dumps(said).removesuffix("}") + ending  # an aborted one lacks its end
        (folder / "metadata.txt").write_text(text)
        for channel, time in product(range(2), range(3)):
            name = f"img_channel{channel:03}_position{position:03}_time{time:09}_z000.tif"
            image(folder / name, 100 * position + 10 * channel + time)
    stack = open_stack(tmp_path)
    assert dict(stack.sizes) == {"position": 2, "channel": 2, "time": 3}
    assert numbers_of(stack) == [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112]
    assert stack.axis_values["position"] == ("1-Pos_000_000", "2-Pos_000_001")
    assert stack.channel_names == ("DAPI", "GFP")
    assert (stack.pixel_size_um, stack.time_interval_s, stack.exposure_ms) == (0.1083, 2, 20)
    assert (stack.camera, stack.camera_is_label) == ("Cam", True)
