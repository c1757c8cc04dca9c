"""TIFF as microscopes and people leave it: sets, pyramids, thumbnails, cut-off files, units."""

from __future__ import annotations

import contextlib
import json
import re
import uuid

import numpy as np
import pytest
import tifffile

from quietscope.storage.open_options import OpenOptions
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError

SHAPE = (32, 40)


def frames(*leading, shape=SHAPE, dtype=np.uint16):
    """Frames that carry their own index, from 1, in every pixel."""
    numbers = 1 + np.arange(np.prod(leading)).reshape(*leading, 1, 1)
    return (numbers + np.zeros(shape)).astype(dtype)


def write(path, pixels, **more):
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **more})
    return path


def numbers_of(stack):
    return [int(stack.frame(int(i))[0, 0]) for i in stack.present_indices]


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


# ------------------------------------------------------------------------------ OME-TIFF


def ome_positions(path, count=3, **metadata):
    pixels = frames(count, 3, 2)
    with tifffile.TiffWriter(path, ome=True) as writer:
        for position in range(count):
            said = {"axes": "TCYX", "Name": f"Pos{position}", "Channel": {"Name": ["GFP", "RFP"]}}
            writer.write(pixels[position], photometric="minisblack", metadata=said | metadata)
    return pixels


def test_images_of_one_kind_are_positions(tmp_path):
    ome_positions(
        tmp_path / "a.ome.tif",
        PhysicalSizeX=0.1083,
        PhysicalSizeXUnit="µm",
        PhysicalSizeY=0.1083,
        PhysicalSizeYUnit="µm",
    )
    stack = open_stack(tmp_path / "a.ome.tif")
    assert dict(stack.sizes) == {"position": 3, "time": 3, "channel": 2}
    assert stack.axis_values["position"] == ("Pos0", "Pos1", "Pos2")
    assert stack.channel_names == ("GFP", "RFP")
    assert stack.pixel_size_um == pytest.approx(0.1083)
    assert numbers_of(stack) == list(range(1, 19))


@pytest.mark.parametrize("series", ["Pos1", 1, "1"])
def test_one_position_is_chosen(tmp_path, series):
    ome_positions(tmp_path / "a.ome.tif")
    stack = open_stack(tmp_path / "a.ome.tif", OpenOptions(series=series))
    assert numbers_of(stack) == list(range(7, 13))


def test_a_series_that_is_not_there(tmp_path):
    ome_positions(tmp_path / "a.ome.tif")
    with pytest.raises(StackError, match=r"--series Pos7 is none of its 3 .*1: Pos1"):
        open_stack(tmp_path / "a.ome.tif", OpenOptions(series="Pos7"))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.000325, "mm", 0.325),
        (325, "nm", 0.325),
        (3.25e-5, "cm", 0.325),
        (0.325, "µm", 0.325),
        (1e-5, "inch", 0.254),
        (3250, "Å", 0.325),
    ],
)
def test_units_of_ome(tmp_path, value, unit, expected):
    metadata = {"axes": "CTZYX", "Channel": {"Name": ["DAPI", "Cy5"]}}
    for axis in "XY":
        metadata |= {f"PhysicalSize{axis}": value, f"PhysicalSize{axis}Unit": unit}
    metadata |= {"PhysicalSizeZ": 2 * value, "PhysicalSizeZUnit": unit}
    metadata |= {"TimeIncrement": 250, "TimeIncrementUnit": "ms"}
    write(tmp_path / "a.ome.tif", frames(2, 3, 4), ome=True, metadata=metadata)
    stack = open_stack(tmp_path / "a.ome.tif")
    assert dict(stack.sizes) == {"channel": 2, "time": 3, "z": 4}
    assert stack.pixel_size_um == pytest.approx(expected)
    assert stack.z_step_um == pytest.approx(2 * expected)
    assert stack.time_interval_s == pytest.approx(0.25)
    assert stack.channel_names == ("DAPI", "Cy5")
    assert numbers_of(stack) == list(range(1, 25))


