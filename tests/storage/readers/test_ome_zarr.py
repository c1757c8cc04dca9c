"""OME-Zarr of other programs: transformations, units, plates, collections, zip files."""

from __future__ import annotations

import gzip
import json
import os
import shutil

import numcodecs
import numpy as np
import pytest
import zarr

from quietscope.storage.open_options import OpenOptions
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError

SHAPE = (16, 20)


def frames(*leading, dtype=np.uint16):
    """Frames that carry their own index, from 1, in every pixel."""
    numbers = 1 + np.arange(np.prod(leading)).reshape(*leading, 1, 1)
    return (numbers + np.zeros(SHAPE)).astype(dtype)


def numbers_of(stack):
    return [int(stack.frame(int(i))[0, 0]) for i in stack.present_indices]


def image(
    group, pixels, axes, *, scale=None, top=None, unit="micrometer", version="0.4", labels=()
):
    array = group.create_array(
        "0", shape=pixels.shape, dtype=pixels.dtype, chunks=(1,) * (pixels.ndim - 2) + SHAPE
    )
    array[...] = pixels
    kinds = {"t": "time", "c": "channel"}
    multiscale = {
        "version": version,
        "axes": [
            {"name": k, "type": kinds.get(k, "space"), **({"unit": unit} if k in "zyx" else {})}
            for k in axes
        ],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale or [1] * pixels.ndim}
                ],
            }
        ],
    }
    if top:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": top}]
    said = {"multiscales": [multiscale]}
    if labels:
        said["omero"] = {"channels": [{"label": label} for label in labels]}
    group.attrs.update(said if version == "0.4" else {"ome": {**said, "version": version}})


def group_at(path, version="0.4"):
    return zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("scale", "top", "unit"),
    [
        ([1, 1, 1], [1, 0.1083, 0.1083], "micrometer"),
        ([1, 0.1083, 0.1083], None, "micrometer"),
        ([1, 2, 2], [1, 0.05415, 0.05415], "micrometer"),
        ([1, 108.3, 108.3], None, "nanometer"),
        ([1, 1.083e-4, 1.083e-4], None, "millimeter"),
        ([1, 0.1083, 0.1083], None, "micron"),
        ([1, 1083, 1083], None, "angstrom"),
    ],
)
def test_the_product_of_the_scales_in_any_unit(tmp_path, version, scale, top, unit):
    image(
        group_at(tmp_path / "a.zarr", version),
        frames(4),
        "tyx",
        scale=scale,
        top=top,
        unit=unit,
        version=version,
    )
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.pixel_size_um == pytest.approx(0.1083)
    assert numbers_of(stack) == [1, 2, 3, 4]


def test_a_scale_without_a_unit_is_left_out_with_a_word(tmp_path):
    image(group_at(tmp_path / "a.zarr"), frames(4), "tyx", scale=[1, 0.1, 0.1], unit=None)
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.pixel_size_um is None
    assert any("no unit" in remark for remark in stack.remarks)


def test_steps_of_time_and_z(tmp_path):
    group = group_at(tmp_path / "a.zarr")
    image(group, frames(2, 3), "tzyx", scale=[500, 0.3, 0.1, 0.1])
    said = group.attrs["multiscales"]
    said[0]["axes"][0]["unit"] = "millisecond"
    group.attrs["multiscales"] = said
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.time_interval_s == 0.5
    assert stack.z_step_um == 0.3


def test_big_endian_pixels_and_channel_names(tmp_path):
    pixels = frames(2, 4, dtype=">u2")
    image(group_at(tmp_path / "a.zarr"), pixels, "ctyx", labels=["GFP", "RFP"])
    stack = open_stack(tmp_path / "a.zarr")
    assert dict(stack.sizes) == {"channel": 2, "time": 4}
    assert stack.channel_names == ("GFP", "RFP")
    assert numbers_of(stack) == list(range(1, 9))


