"""What goes out in another program's format comes back the same: pixels, axes, names, sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quietscope.inference.commands import export
from quietscope.inference.errors import InferenceError
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.export_stack import export_stack
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.storage.writers.open_writer import OutputForm
from quietscope.storage.writers.pyramid import halved

SHAPE = (6, 9)
FORMS = {
    "ome-zarr": ("out.ome.zarr", OutputForm()),
    "pyramid": ("out.ome.zarr", OutputForm(pyramid=True)),
    "tiff": ("out.ome.tif", OutputForm()),
    "imagej": ("out.tif", OutputForm(imagej=True)),
    "ndtiff": ("out", OutputForm(ndtiff=True)),
}


def recording(
    sizes: dict[str, int], dtype: str = "uint16", absent: frozenset[int] = frozenset()
) -> Stack:
    """Return a stack whose every pixel tells its frame, with all that can be known of it."""
    count = int(np.prod(list(sizes.values())))
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 200, (count, *SHAPE)).astype(dtype)
    pixels[:, 0, 0] = np.arange(count)
    present = np.array([i not in absent for i in range(count)]).reshape(*sizes.values())
    names = ("GFP", "RFP", "DAPI")[: sizes.get("channel", 0)]
    positions = tuple(f"Pos{i}" for i in range(sizes.get("position", 0)))
    return replace(
        stack_from_array(
            pixels.reshape(*sizes.values(), *SHAPE),
            axes=tuple(sizes),
            present=present if absent else None,
        ),
        pixel_size_yx_um=(0.1083, 0.1083),
        z_step_um=0.5,
        time_interval_s=2.0,
        channel_names=names,
        axis_values={"position": positions} if positions else {},
    )


def frames_by_name(stack: Stack) -> dict[frozenset[Any], Any]:
    """Return every frame that is there by what its axes say, those of one place left out."""
    names = {
        **stack.axis_values,
        **({"channel": stack.channel_names} if stack.channel_names else {}),
    }
    found = {}
    for index in map(int, stack.present_indices):
        axes = {
            name: names[name][place] if name in names else place
            for name, place in stack.axes(index).items()
            if stack.sizes[name] > 1
        }
        found[frozenset(axes.items())] = stack.frame(index)
    return found


def assert_same(given: Stack, found: Stack) -> None:
    assert found.dtype == given.dtype
    assert found.channel_names == given.channel_names
    assert found.pixel_size_yx_um == pytest.approx(given.pixel_size_yx_um, rel=1e-4)
    expected, read = frames_by_name(given), frames_by_name(found)
    assert read.keys() == expected.keys()
    for place, pixels in expected.items():
        np.testing.assert_array_equal(read[place], pixels)


@settings(max_examples=12)
@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_a_round_trip_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    axes = ["time", "channel", "z"] + ([] if form == "imagej" else ["position"])
    chosen = data.draw(st.lists(st.sampled_from(axes), unique=True, min_size=1))
    sizes = {name: data.draw(st.integers(2, 3)) for name in sorted(chosen, key=axes.index)}
    count = int(np.prod(list(sizes.values())))
    dtypes = ["uint8", "uint16"] + ([] if form == "ndtiff" else ["float32"])
    dtype = data.draw(st.sampled_from(dtypes))
    absent: frozenset[int] = frozenset()
    if form != "imagej":
        absent = data.draw(st.frozensets(st.integers(0, count - 1), max_size=min(3, count - 1)))
    stack = recording(sizes, dtype, absent)
    listed = form == "ndtiff" or (form == "tiff" and "position" in sizes)
    if stack.present is not None and listed:  # a list of frames tells of no place without any
        others = [tuple(set(range(len(sizes))) - {axis}) for axis in range(len(sizes))]
        assume(all(stack.present.any(axis=rest).all() for rest in others))
    name, options = FORMS[form]
    out = tmp_path_factory.mktemp("round") / name
    export_stack(stack, out, replace(options, pixel_type=dtype))
    assert_same(stack, open_stack(out))
    assert open_stack(out).absent == len(absent)


@pytest.mark.parametrize("form", ["ome-zarr", "imagej"])
def test_what_is_made_of_a_recording_is_shown_as_it_is(tmp_path: Path, form: str) -> None:
    given = recording({"time": 2, "channel": 2})
    name, options = FORMS[form]
    export_stack(given, tmp_path / name, replace(options, pixel_type="uint16"))
    first = open_stack(tmp_path / name)
    expected = [np.percentile(given.frame(i), [0.1, 99.9]) for i in range(2)]
    np.testing.assert_allclose(first.display_ranges, expected)
    half = replace(first, read=lambda place: first.read(place) // 2)
    export_stack(half, tmp_path / f"half {name}", replace(options, pixel_type="float32"))
    np.testing.assert_allclose(open_stack(tmp_path / f"half {name}").display_ranges, expected)


def test_an_export_that_was_stopped_says_so(tmp_path: Path) -> None:
    given, out = recording({"time": 3}), tmp_path / "out.ome.zarr"

    def stopped(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_stack(given, out, OutputForm(pixel_type="uint16"), on_progress=stopped)
    found = open_stack(out)
    assert (len(found), found.absent) == (3, 2)
    assert any("never finished" in remark for remark in found.remarks)
    export_stack(given, out, OutputForm(pixel_type="uint16"), overwrite=True)
    assert not open_stack(out).remarks


@pytest.mark.parametrize("form", ["ome-zarr", "tiff"])
def test_what_is_known_beside_the_pixels_goes_along(tmp_path: Path, form: str) -> None:
    name, options = FORMS[form]
    given = recording({"position": 2, "time": 3, "channel": 2, "z": 2})
    export_stack(given, tmp_path / name, replace(options, pixel_type="uint16"))
    found = open_stack(tmp_path / name)
    assert found.z_step_um == pytest.approx(0.5)
    assert found.time_interval_s == pytest.approx(2.0)
    assert found.axis_values["position"] == ("Pos0", "Pos1")


@pytest.mark.parametrize(
    ("form", "pixel_type", "words"),
    [
        ("ndtiff", "float32", "NDTiff holds uint8 or uint16"),
        ("imagej", "uint16", "1 of 6 frames were never recorded"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_leaves_nothing(
    tmp_path: Path, form: str, pixel_type: Any, words: str
) -> None:
    name, options = FORMS[form]
    given = recording({"time": 3, "channel": 2}, absent=frozenset({4}))
    with pytest.raises(OutputError, match=words):
        export_stack(given, tmp_path / name, replace(options, pixel_type=pixel_type))
    assert not (tmp_path / name).exists()


def test_a_disk_that_fills_up_at_the_end_leaves_no_half_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ndstorage import NDTiffDataset

    finish = NDTiffDataset.finish

    def full(self: Any) -> None:
        finish(self)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(NDTiffDataset, "finish", full)
    form = OutputForm(pixel_type="uint16", ndtiff=True)
    with pytest.raises(OutputError, match="No space left on device"):
        export_stack(recording({"time": 2}), tmp_path / "out", form)
    assert not list(tmp_path.glob("*out*"))


def test_smaller_resolutions_are_means_and_validate_elsewhere(tmp_path: Path) -> None:
    import yaozarrs

    pixels = np.random.default_rng(0).integers(0, 60_000, (2, 600, 515)).astype(np.uint16)
    given = replace(stack_from_array(pixels), pixel_size_yx_um=(0.2, 0.2))
    out = tmp_path / "out.ome.zarr"
    export_stack(given, out, OutputForm(pixel_type="uint16", pyramid=True))
    yaozarrs.validate_zarr_store(out)
    import zarr

    group = zarr.open_group(out, mode="r")
    assert [group[level].shape[-2:] for level in "012"] == [(600, 515), (300, 258), (150, 129)]
    np.testing.assert_array_equal(group["1"][1, 0, 0], halved(pixels[1]))
    levels = group.attrs["ome"]["multiscales"][0]["datasets"]
    scale, shift = levels[2]["coordinateTransformations"]
    assert scale["scale"][-2:] == pytest.approx([0.8, 0.8])
    # The first large pixel's centre is that of the 4 × 4 pixels under it.
    assert shift["translation"][-2:] == pytest.approx([0.3, 0.3])
    np.testing.assert_array_equal(open_stack(out).frame(1), pixels[1])


def test_means_of_whole_numbers_are_rounded() -> None:
    found = halved(np.array([[1, 2, 9], [3, 4, 9], [5, 5, 0]], np.uint8))
    assert found.tolist() == [[2, 9], [5, 0]]
    assert found.dtype == np.uint8


def test_the_command_writes_what_the_name_says(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 4096, (4, *SHAPE)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", frames, photometric="minisblack")
    for out, options in (
        ("out.tif", {"imagej": True}), ("out.ome.zarr", {}), ("nd", {"to": "ndtiff"})
    ):  # fmt: skip
        outcome = export(str(tmp_path / "in.tif"), tmp_path / out, **options)
        assert outcome.summary[-1] == str(tmp_path / out)
        written = open_stack(tmp_path / out)
        for index, frame in enumerate(written):
            np.testing.assert_array_equal(frame, frames[index])
    with pytest.raises(InferenceError, match="--to tiff"):
        export(str(tmp_path / "in.tif"), tmp_path / "x.ome.zarr", to="tiff")
    with pytest.raises(OutputError, match="is the same as"):
        export(str(tmp_path / "in.tif"), tmp_path / "in.tif", overwrite=True)
