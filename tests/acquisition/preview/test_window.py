"""The window itself, offscreen: what it shows and what a click does.

Skipped with the reason where Qt cannot be loaded.
"""

import os
import sys
import time

import numpy as np
import pytest

from quietscope.acquisition.preview.display_levels import SATURATED
from quietscope.acquisition.preview.link import render_snapshot
from quietscope.acquisition.preview.mailbox import MailboxReader, MailboxWriter, ReaderState
from quietscope.acquisition.preview.model import Grade

FIGURES = {
    "frame_rate_hz": 48.3,
    "latency_ms": 23.4,
    "frames_recorded": 1204,
    "frames_denoised": 1190,
    "frames_skipped_live": 14,
    "residual_explained": 0.97,
    "residual_correlation": 0.01,
    "uncertainty_adu_median": 2.0,
    "saturated_share": 0.0,
    "provider": "CPUExecutionProvider",
    "model": "models/gfp",
    "elapsed_s": 25.0,
    "simulated": True,
}


def specimen(shape=(120, 160)):
    """A bright disc in noise, and its clean form."""
    y, x = np.indices(shape)
    signal = 120 + 300 * np.exp(-((x - 50) ** 2 + (y - 40) ** 2) / 400)
    return np.random.default_rng(0).poisson(signal).astype(np.uint16), signal.astype(np.float32)


@pytest.fixture(scope="module")
def application(qt):
    before = os.environ.get("QT_QPA_PLATFORM")
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    from PySide6.QtWidgets import QApplication

    yield QApplication.instance() or QApplication([])
    if before is None:
        del os.environ["QT_QPA_PLATFORM"]
    else:
        os.environ["QT_QPA_PLATFORM"] = before


@pytest.fixture
def writer(tmp_path):
    made = MailboxWriter.create(
        (120, 160),
        "uint16",
        {"title": "Well B3", "pixel_type": "uint16", "pixel_size_um": 0.1, "saturation_adu": 4095},
        directory=tmp_path,
    )
    yield made
    made.close(remove=True)


@pytest.fixture
def window(application, writer, monkeypatch):
    from quietscope.acquisition.preview.window import PreviewWindow

    # Qt prints what a slot raises and goes on; here it fails the test.
    raised = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: raised.append(error))
    shown = PreviewWindow(MailboxReader(writer.path))
    shown.resize(1280, 720)
    shown.show()
    yield shown
    if shown.isVisible():
        shown.close()
    shown.deleteLater()
    application.processEvents()
    assert raised == []


@pytest.fixture
def until(application):
    def wait(condition, timeout_s=8.0):
        end = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < end:
            application.processEvents()
            time.sleep(0.005)
        return condition()

    return wait


def put(writer, figures=FIGURES, uncertainty=None, channels=(), raw=None):
    noisy, denoised = specimen()
    writer.put(noisy if raw is None else raw, denoised, uncertainty, figures, channels)


def test_it_waits_then_shows_both_images_at_one_contrast(window, writer, until):
    assert window.raw_panel.message.text() == "Waiting for the first image"
    assert "Waiting" in window.pill.text()
    put(writer)
    assert until(lambda: writer.taken and "Live" in window.pill.text())
    assert window.raw_panel.message.text() == ""
    assert window.raw_panel.layers[0].limits == window.denoised_panel.layers[0].limits
    greys = window.denoised_panel.item.image
    assert greys.max() > 240
    assert greys.min() < 10
    assert window.windowTitle().startswith("Well B3")


def test_the_figures_are_in_words(window, writer, until):
    put(writer)
    assert until(lambda: window.verdict_card.lamp.grade is Grade.GOOD)
    assert window.verdict_card.headline.text() == "You can trust this picture"
    assert [row.value.text() for row in window.speed_rows] == [
        "48.3 images/s",
        "23 ms",
        "1,204",
        "1,190",
        "14 (1.2 %)",
    ]
    assert window.badge.isVisible()
    put(writer, {**FIGURES, "simulated": False, "saturated_share": 0.2})
    assert until(lambda: window.verdict_card.lamp.grade is Grade.BAD)
    assert window.verdict_card.headline.text() == "Too much light"
    assert not window.badge.isVisible()