def test_pixels_that_are_not_square_are_said(tmp_path):
    metadata = {"axes": "TYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2}
    write(tmp_path / "a.ome.tif", frames(2), ome=True, metadata=metadata)
    stack = open_stack(tmp_path / "a.ome.tif")
    assert stack.pixel_size_yx_um == (0.2, 0.1)
    assert any("not square" in remark for remark in stack.remarks)


@pytest.mark.parametrize("bigtiff", [False, True])
def test_of_a_pyramid_the_full_resolution(tmp_path, bigtiff):
    pixels = frames(4, shape=(64, 64))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True, bigtiff=bigtiff) as writer:
        more = {"photometric": "minisblack", "tile": (32, 32)}
        writer.write(pixels, subifds=1, metadata={"axes": "TYX"}, **more)
        writer.write(pixels[:, ::2, ::2], subfiletype=1, **more)
    stack = open_stack(tmp_path / "a.ome.tif")
    assert (len(stack), stack.frame_shape) == (4, (64, 64))
    assert numbers_of(stack) == [1, 2, 3, 4]


def ome_set(folder, files=3, missing=(), prefix="part_T"):
    """One OME-TIFF per time point, each with the whole set's OME-XML."""
    xml = tifffile.OmeXml()
    xml.addimage("uint16", (files, *SHAPE), (files, 1, 1, *SHAPE, 1), axes="TYX")
    ids = [f"urn:uuid:{uuid.UUID(int=i + 1)}" for i in range(files)]
    planes = "".join(
        f'<TiffData IFD="0" FirstT="{i}" FirstC="0" FirstZ="0" PlaneCount="1">'
        f'<UUID FileName="{prefix}{i}.ome.tif">{ids[i]}</UUID></TiffData>'
        for i in range(files)
    )
    text = re.sub(r"<TiffData[^>]*/>|<TiffData.*</TiffData>", planes, xml.tostring(), flags=re.S)
    for i in set(range(files)) - set(missing):
        own = re.sub(r'UUID="[^"]*"', f'UUID="{ids[i]}"', text, count=1)
        write(
            folder / f"{prefix}{i}.ome.tif",
            frames(files)[i],
            description=own.encode(),
            metadata=None,
        )


@pytest.mark.parametrize("named", [0, 1])
def test_a_file_of_a_set_stands_for_the_set_and_a_missing_one_is_named(tmp_path, named):
    ome_set(tmp_path, missing=[2])
    stack = open_stack(tmp_path / f"part_T{named}.ome.tif")
    assert dict(stack.sizes) == {"time": 3}
    assert numbers_of(stack) == [1, 2]
    assert any("part_T2.ome.tif is not there" in remark for remark in stack.remarks)
    assert any("set of 3 files" in remark for remark in stack.remarks)


def test_a_file_of_a_set_that_is_damaged_is_absent(tmp_path):
    ome_set(tmp_path)
    (tmp_path / "part_T1.ome.tif").write_bytes(b"II*\0")
    stack = open_stack(tmp_path / "part_T0.ome.tif")
    assert numbers_of(stack) == [1, 3]
    assert any("part_T1.ome.tif cannot be read" in remark for remark in stack.remarks)


def test_a_set_whose_named_file_was_renamed(tmp_path):
    ome_set(tmp_path)
    (tmp_path / "part_T1.ome.tif").rename(tmp_path / "other.ome.tif")
    stack = open_stack(tmp_path / "other.ome.tif")
    assert numbers_of(stack) == [1, 2, 3]


def test_a_companion_stands_for_its_set(tmp_path):
    xml = tifffile.OmeXml()
    xml.addimage("uint16", (3, *SHAPE), (3, 1, 1, *SHAPE, 1), axes="TYX")
    planes = "".join(
        f'<TiffData IFD="0" FirstT="{i}" PlaneCount="1"><UUID FileName="c{i}.ome.tif">urn:uuid:{i}'
        "</UUID></TiffData>"
        for i in range(3)
    )
    text = re.sub(r"<TiffData[^>]*/>|<TiffData.*</TiffData>", planes, xml.tostring(), flags=re.S)
    (tmp_path / "c.companion.ome").write_text(text, encoding="utf-8")
    for i in (0, 2):
        own = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">'
            '<BinaryOnly MetadataFile="c.companion.ome" UUID="urn:uuid:x"/></OME>'
        )
        write(tmp_path / f"c{i}.ome.tif", frames(3)[i], description=own.encode(), metadata=None)
    for named in ("c.companion.ome", "c2.ome.tif"):
        stack = open_stack(tmp_path / named)
        assert stack.present.tolist() == [True, False, True]
        assert numbers_of(stack) == [1, 3]


