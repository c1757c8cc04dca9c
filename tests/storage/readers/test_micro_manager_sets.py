"""Micro-Manager's own test sets: every image equal to what its own reader gives, or one true line.

They are `test_data` of github.com/micro-manager/NDStorage and `mmstudio/src/test/resources` of
github.com/micro-manager/micro-manager (unpack the .gz files there). The folder that holds copies
of both is named by QUIETSCOPE_MICRO_MANAGER_SETS; without it these tests are skipped.
"""

from __future__ import annotations

import contextlib
import io
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile

from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError

SETS = os.environ.get("QUIETSCOPE_MICRO_MANAGER_SETS")
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not SETS, reason="QUIETSCOPE_MICRO_MANAGER_SETS names no folder"),
]
NDTIFF = sorted(Path(SETS).rglob("test_data/v*/*")) if SETS else []
MMSTACK = sorted(Path(SETS).rglob("*_MMStack_*.ome.tif")) if SETS else []


def images(dataset):
    axes = {name: list(values) for name, values in dataset.axes.items()}
    for values in product(*axes.values()):
        place = dict(zip(axes, values, strict=True))
        if dataset.has_image(**place):
            yield place


def index(stack, place):
    named = {**stack.axis_values, "channel": stack.channel_names}
    return stack.index(
        {
            axis: list(named[axis]).index(value) if value in named.get(axis, ()) else value
            for axis, value in place.items()
        }
    )


def refusal(folder):
    """Why a set is refused: colours, or a copy without the large files. None for the others."""
    if "rgb" in folder.name:
        return "RGB images"
    first = folder / "Full resolution" if (folder / "Full resolution").is_dir() else folder
    return None if list(first.glob("*.tif")) else "is not there"


@pytest.mark.parametrize("folder", NDTIFF, ids=lambda folder: folder.name)
def test_every_image_of_an_ndtiff_is_the_one_that_its_own_reader_gives(folder):
    from ndstorage import Dataset

    if (why := refusal(folder)) is not None:
        with pytest.raises(StackError, match=why) as refused:
            open_stack(folder)
        assert "\n" not in str(refused.value)
        return
    stack = open_stack(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = Dataset(str(folder))
    found = list(images(dataset))
    assert len(found) == len(stack) - stack.absent
    for place in found:
        np.testing.assert_array_equal(
            stack.frame(index(stack, place)), np.asarray(dataset.read_image(**place))
        )
    levels = getattr(dataset, "res_levels", {0: dataset})  # its close() fails on a pyramid
    for level in levels.values():
        level.close()


@pytest.mark.parametrize("named", MMSTACK, ids=lambda file: file.name)
def test_any_file_of_an_mmstack_stands_for_all_positions(named):
    stack = open_stack(named)
    # 2 times, 4 positions, 2 channels, 2 planes: what VersionCompatTest.java says it recorded.
    assert dict(stack.sizes) == {"position": 4, "time": 2, "channel": 2, "z": 2}
    assert stack.absent == 0
    assert stack.channel_names == ("Cy5", "DAPI")
    assert (stack.pixel_size_um, stack.z_step_um, stack.time_interval_s) == (1, 5, 5)
    assert (stack.camera, stack.camera_is_label, stack.exposure_ms) == ("Camera", True, 25)
    place = [named.stem.removesuffix(".ome") == name for name in stack.axis_values["position"]]
    with tifffile.TiffFile(named) as file:
        for page in file.pages:
            said = page.tags["MicroManagerMetadata"].value
            axes = {
                "position": place.index(True),
                "time": said["FrameIndex"],
                "channel": said["ChannelIndex"],
                "z": said["SliceIndex"],
            }
            np.testing.assert_array_equal(stack.frame(stack.index(axes)), page.asarray())


def test_a_folder_of_single_images():
    for folder in Path(SETS).rglob("alpha_2.0_singleplane_manual"):
        stack = open_stack(folder)
        assert (len(stack), stack.frame_shape) == (1, (16, 16))
        assert stack.attributes["micro_manager"]["ProfileName"] == "John's Profile"