def test_axes_of_its_own_keep_their_names(tmp_path):
    image(
        group_at(tmp_path / "a.zarr", "0.5"), frames(3, 2), ["angle", "t", "y", "x"], version="0.5"
    )
    assert dict(open_stack(tmp_path / "a.zarr").sizes) == {"angle": 3, "time": 2}


def test_labels_are_left_out_with_a_word(tmp_path):
    group = group_at(tmp_path / "a.zarr")
    image(group, frames(4), "tyx")
    labels = group.create_group("labels")
    labels.attrs["labels"] = ["nuclei"]
    image(labels.create_group("nuclei"), frames(4), "tyx")
    stack = open_stack(tmp_path / "a.zarr")
    assert len(stack) == 4
    assert any("labels (nuclei)" in remark for remark in stack.remarks)


def plate(path):
    group = group_at(path)
    group.attrs["plate"] = {
        "rows": [{"name": "A"}],
        "columns": [{"name": "1"}, {"name": "2"}],
        "wells": [{"path": "A/1"}, {"path": "A/2"}],
    }
    for number, well in enumerate(("A/1", "A/2")):
        node = group.create_group(well)
        node.attrs["well"] = {"images": [{"path": "0"}, {"path": "1"}]}
        for field in range(2):
            image(node.create_group(str(field)), frames(2, 2, 3)[number, field], "tyx")


def test_wells_and_fields_are_positions(tmp_path):
    plate(tmp_path / "p.zarr")
    stack = open_stack(tmp_path / "p.zarr")
    assert dict(stack.sizes) == {"position": 4, "time": 3}
    assert stack.axis_values["position"] == ("A/1/0", "A/1/1", "A/2/0", "A/2/1")
    assert numbers_of(stack) == list(range(1, 13))
    one = open_stack(tmp_path / "p.zarr", OpenOptions(series="A/2/0"))
    assert numbers_of(one) == [7, 8, 9]
    assert numbers_of(open_stack(tmp_path / "p.zarr" / "A" / "1")) == [1, 2, 3, 4, 5, 6]


def test_a_field_that_a_plate_lists_but_does_not_hold(tmp_path):
    plate(tmp_path / "p.zarr")
    shutil.rmtree(tmp_path / "p.zarr" / "A" / "2" / "1")
    stack = open_stack(tmp_path / "p.zarr")
    assert dict(stack.sizes) == {"position": 4, "time": 3}
    assert stack.absent == 3
    assert any("A/2/1" in remark for remark in stack.remarks)


@pytest.mark.parametrize("declared", [True, False])
def test_a_collection_of_images(tmp_path, declared):
    group = group_at(tmp_path / "a.zarr")
    if declared:
        group.attrs["bioformats2raw.layout"] = 3
    for number in range(11):
        image(group.create_group(str(number)), frames(11, 2)[number], "tyx")
    stack = open_stack(tmp_path / "a.zarr")
    assert dict(stack.sizes) == {"position": 11, "time": 2}
    assert numbers_of(stack) == list(range(1, 23))


def test_names_of_bioformats2raw(tmp_path):
    group = group_at(tmp_path / "a.zarr")
    group.attrs["bioformats2raw.layout"] = 3
    for number in range(2):
        image(group.create_group(str(number)), frames(2, 2)[number], "tyx", unit=None)
    (tmp_path / "a.zarr" / "OME").mkdir()
    pixels = (
        '<Pixels DimensionOrder="XYZCT" Type="uint16" SizeX="20" SizeY="16" SizeZ="1" SizeC="1" '
        'SizeT="2" PhysicalSizeX="0.2" PhysicalSizeY="0.2"><Channel ID="Channel:0" Name="GFP"/>'
        "</Pixels>"
    )
    (tmp_path / "a.zarr" / "OME" / "METADATA.ome.xml").write_text(
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image Name="left">{pixels}</Image><Image Name="right">{pixels}</Image></OME>'
    )
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.axis_values["position"] == ("left", "right")
    assert stack.channel_names == ("GFP",)
    assert stack.pixel_size_um == 0.2


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_zip_file_also_with_gaps(tmp_path, version, nested):
    folder = tmp_path / "a.ome.zarr"
    image(group_at(folder, version), frames(4), "tyx", version=version)
    gap = "0/2.0.0" if version == "0.4" else "0/c/2/0/0"
    (folder / gap).unlink()
    base = {"root_dir": tmp_path, "base_dir": folder.name} if nested else {"root_dir": folder}
    shutil.make_archive(str(folder), "zip", **base)
    shutil.rmtree(folder)
    stack = open_stack(tmp_path / "a.ome.zarr.zip")
    assert stack.present.tolist() == [True, True, False, True]
    assert numbers_of(stack) == [1, 2, 4]


