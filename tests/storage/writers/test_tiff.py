"""TIFF files as other programs read them: frames in their places, absent ones absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from quietscope.storage.atomic_output import OutputError
from quietscope.storage.open_stack import open_stack
from quietscope.storage.output_kinds import Kind, kind_of
from quietscope.storage.stack import Stack
from quietscope.storage.writers.open_writer import PixelType, as_pixel_type
from quietscope.storage.writers.tiff import ImageJWriter, OmeTiffWriter

SHAPE = (5, 7)


def facts(sizes: dict[str, int], shape: tuple[int, int] = SHAPE, **known: Any) -> Stack:
    """Return what is known of a stack; nothing of it is read."""
    return Stack(
        path=Path("facts"),
        sizes=sizes,
        frame_shape=shape,
        dtype=np.dtype("uint16"),
        read=lambda _: frame(0),
        pixel_size_yx_um=(0.1083, 0.1083),
        **known,
    )


def frame(value: float) -> np.ndarray[Any, Any]:
    return np.full(SHAPE, value, np.float32)


def test_each_frame_is_where_another_reader_expects_it(tmp_path: Path) -> None:
    stack = facts({"position": 2, "time": 3, "channel": 2}, channel_names=("GFP", "RFP"))
    with OmeTiffWriter(tmp_path / "a.ome.tif", stack, attributes={"model": "m"}) as writer:
        for position in (1, 0):  # in any order
            for channel in (0, 1):
                for time in range(3):
                    axes = {"position": position, "time": time, "channel": channel}
                    writer.write(frame(100 * position + 10 * channel + time + 0.25), axes)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert [series.axes for series in file.series] == ["CTYX", "CTYX"]
        for position, series in enumerate(file.series):
            expected = 100 * position + np.array([[0, 1, 2], [10, 11, 12]]) + 0.25
            np.testing.assert_array_equal(series.asarray()[:, :, 2, 3], expected)


def test_what_the_file_says_is_what_is_known(tmp_path: Path) -> None:
    from ome_types import from_tiff

    stack = facts({"time": 2, "channel": 2}, channel_names=("GFP", "RFP"))
    with OmeTiffWriter(tmp_path / "a.ome.tif", stack, attributes={"model": "abc"}) as writer:
        for time in range(2):
            writer.write(frame(time), {"time": time, "channel": "RFP"})
    pixels = from_tiff(tmp_path / "a.ome.tif").images[0].pixels
    assert [channel.name for channel in pixels.channels] == ["GFP", "RFP"]
    assert pixels.physical_size_x == pytest.approx(0.1083)
    assert pixels.physical_size_x_unit.value == "µm"
    assert {block.first_c for block in pixels.tiff_data_blocks} == {1}


@given(
    sizes=st.fixed_dictionaries(
        {"time": st.integers(1, 4), "channel": st.integers(1, 3), "z": st.integers(1, 3)}
    ),
    data=st.data(),
    pixel_type=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_an_absent_frame_has_no_page(
    tmp_path: Path, sizes: dict[str, int], data: st.DataObject, pixel_type: PixelType
) -> None:
    from ome_types import from_tiff

    places = [
        {"time": t, "channel": c, "z": z}
        for t in range(sizes["time"])
        for c in range(sizes["channel"])
        for z in range(sizes["z"])
    ]
    written = data.draw(st.lists(st.sampled_from(places), unique_by=str, min_size=1))
    path = tmp_path / "a.ome.tif"
    with OmeTiffWriter(path, facts(sizes), pixel_type=pixel_type, overwrite=True) as writer:
        for axes in written:
            writer.write(as_pixel_type(frame(1 + places.index(axes)), pixel_type), axes)
    pages = _pages_by_place(from_tiff(path).images[0].pixels)
    assert pages.keys() == {tuple(axes.values()) for axes in written}
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].dtype == pixel_type
        for axes in written:
            page = file.pages[pages[tuple(axes.values())]]
            assert page.asarray()[0, 0] == 1 + places.index(axes)


def test_a_position_that_is_absent_as_a_whole_keeps_its_place(tmp_path: Path) -> None:
    """What comes after it would move up, and be taken for it."""
    stack = facts(
        {"position": 4, "time": 2}, axis_values={"position": ("well A", "well B", "C", "D")}
    )
    path = tmp_path / "a.ome.tif"
    with OmeTiffWriter(path, stack) as writer:
        for position in (0, 2):
            for time in range(2):
                writer.write(frame(10 * position + time), {"position": position, "time": time})
    found = open_stack(path)
    assert dict(found.sizes) == {"position": 4, "time": 2}
    assert found.axis_values["position"] == ("well A", "well B", "C", "D")
    assert found.present is not None
    assert found.present.tolist() == [[True] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert found.frame(5)[0, 0] == 21
    with tifffile.TiffFile(path) as file:
        assert [series.name for series in file.series] == ["well A", "C"]


def _pages_by_place(pixels: Any) -> dict[tuple[int, int, int], int]:
    """Follow the OME data model: a block's planes go on in the dimension order."""
    assert pixels.dimension_order.value == "XYTZC"
    found = {}
    for block in pixels.tiff_data_blocks:
        at = (block.first_c * pixels.size_z + block.first_z) * pixels.size_t + block.first_t
        for plane in range(block.plane_count):
            rest, time = divmod(at + plane, pixels.size_t)
            channel, z = divmod(rest, pixels.size_z)
            found[time, channel, z] = block.ifd + plane
    return found


