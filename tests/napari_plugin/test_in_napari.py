"""The plugin in the real napari: the manifest, the reader and the widget.

Most of it without a window, whose canvas needs OpenGL; with the window where there is some:
`xvfb-run -a pytest -o filterwarnings=default tests/napari_plugin`.
"""

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


@pytest.fixture(scope="module", autouse=True)
def _plugin():
    """Let napari find the plugin, whether or not this checkout is installed."""
    manager = npe2.PluginManager.instance()
    manager.discover()
    if "quietscope" not in manager:
        manager.register(npe2.PluginManifest.from_file(MANIFEST))


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "a run"
    for name, dtype in (("raw", "uint16"), ("denoised", "float32")):
        with OmeZarrWriter(
            path / f"{name}.ome.zarr",
            frame_shape=SHAPE,
            dtype=dtype,
            pixel_size_um=0.5,
            attributes={"quietscope": {"kind": name}},
        ) as writer:
            for index in range(4):
                pixels = np.random.default_rng(index).poisson(100, SHAPE).astype(dtype)
                writer.write(pixels, {"time": index, "channel": "GFP"})
    return path


@pytest.fixture
def viewer():
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def widget(viewer, qtbot, make_bundle):
    from quietscope.napari_plugin.widget import DenoiseWidget

    made = DenoiseWidget(viewer)
    qtbot.addWidget(made)
    made.add_models(make_bundle())
    return made


@pytest.fixture
def until(qtbot):
    return lambda done: qtbot.waitUntil(done, timeout=30_000)


def test_the_manifest_is_valid():
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(MANIFEST), "--imports"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in (done.stdout + done.stderr).lower()


def test_a_run_opens(viewer, run):
    viewer.open(str(run), plugin="quietscope")
    assert [layer.name for layer in viewer.layers] == ["GFP a run raw", "GFP a run denoised"]
    assert tuple(viewer.layers[0].scale[-2:]) == (0.5, 0.5)
    assert viewer.layers[0].data[2].compute().any()


def test_the_sample_opens(viewer):
    viewer.open_sample("quietscope", "living-specimen")
    assert viewer.layers[0].data.shape == (24, 256, 256)


def test_the_widget_denoises_the_selected_layer(viewer, run, widget, until):
    viewer.open(str(run), plugin="quietscope")
    raw = viewer.layers[0]
    viewer.layers.selection.active = raw
    widget.uncertainty.setChecked(True)
    assert widget.layer_name.text() == "GFP a run raw"
    assert widget.axes.text() == "time,z,y,x"
    widget.denoise()
    until(lambda: len(viewer.layers) == 4)
    estimate = viewer.layers["GFP a run raw denoised"]
    assert estimate.data.dtype == np.float32
    assert estimate.data.shape == raw.data.shape
    assert tuple(estimate.scale) == tuple(raw.scale)
    assert not viewer.layers["GFP a run raw uncertainty"].visible
    until(widget.run.isEnabled)

    viewer.layers.selection.active = estimate
    assert widget.layer_name.text() == estimate.name


def test_a_second_press_begins_nothing_and_no_layer_nothing(viewer, widget):
    assert not widget.run.isEnabled()
    widget.denoise()
    assert "no image layer" in widget.said.text()
    viewer.add_labels(np.zeros(SHAPE, np.uint8))
    assert not widget.run.isEnabled()


def test_colours_are_refused(viewer, widget):
    viewer.add_image(np.zeros((*SHAPE, 3), np.uint8), name="photo", rgb=True)
    widget.denoise()
    assert "in colours" in widget.said.text()


def test_a_folder_without_models_is_said(widget, tmp_path):
    (tmp_path / "empty").mkdir()
    widget.add_models(tmp_path / "empty")
    assert "no model bundle" in widget.said.text()


def test_what_goes_wrong_is_a_sentence(viewer, widget, until, monkeypatch):
    viewer.add_image(np.zeros((3, *SHAPE), np.int64), name="counts")
    shown = []
    monkeypatch.setattr("quietscope.napari_plugin.widget.show_error", shown.append)
    widget.denoise()
    until(widget.run.isEnabled)
    assert "int64" in widget.said.text()
    assert shown == [widget.said.text()]
    assert len(viewer.layers) == 1


def test_stop_ends_it_and_adds_nothing(viewer, widget, until, monkeypatch):
    viewer.add_image(np.full((40, *SHAPE), 100, np.uint16), name="long")
    told = widget._progress

    def slowly(done, to_do):
        time.sleep(0.05)
        told(done, to_do)

    monkeypatch.setattr(widget, "_progress", slowly)
    widget.denoise()
    until(lambda: "of 40" in widget.said.text())
    widget.cancel()
    until(widget.run.isEnabled)
    assert widget.said.text().startswith("stopped")
    assert len(viewer.layers) == 1


def test_in_the_window(request, qapp, run, make_bundle, until):
    from qtpy.QtGui import QOpenGLContext

    if not QOpenGLContext().create():
        pytest.skip("the window's canvas needs OpenGL; under Xvfb there is some")
    viewer = request.getfixturevalue("make_napari_viewer")()
    viewer.open(str(run), plugin="quietscope")
    _, widget = viewer.window.add_plugin_dock_widget("quietscope", "Denoise")
    widget.add_models(make_bundle())
    viewer.layers.selection.active = viewer.layers[0]
    widget.denoise()
    until(lambda: len(viewer.layers) == 3)
    until(widget.run.isEnabled)
