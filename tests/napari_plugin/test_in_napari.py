"""The plugin in the real napari, without a screen: the manifest, the reader and the widget."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

napari = pytest.importorskip("napari", reason="needs the extra napari")
npe2 = pytest.importorskip("npe2")
pytest.importorskip("pytestqt", reason="needs pytest-qt")

import quietscope  # noqa: E402
from quietscope.storage.ome_zarr_writer import OmeZarrWriter  # noqa: E402

MANIFEST = Path(quietscope.__file__).parent / "napari_plugin" / "napari.yaml"
SHAPE = (32, 40)


@pytest.fixture
def plugin():
    """Give the plugin as napari would find it, whether or not the package is installed."""
    manager = npe2.PluginManager.instance()
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    there = "quietscope" in manager
    if not there:
        manager.register(manifest)
    yield manager
    if not there:
        manager.unregister("quietscope")


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "a run"
    for name, kind in (("raw", "raw"), ("denoised", "denoised")):
        dtype = "uint16" if kind == "raw" else "float32"
        with OmeZarrWriter(
            path / f"{name}.ome.zarr",
            frame_shape=SHAPE,
            dtype=dtype,
            pixel_size_um=0.5,
            attributes={"quietscope": {"kind": kind}},
        ) as writer:
            for index in range(4):
                pixels = np.random.default_rng(index).poisson(100, SHAPE).astype(dtype)
                writer.write(pixels, {"time": index, "channel": "GFP"})
    return path


def test_the_manifest_is_valid():
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(MANIFEST), "--imports"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in (done.stdout + done.stderr).lower()


def test_a_run_opens_in_the_viewer(plugin, make_napari_viewer, run):
    viewer = make_napari_viewer()
    viewer.open(str(run), plugin="quietscope")
    assert [layer.name for layer in viewer.layers] == ["GFP a run raw", "GFP a run denoised"]
    assert tuple(viewer.layers[0].scale[-2:]) == (0.5, 0.5)
    assert viewer.layers[0].data[2].compute().any()


def test_the_sample_opens(plugin, make_napari_viewer):
    viewer = make_napari_viewer()
    viewer.open_sample("quietscope", "living-specimen")
    assert viewer.layers[0].data.shape == (24, 256, 256)


def wait_until(qtbot, done):
    qtbot.waitUntil(done, timeout=30_000)


def test_the_widget_denoises_the_selected_layer(
    plugin, make_napari_viewer, run, make_bundle, qtbot
):
    viewer = make_napari_viewer()
    viewer.open(str(run), plugin="quietscope")
    _, widget = viewer.window.add_plugin_dock_widget("quietscope", "Denoise")
    viewer.layers.selection.active = viewer.layers[0]
    widget.add_models(make_bundle())
    widget.uncertainty.setChecked(True)
    assert widget.layer_name.text() == "GFP a run raw"
    assert widget.axes.text() == "time,z,y,x"
    widget.denoise()
    wait_until(qtbot, lambda: len(viewer.layers) == 4)
    estimate = viewer.layers["GFP a run raw denoised"]
    assert estimate.data.dtype == np.float32
    assert tuple(estimate.scale) == tuple(viewer.layers[0].scale)
    assert not viewer.layers["GFP a run raw uncertainty"].visible
    wait_until(qtbot, lambda: widget.run.isEnabled())

    viewer.layers.selection.active = estimate
    wait_until(qtbot, lambda: widget.layer_name.text() == estimate.name)


def test_what_goes_wrong_is_a_sentence(
    plugin, make_napari_viewer, make_bundle, qtbot, monkeypatch
):
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("quietscope", "Denoise")
    assert not widget.run.isEnabled()
    viewer.add_image(np.zeros((3, *SHAPE), np.int64), name="counts")
    widget.add_models(make_bundle())
    shown = []
    monkeypatch.setattr("quietscope.napari_plugin.widget.show_error", shown.append)
    widget.denoise()
    wait_until(qtbot, lambda: widget.run.isEnabled())
    assert "int64" in widget.said.text()
    assert shown == [widget.said.text()]
    assert len(viewer.layers) == 1


def test_stop_ends_it_and_adds_nothing(
    plugin, make_napari_viewer, make_bundle, qtbot, monkeypatch
):
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("quietscope", "Denoise")
    viewer.add_image(np.full((40, *SHAPE), 100, np.uint16), name="long")
    widget.add_models(make_bundle())
    told = widget._progress

    def slowly(done, to_do):
        time.sleep(0.05)
        told(done, to_do)

    monkeypatch.setattr(widget, "_progress", slowly)
    widget.denoise()
    wait_until(qtbot, lambda: "of 40" in widget.said.text())
    widget.cancel()
    wait_until(qtbot, lambda: widget.run.isEnabled())
    assert widget.said.text().startswith("stopped")
    assert len(viewer.layers) == 1