def test_whole_numbers_are_rounded_and_never_wrap() -> None:
    found = as_pixel_type(np.array([-3.0, 41.6, 70_000.0], np.float32), "uint16")
    assert found.dtype == np.uint16
    assert found.tolist() == [0, 42, 65535]


def test_imagej_opens_a_hyperstack(tmp_path: Path) -> None:
    stack = facts({"time": 3, "channel": 2}, channel_names=("GFP", "RFP"))
    with ImageJWriter(tmp_path / "a.tif", stack) as writer:
        for channel in range(2):
            for time in range(3):
                writer.write(frame(10 * channel + time), {"time": time, "channel": channel})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej
        metadata = file.imagej_metadata
        assert (metadata["frames"], metadata["channels"], metadata["unit"]) == (3, 2, "um")
        pixels_per_um = np.divide(*file.pages[0].tags["XResolution"].value)
        assert 1 / pixels_per_um == pytest.approx(0.1083, rel=1e-4)
        np.testing.assert_array_equal(file.asarray()[..., 0, 0], [[0, 10], [1, 11], [2, 12]])


def test_imagej_never_gets_frames_that_never_were(tmp_path: Path) -> None:
    writer = ImageJWriter(tmp_path / "a.tif", facts({"time": 3}))
    for time in (0, 2):
        writer.write(frame(time), {"time": time})
    with pytest.raises(OutputError, match=r"1 of 3 frames were never recorded"):
        writer.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sizes", "shape", "words"),
    [
        ({"position": 2, "time": 3}, SHAPE, "position"),
        ({"time": 2000}, (1024, 1024), "4 GiB"),
    ],
)
def test_what_imagej_cannot_hold_is_refused_before_work_begins(
    tmp_path: Path, sizes: dict[str, int], shape: tuple[int, int], words: str
) -> None:
    with pytest.raises(OutputError, match=words):
        ImageJWriter(tmp_path / "a.tif", facts(sizes, shape))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("writer", [OmeTiffWriter, ImageJWriter])
def test_a_denoised_file_is_replaced_and_a_recording_is_not(tmp_path: Path, writer: Any) -> None:
    for name, kind in (("denoised.tif", Kind.DENOISED), ("recording.tif", Kind.RECORDING)):
        with writer(tmp_path / name, facts({"time": 1}), kind=kind) as opened:
            opened.write(frame(1), {"time": 0})
        assert kind_of(tmp_path / name) is kind
    with writer(tmp_path / "denoised.tif", facts({"time": 1}), overwrite=True) as opened:
        opened.write(frame(2), {"time": 0})
    assert tifffile.imread(tmp_path / "denoised.tif")[0, 0] == 2
    with pytest.raises(OutputError, match="is a recording"):
        writer(tmp_path / "recording.tif", facts({"time": 1}), overwrite=True)


@pytest.mark.parametrize("writer", [OmeTiffWriter, ImageJWriter])
def test_a_run_that_fails_leaves_what_was_there(tmp_path: Path, writer: Any) -> None:
    path = tmp_path / "a.tif"
    with writer(path, facts({"time": 1})) as opened:
        opened.write(frame(5), {"time": 0})
    yesterday = path.read_bytes()

    def fail_in_the_middle() -> None:
        with writer(path, facts({"time": 2}), overwrite=True) as opened:
            opened.write(frame(1), {"time": 0})
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_middle()
    assert path.read_bytes() == yesterday
    assert list(tmp_path.iterdir()) == [path]


def test_a_frame_of_another_shape_or_twice_is_refused(tmp_path: Path) -> None:
    with OmeTiffWriter(tmp_path / "a.tif", facts({"time": 2})) as writer:
        writer.write(frame(1), {"time": 0})
        with pytest.raises(OutputError, match="another file"):
            writer.write(np.zeros((5, 8), np.float32), {"time": 1})
        with pytest.raises(OutputError, match="already"):
            writer.write(frame(1), {"time": 0})


def test_a_file_beyond_two_gigabytes_is_a_bigtiff(tmp_path: Path) -> None:
    stack = facts({"time": 600}, shape=(1024, 1024))
    with OmeTiffWriter(tmp_path / "a.ome.tif", stack) as writer:
        writer.write(np.zeros((1024, 1024), np.float32), {"time": 0})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_bigtiff
