"""What napari is given, without napari: layers of stores and runs, and the job on one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quietscope.errors import QuietscopeError
from quietscope.inference.general.choice import GENERAL
from quietscope.napari_plugin.layers import METADATA, layers_of
from quietscope.napari_plugin.reader import get_reader
from quietscope.napari_plugin.sample_data import living_specimen
from quietscope.napari_plugin.selected_layer import (
    Asked,
    LayerError,
    denoise_layer,
    models_of,
    suggested_axes,
)
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array

pytest.importorskip("dask.array")

SHAPE = (32, 40)


def write(path: Path, frames: int, *, channels=("DAPI", "GFP"), leave_out=(), **options):
    rng = np.random.default_rng(0)
    attributes = {"quietscope": {"kind": options.pop("kind", "raw")}}
    dtype = options.pop("dtype", "uint16")
    with OmeZarrWriter(
        path, frame_shape=SHAPE, dtype=dtype, pixel_size_um=0.5, attributes=attributes, **options
    ) as writer:
        for time in range(frames):
            for channel in channels:
                if (time, channel) not in leave_out:
                    pixels = rng.poisson(100, SHAPE).astype(dtype)
                    writer.write(pixels, {"time": time, "channel": channel})


def asked(layer, **changes) -> Asked:
    data, shown, _ = layer
    shown = {"contrast_limits": (0, 1), **shown}
    metadata = shown.pop("metadata")
    given = {"data": data, "axes": "", "shown": shown, "metadata": metadata, "model": GENERAL}
    return Asked(**{**given, **changes})


def test_a_store_is_a_layer_per_channel_read_on_demand(tmp_path):
    store = tmp_path / "with space.ome.zarr"
    write(store, 4, leave_out=((3, "GFP"),))
    reader = get_reader(str(store))
    (dapi, shown, kind), (gfp, other, _) = reader(str(store))
    assert (shown["name"], other["name"]) == ("DAPI with space", "GFP with space")
    assert (shown["colormap"], other["colormap"], kind) == ("magenta", "green", "image")
    assert shown["scale"][-2:] == [0.5, 0.5]
    assert shown["units"][-2:] == ["micrometer", "micrometer"]
    assert dapi.shape == gfp.shape == (4, 1, *SHAPE)
    stack = open_stack(store)
    np.testing.assert_array_equal(dapi[2, 0], stack.channel(0).frame(2))
    np.testing.assert_array_equal(gfp[1:3, 0, 5:9, 7].compute()[0], stack.frame(3)[5:9, 7])
    assert not gfp[3].compute().any(), "a frame that was never recorded is dark"


def test_a_run_shows_raw_denoised_and_uncertainty(tmp_path):
    run = tmp_path / "monday"
    for name, kind, dtype in [
        ("raw.ome.zarr", "raw", "uint16"),
        ("denoised.ome.zarr", "denoised", "float32"),
        ("uncertainty.ome.zarr", "denoised", "float32"),
    ]:
        write(run / name, 2, channels=("GFP",), kind=kind, dtype=dtype)
    layers = get_reader(str(run))(str(run))
    assert [shown["name"] for _, shown, _ in layers] == [
        "GFP monday raw",
        "GFP monday denoised",
        "GFP monday uncertainty",
    ]
    assert [shown["metadata"][METADATA].shows for _, shown, _ in layers] == [
        "raw",
        "denoised",
        "uncertainty",
    ]
    assert [shown["visible"] for _, shown, _ in layers] == [True, True, False]


def test_what_is_not_ours_is_left_to_others(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    for path in (tmp_path / "pictures", tmp_path / "notes.txt", tmp_path / "nowhere.zarr"):
        assert get_reader(str(path)) is None
    assert get_reader([]) is None


def test_the_sample_is_noisy_and_denoised_by_the_general_model():
    ((data, shown, kind),) = living_specimen()
    assert kind == "image"
    assert data.shape == (24, 256, 256)
    part = stack_from_array(data[:3, :64, :64].compute())
    done: list[tuple[int, int]] = []
    layers = denoise_layer(
        asked(layers_of(part, "part", "raw")[0], uncertainty=True),
        lambda *counts: done.append(counts),
    )
    (estimate, about, _), (spread, other, _) = layers
    assert about["name"] == "part denoised"
    assert other["name"] == "part uncertainty"
    assert estimate.shape == spread.shape == (3, 64, 64)
    assert done[-1] == (3, 3)
    raw = part.frames([0, 1, 2]).astype(np.float32)
    rough = [np.abs(np.diff(pixels)).mean() for pixels in (raw, estimate)]
    assert rough[1] < 0.5 * rough[0]
    assert shown["name"].endswith("(simulated)")


def test_a_bundle_denoises_a_plain_array_by_its_axes(tmp_path, make_bundle):
    pixels = np.random.default_rng(0).poisson(100, (2, 3, *SHAPE)).astype(np.uint16)
    given = {"data": pixels, "shown": {"name": "mine", "contrast_limits": (0, 9)}, "metadata": {}}
    model = make_bundle()
    layers = denoise_layer(Asked(axes="tzyx", model=model, **given), lambda *_: None)
    assert layers[0][0].shape == pixels.shape
    with pytest.raises(QuietscopeError, match='axes="tzyx"'):
        denoise_layer(Asked(axes="", model=model, **given), lambda *_: None)
    given["data"] = pixels.astype(np.int64)
    with pytest.raises(QuietscopeError, match="int64"):
        denoise_layer(Asked(axes="tzyx", model=model, **given), lambda *_: None)


def test_what_is_denoised_already_is_refused(tmp_path, make_bundle):
    write(tmp_path / "clean.ome.zarr", 2, kind="denoised", dtype="float32")
    layer = get_reader(str(tmp_path / "clean.ome.zarr"))(str(tmp_path / "clean.ome.zarr"))[0]
    with pytest.raises(LayerError, match="denoised already"):
        denoise_layer(asked(layer, model=make_bundle()), lambda *_: None)


def test_what_was_made_of_a_layer_is_denoised_and_not_the_layer(tmp_path, make_bundle):
    """A layer keeps its metadata when its pixels are replaced."""
    write(tmp_path / "raw.ome.zarr", 2, channels=("GFP",))
    layer = get_reader(str(tmp_path / "raw.ome.zarr"))(str(tmp_path / "raw.ome.zarr"))[0]
    model = make_bundle()
    ((whole, _, _),) = denoise_layer(asked(layer, model=model), lambda *_: None)
    brighter = layer[0].compute() + np.uint16(200)
    changed = asked(layer, model=model, data=brighter, axes="tcyx")
    ((found, shown, _),) = denoise_layer(changed, lambda *_: None)
    assert (found - whole).mean() > 100
    with pytest.raises(LayerError, match="denoised already"):
        denoise_layer(asked((found, shown, "image"), model=model), lambda *_: None)


def test_a_result_that_does_not_fit_is_refused_before_it_begins(make_bundle, monkeypatch):
    (layer,) = living_specimen()
    monkeypatch.setattr("quietscope.napari_plugin.selected_layer.MOST_OF_MEMORY", 0.0)
    with pytest.raises(LayerError, match="quietscope denoise"):
        denoise_layer(asked(layer, model=make_bundle()), lambda *_: None)


@pytest.mark.parametrize(
    ("dimensions", "labels", "suggested"),
    [
        (3, ("-3", "-2", "-1"), "tyx"),
        (3, ("z", "y", "x"), "z,y,x"),
        (4, ("time", "z", "y", "x"), "time,z,y,x"),
        (4, ("-4", "-3", "-2", "-1"), ""),
        (2, (), "yx"),
    ],
)
def test_axes_are_suggested_where_they_are_known(dimensions, labels, suggested):
    assert suggested_axes(dimensions, labels, {}) == suggested


def test_models_of_a_folder_without_any(tmp_path):
    assert models_of(tmp_path) == []
