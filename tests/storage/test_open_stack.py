"""Stacks: every layout gives the frames that were put in, under the names of their axes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError, stack_from_array

SHAPE = (6, 8)


def numbered(*leading, dtype=np.uint16):
    """Frames that carry their own index, from 1, in every pixel: a mix-up cannot hide.

    None is all zeros: those zarr-python does not write at all.
    """
    count = int(np.prod(leading))
    frames = np.arange(1, count + 1).astype(dtype)[:, None, None] + np.zeros(SHAPE, dtype)
    return frames.reshape(*leading, *SHAPE)


def assert_frames(stack, expected):
    """Every frame of `stack` is the one of `expected` (…, Y, X) with the same axes."""
    for index in range(len(stack)):
        place = tuple(stack.axes(index).values())
        np.testing.assert_array_equal(stack.frame(index), expected[place])


# --------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("axes", "leading", "names"),
    [
        ("TYX", (5,), ["time"]),
        ("TCYX", (3, 2), ["time", "channel"]),
        ("TZCYX", (2, 3, 4), ["time", "z", "channel"]),
        ("ZYX", (4,), ["z"]),
        ("CYX", (2,), ["channel"]),
    ],
)
def test_ome_tiff(tmp_path, axes, leading, names):
    pixels = numbered(*leading)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": axes}, ome=True)
    stack = open_stack(tmp_path / "a.ome.tif")
    assert list(stack.sizes) == names
    assert_frames(stack, pixels)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_plain_tiff_of_every_pixel_type(tmp_path, dtype, compression):
    pixels = numbered(7, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", compression=compression)
    stack = open_stack(tmp_path / "a.tif")
    assert stack.dtype == dtype
    assert dict(stack.sizes) == {"time": 7}
    assert_frames(stack, pixels)


def test_a_single_image_is_a_stack_of_one(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbered(1)[0] + 9)
    stack = open_stack(tmp_path / "a.tif")
    assert len(stack) == 1
    np.testing.assert_array_equal(stack.frame(0), numbered(1)[0] + 9)


def test_big_endian_tiff_comes_out_in_this_machine_s_order(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbered(3), byteorder=">", photometric="minisblack")
    stack = open_stack(tmp_path / "a.tif")
    assert stack.frame(2).dtype.isnative
    assert_frames(stack, numbered(3))


def test_a_tiff_lets_its_file_go_with_the_stack(tmp_path):
    import gc

    psutil = pytest.importorskip("psutil")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbered(3), photometric="minisblack")
    stack = open_stack(path)
    stack.frame(1)
    opened = {file.path for file in psutil.Process().open_files()}
    assert str(path) in opened
    del stack
    gc.collect()
    assert str(path) not in {file.path for file in psutil.Process().open_files()}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("leading", "names"),
    [((4,), ["time"]), ((3, 2), ["time", "channel"]), ((2, 3, 2), ["time", "channel", "z"])],
)
def test_plain_zarr(tmp_path, version, leading, names):
    pixels = numbered(*leading)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=pixels.shape,
        chunks=(*([1] * len(leading)), *SHAPE),
        dtype=pixels.dtype,
        zarr_format=version,
    )
    array[...] = pixels
    stack = open_stack(tmp_path / "a.zarr")
    assert list(stack.sizes) == names
    assert_frames(stack, pixels)


@pytest.mark.parametrize("block", [(5,), (4, 2)])
def test_frames_that_share_a_chunk_are_decoded_once(tmp_path, monkeypatch, block):
    leading = (12, 3)[: len(block)]
    pixels = numbered(*leading)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=pixels.shape, chunks=(*block, 3, 8), dtype=pixels.dtype
    )
    array[...] = pixels
    stack = open_stack(tmp_path / "a.zarr")
    decoded = []
    whole = zarr.Array.__getitem__
    monkeypatch.setattr(
        zarr.Array, "__getitem__", lambda self, at: decoded.append(at) or whole(self, at)
    )
    if len(block) == 1:
        assert_frames(stack, pixels)
        assert len(decoded) == 3
    # In any order, and what a reader does with a frame is the reader's own business.
    for index in (len(stack) - 1, 0, 7, 1, 7):
        frame = stack.frame(index)
        np.testing.assert_array_equal(frame, pixels[tuple(stack.axes(index).values())])
        frame[...] = 0


def test_channels_read_in_turns_do_not_throw_each_other_out(tmp_path, monkeypatch):
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(8, 3, 6, 8), chunks=(4, 1, 6, 8), dtype="uint16"
    )
    array[...] = numbered(8, 3)
    stack = open_stack(tmp_path / "a.zarr")
    decoded = []
    whole = zarr.Array.__getitem__
    monkeypatch.setattr(
        zarr.Array, "__getitem__", lambda self, at: decoded.append(at) or whole(self, at)
    )
    assert_frames(stack, numbered(8, 3))
    assert len(decoded) == 6


def test_ome_zarr_0_5_as_we_write_it(tmp_path):
    pixels = numbered(3, 2, 2)
    with OmeZarrWriter(
        tmp_path / "a.ome.zarr",
        frame_shape=SHAPE,
        dtype="uint16",
        pixel_size_um=0.1,
        channel_names=["GFP", "DAPI"],
        attributes={"quietscope": {"kind": "raw"}},
    ) as writer:
        for place in np.ndindex(3, 2, 2):
            writer.write(pixels[place], dict(zip(("time", "channel", "z"), place, strict=True)))
    stack = open_stack(tmp_path / "a.ome.zarr")
    assert dict(stack.sizes) == {"time": 3, "channel": 2, "z": 2}
    assert stack.pixel_size_um == pytest.approx(0.1)
    assert stack.channel_names == ("GFP", "DAPI")
    assert stack.attributes["quietscope"]["kind"] == "raw"
    assert_frames(stack, pixels)
    green = stack.channel(0)
    assert dict(green.sizes) == {"time": 3, "z": 2}
    assert green.channel_names == ("GFP",)
    assert_frames(green, pixels[:, 0])


def test_ome_zarr_0_4(tmp_path):
    pixels = numbered(3, 2)
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    array = root.create_array("0", shape=pixels.shape, chunks=(1, 1, *SHAPE), dtype=pixels.dtype)
    array[...] = pixels
    root.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [
                {"name": "t", "type": "time"},
                {"name": "c", "type": "channel"},
                {"name": "y", "type": "space", "unit": "micrometer"},
                {"name": "x", "type": "space", "unit": "micrometer"},
            ],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 0.3, 0.3]}],
                }
            ],
        }
    ]
    stack = open_stack(tmp_path / "a.zarr")
    assert list(stack.sizes) == ["time", "channel"]
    assert stack.pixel_size_um == pytest.approx(0.3)
    assert_frames(stack, pixels)


def test_positions_of_a_run(tmp_path):
    pixels = numbered(12, 2)  # ten and more: order by number, not by letter
    with OmeZarrWriter(tmp_path / "raw.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        for position, time_point in np.ndindex(12, 2):
            writer.write(pixels[position, time_point], {"position": position, "time": time_point})
    stack = open_stack(tmp_path)  # a run directory stands for its raw store
    assert dict(stack.sizes) == {"position": 12, "time": 2, "channel": 1, "z": 1}
    assert_frames(stack, pixels[:, :, None, None])


@pytest.mark.filterwarnings(  # the library's own writer leaves its file to the collector
    "ignore:Exception ignored in.*NDTiffStack:pytest.PytestUnraisableExceptionWarning"
)
def test_ndtiff(tmp_path, capsys):
    from ndstorage import NDTiffDataset

    dataset = NDTiffDataset(str(tmp_path), name="acq", summary_metadata={"a": 1}, writable=True)
    pixels = numbered(12, 2)  # ten and more: order by number, not by letter
    for time_point, channel in np.ndindex(12, 2):
        dataset.put_image(
            {"time": time_point, "channel": ["GFP", "DAPI"][channel]},
            pixels[time_point, channel],
            {},
        )
    dataset.finish()
    dataset.close()
    folder = next(path.parent for path in tmp_path.rglob("NDTiff.index"))
    capsys.readouterr()
    stack = open_stack(folder)
    assert capsys.readouterr().out == ""
    assert len(stack) == 24
    names = stack.channel_names
    assert names == ("GFP", "DAPI")  # as they arrived: that is what other channels go by
    for index in range(len(stack)):
        axes = stack.axes(index)
        channel = ["GFP", "DAPI"].index(names[axes["channel"]])
        np.testing.assert_array_equal(stack.frame(index), pixels[axes["time"], channel])


# ------------------------------------------------------------------------------ behaviour


@given(
    sizes=st.dictionaries(
        st.sampled_from(["time", "channel", "z", "position"]), st.integers(1, 4), min_size=1
    )
)
def test_index_and_axes_are_inverse(sizes):
    stack = stack_from_array(np.zeros((*sizes.values(), 2, 2), np.uint8), axes=list(sizes))
    for index in range(len(stack)):
        assert stack.index(stack.axes(index)) == index


@given(time=st.integers(1, 6), context=st.integers(0, 4))
def test_what_came_before(time, context):
    stack = stack_from_array(numbered(2, time) + 1, axes=("channel", "time"))
    for index in range(len(stack)):
        seen = stack.observations(index, context)
        assert seen.shape == (1 + context, *SHAPE)
        for back in range(1 + context):
            if back > stack.axes(index)["time"]:
                assert not seen[back].any()
            else:
                np.testing.assert_array_equal(seen[back], stack.frame(index - back))


def test_without_a_time_axis_nothing_came_before():
    stack = stack_from_array(numbered(3), axes=("z",))
    assert stack.preceding(2, 2) == [None, None]


def test_iteration_and_selection():
    pixels = numbered(5)
    stack = stack_from_array(pixels)
    np.testing.assert_array_equal(np.stack(list(stack)), pixels)
    np.testing.assert_array_equal(stack.frames([4, 0]), pixels[[4, 0]])
    assert stack.bytes == pixels.nbytes


# -------------------------------------------------------------------------------- refusals


def test_frames_that_do_not_exist():
    stack = stack_from_array(numbered(3))
    for index in (-1, 3):
        with pytest.raises(IndexError, match="there are 3"):
            stack.frame(index)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(bad):
    pixels = numbered(2, dtype=np.float32)
    pixels[1, 2, 3] = bad
    stack = stack_from_array(pixels)
    stack.frame(0)
    with pytest.raises(StackError, match="frame 1 holds NaN or infinite"):
        stack.frame(1)


@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.complex64, np.bool_])
def test_other_pixel_types(dtype):
    with pytest.raises(StackError, match=r"expected one of uint8, uint16, float32"):
        stack_from_array(np.zeros((2, 3, 3), dtype))


def test_empty_stacks():
    with pytest.raises(StackError, match="is empty"):
        stack_from_array(np.zeros((0, 3, 3), np.uint8))


def test_axes_that_do_not_fit_the_array():
    with pytest.raises(StackError, match="does not have the axes"):
        stack_from_array(np.zeros((2, 3, 3), np.uint8), axes=("time", "channel"))


def test_nothing_there(tmp_path):
    with pytest.raises(StackError, match="no such file"):
        open_stack(tmp_path / "missing.tif")


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(StackError, match="holds no Zarr"):
        open_stack(tmp_path)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.tif").touch()
    with pytest.raises(StackError, match=r"a\.tif: is empty"):
        open_stack(tmp_path / "a.tif")


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "a.czi").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(StackError, match="git lfs pull"):
        open_stack(tmp_path / "a.czi")


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "a.doc").write_bytes(b"x")
    with pytest.raises(StackError, match=r"\.doc is no format that is read"):
        open_stack(tmp_path / "a.doc")


@pytest.mark.parametrize("content", [b"no tiff", b"II*\0\x08\0\0\0"])
def test_a_broken_tiff(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(StackError, match=r"a\.tif: cannot be read as an image stack") as caught:
        open_stack(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


def test_a_colour_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(StackError, match="RGB"):
        open_stack(tmp_path / "a.tif")


def test_a_zarr_group_that_is_no_image(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    with pytest.raises(StackError, match="without OME metadata"):
        open_stack(tmp_path / "a.zarr")


def test_a_damaged_ome_zarr(tmp_path):
    with OmeZarrWriter(tmp_path / "a.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        writer.write(numbered(1)[0], {"time": 0})
    shutil.rmtree(tmp_path / "a.ome.zarr" / "0")
    with pytest.raises(StackError, match="cannot be read as an image stack"):
        open_stack(tmp_path / "a.ome.zarr")


def test_metadata_that_is_no_json(tmp_path):
    with OmeZarrWriter(tmp_path / "a.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        writer.write(numbered(1)[0], {"time": 0})
    (tmp_path / "a.ome.zarr" / "zarr.json").write_text("{", encoding="utf-8")
    with pytest.raises(StackError, match="cannot be read"):
        open_stack(tmp_path / "a.ome.zarr")


def test_axes_in_an_unknown_order(tmp_path):
    with OmeZarrWriter(tmp_path / "a.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        writer.write(numbered(1)[0], {"time": 0})
    path = tmp_path / "a.ome.zarr" / "zarr.json"
    text = json.loads(path.read_text(encoding="utf-8"))
    text["attributes"]["ome"]["multiscales"][0]["axes"].reverse()
    path.write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(StackError, match="expected … y x"):
        open_stack(tmp_path / "a.ome.zarr")