def position_set(folder, missing=()):
    """One OME-TIFF per position, each with the whole set's OME-XML, as pymmcore-plus writes."""
    xml = tifffile.OmeXml()
    for position in range(3):
        xml.addimage("uint16", (2, *SHAPE), (2, 1, 1, *SHAPE, 1), axes="TYX", Name=f"P{position}")
    ids = iter([f"urn:uuid:{uuid.UUID(int=i + 1)}" for i in range(3)])
    number = iter(range(3))

    def planes(_):
        return (
            f'<TiffData IFD="0" PlaneCount="2"><UUID FileName="p{next(number)}.ome.tif">'
            f"{next(ids)}</UUID></TiffData>"
        )

    text = re.sub(r"<TiffData[^>]*/>|<TiffData.*?</TiffData>", planes, xml.tostring(), flags=re.S)
    for i in set(range(3)) - set(missing):
        own = re.sub(r'UUID="[^"]*"', f'UUID="urn:uuid:{uuid.UUID(int=i + 1)}"', text, count=1)
        write(folder / f"p{i}.ome.tif", frames(3, 2)[i], description=own.encode(), metadata=None)


@pytest.mark.parametrize("named", [0, 1, 2])
def test_one_file_per_position(tmp_path, named):
    position_set(tmp_path)
    stack = open_stack(tmp_path / f"p{named}.ome.tif")
    assert dict(stack.sizes) == {"position": 3, "time": 2}
    assert numbers_of(stack) == [1, 2, 3, 4, 5, 6]
    one = open_stack(tmp_path / f"p{named}.ome.tif", OpenOptions(series="P1"))
    assert numbers_of(one) == [3, 4]


def test_a_position_whose_file_is_gone_is_absent_as_a_whole(tmp_path):
    position_set(tmp_path, missing=[1])
    stack = open_stack(tmp_path / "p2.ome.tif")
    assert stack.present.tolist() == [[True, True], [False, False], [True, True]]
    assert numbers_of(stack) == [1, 2, 5, 6]


def test_a_set_never_reaches_out_of_its_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    write(tmp_path / "secret.ome.tif", frames(1)[0])
    ome_set(tmp_path / "inside", prefix="../secret", missing=[0, 1, 2])
    text = tifffile.OmeXml()
    text.addimage("uint16", (1, *SHAPE), (1, 1, 1, *SHAPE, 1), axes="TYX")
    planes = (
        '<TiffData PlaneCount="1"><UUID FileName="../secret.ome.tif">urn:uuid:x</UUID></TiffData>'
    )
    xml = re.sub(r"<TiffData[^>]*/>|<TiffData.*</TiffData>", planes, text.tostring(), flags=re.S)
    path = write(
        tmp_path / "inside" / "a.ome.tif", frames(1)[0], description=xml.encode(), metadata=None
    )
    with pytest.raises(StackError, match="holds no frame"):
        open_stack(path)


@pytest.mark.parametrize(
    ("attribute", "value"), [("SizeT", "1000000000000000"), ("SizeX", "2147483648")]
)
def test_sizes_that_no_recording_has(tmp_path, attribute, value):
    xml = tifffile.OmeXml()
    xml.addimage("uint16", (2, *SHAPE), (2, 1, 1, *SHAPE, 1), axes="TYX")
    text = re.sub(f'{attribute}="[^"]*"', f'{attribute}="{value}"', xml.tostring())
    write(tmp_path / "a.ome.tif", frames(2), description=text.encode(), metadata=None)
    with pytest.raises(StackError, match="expected at most"):
        open_stack(tmp_path / "a.ome.tif")


# --------------------------------------------------------------------- files that end early