def test_dimension_names_of_a_plain_array(tmp_path):
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=(3, 2, *SHAPE),
        chunks=(1, 1, *SHAPE),
        dtype="uint16",
        dimension_names=["z", "t", "y", "x"],
    )
    array[...] = frames(3, 2)
    assert dict(open_stack(tmp_path / "a.zarr").sizes) == {"z": 3, "time": 2}


def test_dimensions_in_any_order(tmp_path):
    pixels = np.arange(3 * 6 * 8, dtype=np.uint16).reshape(6, 3, 8) + 1
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(6, 3, 8), chunks=(6, 1, 8), dtype="u2"
    )
    array[...] = pixels
    stack = open_stack(tmp_path / "a.zarr", OpenOptions(axes="xty"))
    assert (dict(stack.sizes), stack.frame_shape) == ({"time": 3}, (8, 6))
    np.testing.assert_array_equal(stack.frame(1), pixels[:, 1].T)


def test_a_group_with_arrays_asks_which(tmp_path):
    group = group_at(tmp_path / "a.zarr")
    for name in ("one", "two"):
        group.create_array(name, shape=(5, *SHAPE), chunks=(1, *SHAPE), dtype="u2")[...] = frames(
            5
        )
    with pytest.raises(StackError, match=r"--series \(one, two\)"):
        open_stack(tmp_path / "a.zarr")
    assert len(open_stack(tmp_path / "a.zarr", OpenOptions(series="two"))) == 5


@pytest.mark.parametrize("shape", [(10**15, 16, 20), (2, 2**31, 2**31)])
def test_sizes_that_no_recording_has(tmp_path, shape):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=shape, chunks=(1, 16, 20), dtype="uint16")
    with pytest.raises(StackError, match="expected at most"):
        open_stack(tmp_path / "a.zarr")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("where", ["zarr.json", "0/zarr.json"])