def test_zoom_is_the_same_in_all_panels(window, writer, until):
    from PySide6.QtCore import QRectF

    put(writer)
    assert until(lambda: writer.taken)
    until(lambda: False, 0.1)
    window.denoised_panel.show_range(QRectF(10, 20, 40, 30))
    window.denoised_panel.box.sigRangeChangedManually.emit(None)
    assert np.allclose(
        window.raw_panel.box.viewRange(), window.denoised_panel.box.viewRange(), atol=1.5
    )
    window.fit()
    (left, right), (top, bottom) = window.raw_panel.box.viewRange()
    assert left <= 0 < 160 <= right
    assert top <= 0 < 120 <= bottom


def test_saturated_pixels_are_marked_in_both_images(window, writer, until):
    raw, _ = specimen()
    raw[60:64, 100:104] = 4095
    put(writer, raw=raw)
    assert until(lambda: writer.taken)
    for panel in (window.raw_panel, window.denoised_panel):
        assert np.count_nonzero(panel.item.image == SATURATED) == 16


def test_contrast_by_hand_and_back(window, writer, until):
    put(writer)
    assert until(lambda: writer.taken)
    automatic = window.contrast.limits
    window.contrast_plot.levels.setRegion((200, 300))
    assert not window.contrast_plot.auto_box.isChecked()
    put(writer)
    assert until(lambda: writer.taken)
    assert window.raw_panel.layers[0].limits == (200, 300)
    window.contrast_plot.auto_box.setChecked(True)
    assert window.denoised_panel.layers[0].limits == pytest.approx(automatic, rel=0.01)
    window.contrast_plot.rule_box.setCurrentIndex(2)
    assert window.contrast.limits == pytest.approx((120, 420), abs=2)


def test_the_mouse_shows_pixel_and_profile(window, writer, until):
    put(writer)
    assert until(lambda: writer.taken)
    window.raw_panel.pointed.emit(50.4, 40.9)
    raw, denoised = specimen()
    for words in ("x 50, y 40", f"camera {raw[40, 50]}<", "denoised 420<"):
        assert words in window.profile_plot.text.text()
    _, profile = window.profile_plot.denoised.getData()
    assert np.array_equal(profile, denoised[40])
    window.raw_panel.pointed.emit(-5, 1e6)
    assert "x 50, y 40" in window.profile_plot.text.text(), "outside the image nothing changes"


def test_a_third_image_shows_what_was_removed_or_the_uncertainty(window, writer, until):
    put(writer)
    assert until(lambda: writer.taken)
    removed, uncertainty = window.extra.buttons()
    removed.click()
    assert window.extra_panel.isVisible()
    raw, denoised = specimen()
    assert np.allclose(window.extra_panel.layers[0].image, raw - denoised)
    assert not writer.wants_uncertainty
    uncertainty.click()
    assert not removed.isChecked()
    assert writer.wants_uncertainty
    assert window.extra_panel.message.text() == "Waiting for the next image"
    put(writer, uncertainty=np.sqrt(denoised))
    assert until(lambda: window.extra_panel.layers)
    assert window.extra_panel.message.text() == ""
    uncertainty.click()
    assert not window.extra_panel.isVisible()
    assert not writer.wants_uncertainty


def test_hold_keeps_the_picture_and_says_so(window, writer, until):
    put(writer)
    assert until(lambda: writer.taken)
    window.hold_button.click()
    assert "Held" in window.pill.text()
    put(writer)
    assert not until(lambda: writer.taken, 0.3)
    window.hold_button.click()
    assert until(lambda: writer.taken)


def test_a_channel_can_be_chosen_and_keeps_its_contrast(window, writer, until):
    put(writer, {**FIGURES, "channel": "GFP"}, channels=["GFP"])
    assert until(lambda: writer.taken)
    assert not window.channel_box.isVisible()
    put(writer, {**FIGURES, "channel": "GFP"}, channels=["GFP", "DAPI"])
    assert until(lambda: window.channel_box.isVisible())
    window.contrast_plot.levels.setRegion((200, 300))
    window.channel_box.textActivated.emit("DAPI")
    assert writer.wanted_channel == "DAPI"
    put(writer, {**FIGURES, "channel": "DAPI"}, channels=["GFP", "DAPI"])
    assert until(lambda: writer.taken)
    assert window.contrast_plot.auto_box.isChecked()
    assert window.contrast.limits != (200, 300)
    put(writer, {**FIGURES, "channel": "GFP"}, channels=["GFP", "DAPI"])
    assert until(lambda: writer.taken)
    assert window.contrast.limits == (200, 300)
    assert not window.contrast_plot.auto_box.isChecked()