LAYOUTS = {
    "pages after the pixels": {"metadata": None},
    "ImageJ": {"imagej": True, "metadata": {"axes": "TYX"}},
    "tifffile's own": {"metadata": {"axes": "TYX"}},
    "OME": {"ome": True, "metadata": {"axes": "TYX"}},
}


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_of_a_file_that_ends_early_the_whole_frames_are_there(tmp_path, layout, share):
    path = cut(write(tmp_path / "a.ome.tif", frames(10), **layout), share)
    whole = int((path.stat().st_size - 300) // (2 * np.prod(SHAPE)))
    stack = open_stack(path)
    assert len(stack) == 10
    assert whole - 1 <= len(stack) - stack.absent <= whole + 1
    assert numbers_of(stack) == list(range(1, len(stack) - stack.absent + 1))
    assert stack.remarks


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_where_pages_and_pixels_take_turns_the_rest_is_absent(tmp_path, compression):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for frame in frames(10):
            writer.write(
                frame,
                contiguous=False,
                photometric="minisblack",
                metadata=None,
                compression=compression,
            )
    stack = open_stack(cut(tmp_path / "a.tif", 0.6))
    there = numbers_of(stack)
    assert there == list(range(1, 1 + len(there)))
    assert 4 <= len(there) <= 7
    assert stack.absent >= 1
    assert any("at least" in remark for remark in stack.remarks)


def test_a_file_cut_within_its_last_frame(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for frame in frames(3):
            writer.write(frame, contiguous=False, photometric="minisblack", metadata=None)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-100])
    stack = open_stack(tmp_path / "a.tif")
    assert stack.absent >= 1
    assert numbers_of(stack) == [1, 2]


# ----------------------------------------------------------------------- several stacks


def test_a_thumbnail_is_left_out_with_a_word(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(frames(1, shape=(8, 8))[0], photometric="minisblack", metadata=None)
        for frame in frames(8):
            writer.write(frame, contiguous=False, photometric="minisblack", metadata=None)
    stack = open_stack(tmp_path / "a.tif")
    assert (dict(stack.sizes), stack.frame_shape) == ({"time": 8}, SHAPE)
    assert numbers_of(stack) == list(range(1, 9))
    assert any("smaller images" in remark and "--series" in remark for remark in stack.remarks)
    thumbnail = open_stack(tmp_path / "a.tif", OpenOptions(series=0))
    assert thumbnail.frame_shape == (8, 8)


def test_a_coloured_overview_is_left_out_with_a_word(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8), photometric="rgb", metadata=None)
        for frame in frames(8):
            writer.write(frame, contiguous=False, photometric="minisblack", metadata=None)
    stack = open_stack(tmp_path / "a.tif")
    assert numbers_of(stack) == list(range(1, 9))
    assert any("RGB" in remark for remark in stack.remarks)


def test_two_stacks_of_two_sizes_have_to_be_chosen_from(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for frame in [*frames(3, shape=(16, 16)), *frames(4)]:
            writer.write(frame, contiguous=False, photometric="minisblack", metadata=None)
    with pytest.raises(StackError, match=r"several kinds .*16×16.*32×40.*--series"):
        open_stack(tmp_path / "a.tif")
    assert numbers_of(open_stack(tmp_path / "a.tif", OpenOptions(series=1))) == [1, 2, 3, 4]


# --------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("unit", "per_unit"),
    [
        ("um", 1 / 0.1083),
        ("micron", 1 / 0.1083),
        ("\\u00B5m", 1 / 0.1083),
        ("nm", 1 / 108.3),
        ("mm", 1 / 0.0001083),
        ("cm", 1e4 / 0.1083),
        ("inch", 25400 / 0.1083),
    ],
)
def test_units_of_imagej(tmp_path, unit, per_unit):
    write(
        tmp_path / "a.tif",
        frames(2, 3),
        imagej=True,
        resolution=(per_unit, per_unit),
        metadata={"axes": "TZYX", "unit": unit, "spacing": 2 / per_unit, "finterval": 0.5},
    )
    stack = open_stack(tmp_path / "a.tif")
    assert dict(stack.sizes) == {"time": 2, "z": 3}
    assert stack.pixel_size_um == pytest.approx(0.1083, rel=1e-3)
    assert stack.z_step_um == pytest.approx(0.2166, rel=1e-3)
    assert stack.time_interval_s == 0.5