def test_a_pipe_where_metadata_should_be_does_not_hang(tmp_path, where):
    image(group_at(tmp_path / "a.zarr", "0.5"), frames(4), "tyx", version="0.5")
    (tmp_path / "a.zarr" / where).unlink()
    os.mkfifo(tmp_path / "a.zarr" / where)
    with pytest.raises(StackError):
        open_stack(tmp_path / "a.zarr")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_or_a_device_is_no_recording(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    for path in (tmp_path / "a.tif", "/dev/zero"):
        with pytest.raises(StackError, match="is no file and no folder"):
            open_stack(path)


def test_custom_axes_that_a_result_of_ours_kept(tmp_path):
    from quietscope.storage.ome_zarr_writer import OmeZarrWriter
    from quietscope.storage.stack import RECORDING, stack_from_array

    source = stack_from_array(frames(2, 3, 2), axes=("repetition", "gain", "time"))
    values = {"gain": (10, 20, "high")}
    attributes = {
        RECORDING: {
            "images": [{"repetition": r, "gain": g} for r in range(2) for g in values["gain"]]
        }
    }
    with OmeZarrWriter(
        tmp_path / "a.ome.zarr", frame_shape=SHAPE, dtype="uint16", attributes=attributes
    ) as writer:
        for index in range(len(source)):
            if index not in (0, 1, 7):  # one place without any image, one with a gap
                writer.write(source.frame(index), source.image_axes(index))
    stack = open_stack(tmp_path / "a.ome.zarr")
    assert dict(stack.sizes) == {"repetition": 2, "gain": 3, "time": 2, "channel": 1, "z": 1}
    assert stack.axis_values["gain"] == (10, 20, "high")
    assert np.flatnonzero(~stack.present.ravel()).tolist() == [0, 1, 7]
    assert numbers_of(stack) == [i + 1 for i in range(12) if i not in (0, 1, 7)]


def test_metadata_that_never_end(tmp_path):
    image(group_at(tmp_path / "a.zarr", "0.5"), frames(4), "tyx", version="0.5")
    document = tmp_path / "a.zarr" / "zarr.json"
    said = json.loads(document.read_text())
    document.unlink()
    with document.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room
    assert said
    with pytest.raises(StackError, match="MiB of metadata"):
        open_stack(tmp_path / "a.zarr")


def test_a_zip_file_that_unpacks_to_too_much(tmp_path, monkeypatch):
    import zipfile

    from quietscope.storage.readers import ome_zarr

    monkeypatch.setattr(ome_zarr, "LARGEST_FRAME_BYTES", 2**30 // 64)
    folder = tmp_path / "a.zarr"
    image(group_at(folder), frames(4), "tyx")
    shutil.make_archive(str(folder), "zip", root_dir=folder)
    with (
        zipfile.ZipFile(tmp_path / "a.zarr.zip", "a", zipfile.ZIP_DEFLATED) as file,
        file.open("0/9.0.0", "w", force_zip64=True) as entry,
    ):
        for _ in range(17):
            entry.write(bytes(2**20))
    with pytest.raises(StackError, match="would unpack to"):
        open_stack(tmp_path / "a.zarr.zip")


@pytest.mark.parametrize("kind", ["zlib", "gzip", "zstd"])
def test_a_chunk_that_unpacks_to_too_much(tmp_path, kind, monkeypatch):
    import tracemalloc
    import zlib

    from quietscope.storage.readers import bounded_store

    monkeypatch.setattr(bounded_store, "LARGEST_CHUNK_BYTES", 20 * 2**20)
    format_, compressor = {
        "zlib": (2, numcodecs.Zlib()),
        "gzip": (3, zarr.codecs.GzipCodec()),
        "zstd": (3, zarr.codecs.ZstdCodec()),
    }[kind]
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=(4, *SHAPE),
        chunks=(1, *SHAPE),
        dtype="uint16",
        zarr_format=format_,
        compressors=compressor,
    )
    array[...] = frames(4)
    zeros = bytes(64 * 2**20)
    bomb = {
        "zlib": lambda: zlib.compress(zeros),
        "gzip": lambda: gzip.compress(zeros, 1),
        "zstd": lambda: bytes(numcodecs.Zstd().encode(zeros)),
    }[kind]()
    (tmp_path / "a.zarr" / array.metadata.encode_chunk_key((2, 0, 0))).write_bytes(bomb)
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.frame(1)[0, 0] == 2
    tracemalloc.start()
    with pytest.raises(StackError, match="would unpack to more than"):
        stack.frame(2)
    assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    tracemalloc.stop()


def test_chunks_of_zeros_that_a_writer_left_out(tmp_path):
    pixels = np.zeros((3, 8, 8), np.uint16)
    pixels[[0, 2]] = 7
    array = zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(1, 8, 8))
    assert array.nchunks_initialized == 2
    gap = open_stack(tmp_path / "a.zarr")
    assert (len(gap), gap.absent) == (3, 1)
    assert any("--missing zeros" in remark for remark in gap.remarks)
    whole = open_stack(tmp_path / "a.zarr", OpenOptions(missing="zeros"))
    assert whole.absent == 0
    np.testing.assert_array_equal(whole.frames([0, 1, 2]), pixels)