def test_without_a_model_it_shows_the_camera_and_says_so(window, writer, until):
    raw, _ = specimen()
    writer.put(raw, None, None, {"frames_recorded": 3})
    assert until(lambda: window.verdict_card.headline.text() == "Recording only")
    assert window.denoised_panel.message.text() == "No model denoises this run"


def test_frames_of_another_shape_fit_into_the_same_window(window, writer, until):
    put(writer)
    assert until(lambda: writer.taken)
    window.raw_panel.pointed.emit(150, 110)
    small = np.full((20, 30), 100, np.uint16)
    writer.put(small, small, None, {})
    assert until(lambda: writer.taken)
    (left, right), _ = window.raw_panel.box.viewRange()
    assert right - left < 120


def test_broken_pictures_do_not_break_the_window(window, writer, until):
    raw, denoised = specimen()
    denoised[:] = np.nan
    writer.put(raw, denoised, np.full_like(denoised, np.inf), {"latency_ms": float("nan")})
    assert until(lambda: writer.taken)
    window.show_extra(1)
    window.show_extra(0)
    put(writer, dict.fromkeys(FIGURES))
    assert until(lambda: writer.taken)


def test_the_words_grow_with_the_window(window):
    window.resize(1280, 720)
    small = window.side.width()
    window.resize(1920, 1080)
    assert window.side.width() > 1.2 * small


def test_everything_fits_at_the_smallest_size(window, writer, until):
    figures = {**FIGURES, "residual_explained": 0.1, "uncertainty_adu_median": 1e3}
    window.show_extra(1)
    put(writer, figures, np.full((120, 160), 123.4, np.float32), ["GFP", "a long channel name"])
    assert until(lambda: window.verdict_card.lamp.grade is Grade.BAD)
    window.raw_panel.pointed.emit(50.4, 40.9)
    window.resize(1280, 720)
    until(lambda: False, 0.1)
    assert window.width() == 1280, "no text forces the window to be wider"
    assert window.height() == 720
    for row in window.trust_rows:
        assert row.value.sizeHint().width() <= row.value.width() + 1, row.value.text()


def test_closing_the_window_is_told_to_the_acquisition(window, writer, until):
    put(writer)
    assert until(lambda: writer.taken)
    window.close()
    assert writer.reader_state is ReaderState.CLOSED_BY_USER
    assert writer.path.exists(), "the acquisition still holds the mailbox"


def test_when_the_run_ends_the_window_says_so_and_goes_if_nobody_sees_it(window, writer, until):
    put(writer)
    assert until(lambda: writer.taken)
    writer.end()
    window.refresh()
    assert "finished" in window.pill.text()
    assert until(lambda: not window.isVisible())
    assert writer.reader_state is not ReaderState.CLOSED_BY_USER


def test_the_snapshot_is_a_picture_of_the_window(application, tmp_path):
    from PySide6.QtGui import QImage

    raw, denoised = specimen()
    path = tmp_path / "a folder" / "picture.png"
    path.parent.mkdir()
    made = render_snapshot(
        raw, denoised, FIGURES, path, uncertainty=np.sqrt(denoised), title="T", size=(1400, 800)
    )
    assert made == (path, "")
    image = QImage(str(path))
    assert (image.width(), image.height()) == (1400, 800)
    colours = {image.pixel(x, y) for x in range(0, 1400, 7) for y in range(0, 800, 7)}
    assert len(colours) > 100, "an empty window would have a handful"


def test_a_snapshot_that_cannot_be_written_says_why(application, tmp_path):
    raw, denoised = specimen()
    made = render_snapshot(raw, denoised, {}, tmp_path / "missing folder" / "picture.png")
    assert made.path is None
    assert "could not be written" in made.reason
    made = render_snapshot(raw, denoised[1:], {}, tmp_path / "picture.png")
    assert made.path is None
    assert "shape" in made.reason


def test_doubts_circle_what_was_lost_and_what_was_invented(window, writer, until):
    put(writer, {**FIGURES, "places": [[10, 20, 2.4, 7.0], [50, 60, 4.8, -8.0]]})
    assert until(lambda: writer.taken)
    shown = window.denoised_panel.places
    assert len(shown.points()) == 0
    window.bar.doubts.click()
    lost, invented = shown.points()
    assert (lost.pos().x(), lost.pos().y()) == (20.5, 10.5)
    assert lost.symbol() != invented.symbol(), "told apart without colour as well"
    window.bar.doubts.click()
    assert len(shown.points()) == 0