@pytest.mark.parametrize(("unit", "per_um"), [("CENTIMETER", 1e4), ("INCH", 25400.0)])
def test_resolution_tags(tmp_path, unit, per_um):
    size = per_um / 0.1083
    write(
        tmp_path / "a.tif", frames(5), resolution=(size, size), resolutionunit=unit, metadata=None
    )
    assert open_stack(tmp_path / "a.tif").pixel_size_um == pytest.approx(0.1083, rel=1e-4)


def test_a_resolution_finer_than_an_atom_is_no_pixel_size(tmp_path):
    nobody_s = (2**32 - 1, 1)
    write(tmp_path / "a.tif", frames(2), resolution=(nobody_s, nobody_s), resolutionunit=3)
    stack = open_stack(tmp_path / "a.tif")
    assert stack.pixel_size_um is None
    assert any("less than an atom" in remark for remark in stack.remarks)


def test_a_printer_s_resolution_is_no_pixel_size(tmp_path):
    write(tmp_path / "a.tif", frames(5), resolution=(72, 72), resolutionunit="INCH", metadata=None)
    stack = open_stack(tmp_path / "a.tif")
    assert stack.pixel_size_um is None
    assert any("printer" in remark for remark in stack.remarks)


# ------------------------------------------------------------- what the file leaves open


@pytest.mark.parametrize("count", [3, 4])
def test_three_or_four_pages_might_be_colours(tmp_path, count):
    path = write(tmp_path / "a.tif", frames(count), metadata=None)
    stack = open_stack(path)
    assert dict(stack.sizes) == {"time": count}
    assert any("--axes cyx" in remark for remark in stack.remarks)
    told = open_stack(path, OpenOptions(axes="cyx"))
    assert dict(told.sizes) == {"channel": count}
    assert not told.remarks


def test_a_frame_of_three_rows_is_asked_about(tmp_path):
    stack = open_stack(write(tmp_path / "a.tif", np.ones((20, 3, 40), np.uint16), metadata=None))
    assert any("--axes" in remark for remark in stack.remarks)


def test_rows_and_columns_that_were_swapped(tmp_path):
    pixels = np.arange(2 * 6 * 8, dtype=np.uint16).reshape(2, 6, 8)
    path = write(tmp_path / "a.tif", pixels, metadata=None)
    stack = open_stack(path, OpenOptions(axes="txy"))
    assert stack.frame_shape == (8, 6)
    np.testing.assert_array_equal(stack.frame(1), pixels[1].T)


def test_axes_of_one_s_own(tmp_path):
    path = write(tmp_path / "a.tif", frames(6), metadata=None)
    with pytest.raises(StackError, match="has 3 dimensions"):
        open_stack(path, OpenOptions(axes="ryyx"))
    assert dict(open_stack(path, OpenOptions(axes="repetition,y,x")).sizes) == {"repetition": 6}


def test_colours_are_refused_or_read_as_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), np.uint8)
    path = write(tmp_path / "a.tif", pixels, photometric="rgb")
    with pytest.raises(StackError, match=r"RGB.*--axes yxs"):
        open_stack(path)
    with pytest.raises(StackError, match=r"RGB|dimensions"):  # an s within a word is none
        open_stack(path, OpenOptions(axes="position,y,x"))
    stack = open_stack(path, OpenOptions(axes="yxs"))
    assert stack.sizes["channel"] == 3
    np.testing.assert_array_equal(stack.channel(1).frame(0), pixels[..., 1])


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float64])
def test_other_pixel_types_are_refused_or_converted(tmp_path, dtype):
    path = write(tmp_path / "a.tif", frames(5, dtype=dtype))
    with pytest.raises(StackError, match="--pixels uint16"):
        open_stack(path)
    stack = open_stack(path, OpenOptions(pixels="uint16"))
    assert stack.frame(3).dtype == np.uint16
    assert numbers_of(stack) == [1, 2, 3, 4, 5]
    assert any("read as uint16" in remark for remark in stack.remarks)


@pytest.mark.parametrize("value", [-1, 70000, 1.5])
def test_a_pixel_that_does_not_fit_stops(tmp_path, value):
    pixels = frames(2, dtype=np.float32)
    pixels[1, 2, 3] = value
    stack = open_stack(write(tmp_path / "a.tif", pixels), OpenOptions(pixels="uint16"))
    stack.frame(0)
    with pytest.raises(StackError, match="uint16 cannot hold"):
        stack.frame(1)


def test_nan_is_refused_or_filled(tmp_path):
    pixels = frames(2, dtype=np.float32)
    pixels[1, 2, 3] = np.nan
    path = write(tmp_path / "a.tif", pixels)
    with pytest.raises(StackError, match="--fill-nan"):
        open_stack(path).frame(1)
    assert open_stack(path, OpenOptions(fill_nan=100)).frame(1)[2, 3] == 100


def test_a_page_that_no_camera_has(tmp_path):
    path = write(tmp_path / "a.tif", frames(1)[0], metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages.first.tags[name].overwrite(2**31 - 1, dtype="I")
    with pytest.raises(StackError, match="expected at most 1"):
        open_stack(path)


def test_a_bomb_of_zeros_takes_no_memory(tmp_path):
    import tracemalloc
    import zlib

    path = write(tmp_path / "a.tif", frames(1)[0], metadata=None, compression="zlib")
    bomb = zlib.compress(bytes(80_000_000))
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages.first.tags
        tags["StripOffsets"].overwrite([path.stat().st_size])
        tags["StripByteCounts"].overwrite([len(bomb)])
    with path.open("ab") as file:
        file.write(bomb)
    stack = open_stack(path)
    tracemalloc.start()
    with contextlib.suppress(StackError):
        stack.frame(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def micro_manager_page(time, channel):
    """Tag 51123 as Micro-Manager writes it to every page."""
    said = {
        "FrameIndex": time,
        "ChannelIndex": channel,
        "SliceIndex": 0,
        "PositionIndex": 0,
        "Channel": ["GFP", "RFP"][channel],
        "PixelSizeUm": 0.1083,
        "Exposure-ms": 20.0,
        "Camera": "Cam",
    }
    text = json.dumps(said).encode() + b"\0"
    return (51123, "s", len(text), text, True)


def test_micro_manager_s_file_that_was_never_finished(tmp_path):
    path = tmp_path / "a_MMStack.ome.tif"
    with tifffile.TiffWriter(path, ome=False) as writer:
        for number, (time, channel) in enumerate([(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]):
            writer.write(
                frames(5)[number],
                photometric="minisblack",
                contiguous=False,
                metadata=None,
                extratags=[micro_manager_page(time, channel)],
            )
    stack = open_stack(path)
    assert dict(stack.sizes) == {"time": 3, "channel": 2}
    assert stack.present.tolist() == [[True, True], [True, False], [True, True]]
    assert numbers_of(stack) == [1, 2, 3, 4, 5]
    assert stack.channel_names == ("GFP", "RFP")
    assert (stack.camera, stack.exposure_ms, stack.pixel_size_um) == ("Cam", 20.0, 0.1083)
    assert stack.camera_is_label


def test_of_a_finished_file_of_micro_manager_the_camera_is_known(tmp_path):
    path = tmp_path / "a_MMStack.ome.tif"
    tifffile.imwrite(
        path,
        frames(1),
        ome=True,
        photometric="minisblack",
        metadata={"axes": "TYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1},
        extratags=[micro_manager_page(0, 0)],
    )
    stack = open_stack(path)
    assert (stack.camera, stack.camera_is_label, stack.exposure_ms) == ("Cam", True, 20.0)
    assert stack.pixel_size_um == 0.1  # OME-XML comes first


def test_a_chain_of_pages_without_end(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in frames(3):
            writer.write(frame, contiguous=False, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[2]
        end = last.offset + 2 + 12 * len(last.tags)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(first.to_bytes(4, "little"))
    with pytest.raises(StackError, match="in a circle"):
        open_stack(path)


def test_pages_that_are_volumes_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        np.ones((16, 32, 32), np.uint16),
        volumetric=True,
        tile=(16, 16, 16),
        photometric="minisblack",
    )
    with pytest.raises(StackError, match="volumes"):
        open_stack(path)
