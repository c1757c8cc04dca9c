"""What the live view shows beside the newest picture: history, traces, the past, colours.

The first half knows no window.
"""

import os
import sys
import time

import numpy as np
import pytest

from quietscope.acquisition.preview.mailbox import MailboxReader, MailboxWriter, Picture
from quietscope.acquisition.preview.model import Grade
from quietscope.acquisition.preview.newer_model import ask_for
from quietscope.acquisition.preview.recorded_run import past, recorded_frames
from quietscope.acquisition.preview.region_trace import Region, RegionTrace
from quietscope.acquisition.preview.verdict_history import VerdictHistory
from quietscope.storage.live_sessions import live_session
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.session_requests import (
    Answer,
    SessionAbout,
    announce,
    answer,
    requests_to,
)

SHAPE = (48, 64)


def picture(value=100.0, *, denoised=True):
    raw = np.random.default_rng(int(value)).poisson(value, SHAPE).astype(np.uint16)
    clean = np.full(SHAPE, value, np.float32)
    sure = np.full(SHAPE, 2.0, np.float32)
    return Picture(raw, clean if denoised else None, sure if denoised else None, {})


def test_a_moment_is_no_change_of_the_verdict():
    history = VerdictHistory()
    for second, grade in enumerate([Grade.GOOD] * 5 + [Grade.CARE] + [Grade.GOOD] * 4):
        history.add(grade, "", float(second), second)
    assert [span.grade for span in history.spans] == [Grade.GOOD]
    assert history.words() == ""


def test_when_it_turned_amber_is_kept():
    history = VerdictHistory()
    for second in range(100):
        grade = Grade.UNKNOWN if second < 3 else Grade.GOOD if second < 70 else Grade.CARE
        history.add(grade, "Look twice", float(second), 20 * second)
    assert [(span.grade, span.since_s) for span in history.spans] == [
        (Grade.GOOD, 3.0),
        (Grade.CARE, 70.0),
    ]
    assert history.words() == "with care since 1 min 10 s, image 1400; good before"


def test_a_region_is_averaged_and_its_band_does_not_shrink():
    trace = RegionTrace(Region(4, 5, 10, 20))
    for second, value in enumerate((100.0, 200.0)):
        trace.add(picture(value), float(second))
    times, raw, denoised, uncertainty = trace.curves().T
    assert times.tolist() == [0, 1]
    assert denoised.tolist() == [100, 200]
    np.testing.assert_allclose(raw, denoised, atol=4 * np.sqrt(200 / 200))  # shot noise of a mean
    assert uncertainty.tolist() == [2, 2]


def test_a_region_outside_of_a_smaller_picture_is_moved_into_it():
    trace = RegionTrace(Region(1000, -5, 10, 20))
    trace.add(picture(denoised=False), 0.0)
    _, raw, denoised, _ = trace.curves()[0]
    assert np.isfinite(raw)
    assert np.isnan(denoised)


@pytest.fixture
def growing(tmp_path):
    """A run whose frames hold their number, half of them denoised; still being written."""
    run = tmp_path / "run"
    run.mkdir()
    common = {"frame_shape": SHAPE}
    raw = OmeZarrWriter(run / "raw.ome.zarr", dtype="uint16", **common)
    denoised = OmeZarrWriter(run / "denoised.ome.zarr", dtype="float32", **common)
    with raw, denoised:
        for number in range(10):
            raw.write(np.full(SHAPE, number, np.uint16), {"time": number})
            if number < 5:
                denoised.write(np.full(SHAPE, number + 0.5, np.float32), {"time": number})
        end = time.monotonic() + 20
        while recorded_frames(run) < 10:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield run


def test_the_past_is_read_while_the_run_is_still_growing(growing):
    first, middle, last = (past(growing, share, "") for share in (0.0, 0.5, 1.0))
    assert (first.index, first.count) == (0, 10)
    assert first.picture.raw[3, 4] == 0
    assert middle.picture.raw[3, 4] == middle.index
    assert last.picture.raw[3, 4] == last.index == 9
    assert last.picture.denoised is None  # not yet
    assert "10" in last.place


def test_the_past_of_other_channels_is_of_the_same_moment(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    common = {"frame_shape": SHAPE, "dtype": "uint16"}
    with OmeZarrWriter(run / "raw.ome.zarr", **common) as raw:
        for moment, name in [(t, c) for t in range(4) for c in ("GFP", "RFP")]:
            if (moment, name) != (3, "RFP"):  # not yet
                value = moment + (100 if name == "RFP" else 0)
                raw.write(np.full(SHAPE, value, np.uint16), {"time": moment, "channel": name})
    found = past(run, 2 / 3, "GFP", ["RFP", "no such"])
    assert found.picture.raw[0, 0] == 2
    assert [other.raw[0, 0] for other in found.others] == [102]
    assert found.others[0].figures["channel"] == "RFP"
    assert past(run, 1.0, "GFP", ["RFP"]).others == ()


def test_a_damaged_moment_of_the_past_is_none_and_the_next_is_read(growing):
    damaged = max((growing / "raw.ome.zarr" / "0").glob("c.*"), key=str)
    whole = damaged.read_bytes()
    damaged.write_bytes(b"no chunk")
    found = [past(growing, share, "") for share in np.linspace(0, 1, 10)]
    damaged.write_bytes(whole)  # the writer reads it back when it closes
    assert None in found
    assert any(found)


def test_where_nothing_was_recorded_there_is_no_past(tmp_path):
    assert past(tmp_path, 0.5, "") is None
    assert recorded_frames(tmp_path) == 0


# --------------------------------------------------------------------------- in the window


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
def window(application, tmp_path, growing, monkeypatch):
    from quietscope.acquisition.preview.window import PreviewWindow

    raised = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: raised.append(error))
    about = {"title": "run", "run": str(growing), "pixel_size_um": 0.1}
    writer = MailboxWriter.create(SHAPE, "uint16", about, directory=tmp_path)
    shown = PreviewWindow(MailboxReader(writer.path), embedded=True)
    shown.resize(1200, 700)
    shown.show()
    shown.show_picture(picture())
    yield shown
    shown.close()
    shown.deleteLater()
    writer.close(remove=True)
    assert raised == []


def press(window, key):
    from PySide6.QtTest import QTest

    window.activateWindow()
    assert QTest.qWaitForWindowActive(window)
    QTest.keyClick(window, key)


def test_the_space_bar_holds_and_presses_what_has_the_focus(window):
    from PySide6.QtCore import Qt
    from PySide6.QtWidgets import QPushButton

    press(window, Qt.Key.Key_Space)
    assert window.hold_button.isChecked()
    pressed = []
    other = QPushButton("of the window around it", window)
    other.clicked.connect(lambda: pressed.append(True))
    other.show()
    other.setFocus()
    press(window, Qt.Key.Key_Space)
    assert pressed == [True]
    assert window.hold_button.isChecked()


def test_the_wiper_shows_the_camera_left_of_its_line(window):
    from PySide6.QtCore import Qt

    press(window, Qt.Key.Key_W)
    assert not window.raw_panel.isVisible()
    now = window._picture
    window.images.wipe_line.setValue(20)
    shown = window.denoised_panel.layers[0].image
    np.testing.assert_array_equal(shown[:, :20], now.raw[:, :20])
    np.testing.assert_array_equal(shown[:, 20:], now.denoised[:, 20:])
    press(window, Qt.Key.Key_W)
    assert window.raw_panel.isVisible()
    np.testing.assert_array_equal(window.denoised_panel.layers[0].image, now.denoised)


def test_a_region_is_followed_and_begins_anew_where_it_is_moved(window):
    from PySide6.QtCore import Qt

    press(window, Qt.Key.Key_T)
    assert window.trace_plot.widget.isVisible()
    for value in (100.0, 150.0):
        window.show_picture(picture(value))
    window._draw_trace()
    np.testing.assert_array_equal(window.trace_plot.denoised.yData, [100, 150])
    assert window._reader._reader["wants_uncertainty"]
    window.images.region_box.setPos(1, 1)
    assert window._trace.curves().size == 0
    press(window, Qt.Key.Key_T)
    assert window.profile_plot.widget.isVisible()
    assert not window._reader._reader["wants_uncertainty"]


def test_each_channel_keeps_its_colours(window):
    from PySide6.QtCore import Qt

    from quietscope.acquisition.preview.style import TABLES

    window.show_picture(of_channel("GFP"))
    press(window, Qt.Key.Key_L)
    chosen = window.bar.table_box.currentText()
    assert chosen != "Grey"
    window.show_picture(of_channel("RFP"))
    assert window.bar.table_box.currentText() == "Grey"
    window.show_picture(of_channel("GFP"))
    assert window.bar.table_box.currentText() == chosen
    np.testing.assert_array_equal(window.raw_panel.layers[0].table, TABLES[chosen]())


def of_channel(name, value=100.0):
    shown = picture(value)
    return Picture(shown.raw, shown.denoised, None, {"channel": name}, 1, ("GFP", "RFP"))


def test_channels_are_merged_and_one_is_left_out_by_its_number(window):
    from PySide6.QtCore import Qt

    window.show_picture(of_channel("GFP"))
    assert window.bar.merge.isVisible()
    press(window, Qt.Key.Key_M)
    assert window._reader._reader["wants_all_channels"]
    window.show_picture(of_channel("RFP", 200.0))
    assert window.channels.now.name == "GFP"  # its figures and contrast stay
    for panel in (window.raw_panel, window.denoised_panel):
        assert len(panel.layers) == 2
        assert panel.item.image.shape[-1] == 3
        assert all(name in panel.hint.text() for name in ("GFP", "RFP"))
    np.testing.assert_array_equal(window.denoised_panel.layers[1].image, 200.0)
    press(window, Qt.Key.Key_W)  # the wiper wipes the sum
    window.images.wipe_line.setValue(20)
    np.testing.assert_array_equal(window.denoised_panel.layers[1].image[:, 20:], 200.0)
    press(window, Qt.Key.Key_W)
    press(window, Qt.Key.Key_2)
    assert [layer.image[0, 0] for layer in window.denoised_panel.layers] == [100.0]
    press(window, Qt.Key.Key_C)
    assert window.channels.now.name == "RFP"
    assert window.channel_box.currentText() == "RFP"
    press(window, Qt.Key.Key_M)
    assert not window._reader._reader["wants_all_channels"]
    assert window._reader._reader["wanted_channel"].item() == b"RFP"
    assert len(window.denoised_panel.layers) == 1
    assert window.denoised_panel.item.image.ndim == 2


def test_all_colours_grow_steadily_in_brightness_and_mark_saturation():
    from quietscope.acquisition.preview.style import TABLES, grey_table

    for name, make in TABLES.items():
        table = make().astype(float)
        bright = table[:255] @ [0.2126, 0.7152, 0.0722]
        steps = np.diff(bright) * (-1 if "inverted" in name else 1)
        assert steps.min() >= -0.6, name  # of rounding
        assert table[255].tolist() == grey_table()[255].tolist()


def test_looking_back_shows_the_past_and_returns(window):
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    def until(condition):
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            QTest.qWait(10)

    press(window, Qt.Key.Key_Left)
    until(lambda: window._picture.raw[3, 4] == 9)
    assert "Looking back" in window.pill.text()
    assert "of 10" in window.look_back.time_line.text.text()
    window.look_back.time_line.slider.setValue(0)
    until(lambda: window._picture.raw[3, 4] == 0)
    press(window, Qt.Key.Key_Home)
    assert not window.look_back.active
    assert window.look_back.time_line.text.text() == "now"


def test_the_history_is_drawn_as_a_strip(window):
    figures = {"residual_explained": 0.97, "residual_correlation": 0.01}
    figures |= {"saturated_share": 0.0}
    for second, share in enumerate([0.97] * 4 + [0.5] * 8):
        now = picture()
        extra = {"residual_explained": share, "elapsed_s": float(second), "frame_index": second}
        window.channels.now.average.figures.clear()
        window.show_picture(Picture(now.raw, now.denoised, None, figures | extra))
        window.refresh()
    assert [span.grade for span in window.side.history._spans] == [Grade.GOOD, Grade.BAD]
    assert "bad since 4" in window.side.history_words.text()


def test_what_the_mouse_does_the_keys_do_too(window):
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    control, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
    window.activateWindow()
    assert QTest.qWaitForWindowActive(window)
    low, high = window.contrast.limits
    QTest.keyClick(window, Qt.Key.Key_Down, control)
    assert window.contrast.limits.low == low
    assert window.contrast.limits.high < high
    QTest.keyClick(window, Qt.Key.Key_Down, control | shift)
    assert window.contrast.limits.low < low
    assert not window.contrast_plot.auto_box.isChecked()
    QTest.keyClick(window, Qt.Key.Key_K)
    assert window.contrast_plot.auto_box.isChecked()
    assert window.contrast_plot.rule_box.currentText() == "Strong"
    row = window._row
    QTest.keyClick(window, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert window._row == row + 1
    seen = window.raw_panel.box.viewRect().width()
    QTest.keyClick(window, Qt.Key.Key_Plus)
    assert window.raw_panel.box.viewRect().width() < 0.9 * seen
    press(window, Qt.Key.Key_W)
    at = window.images.wipe_line.value()
    QTest.keyClick(window, Qt.Key.Key_Left, control)
    assert window.images.wipe_line.value() < at


def test_a_newer_model_is_offered_and_asked_for_by_its_key(window, growing, tmp_path, monkeypatch):
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state"))
    shown = picture()
    figures = {"newer_model": str(tmp_path / "models" / "better")}
    with live_session() as place:
        announce(place, SessionAbout(run=str(growing)))
        window.show_picture(Picture(shown.raw, shown.denoised, None, figures))
        window.refresh()
        assert window.bar.newer.isVisible()
        assert "better" in window.bar.newer.toolTip()
        press(window, Qt.Key.Key_N)
        end = time.monotonic() + 20
        while not (asked := requests_to(place)):
            assert time.monotonic() < end
            QTest.qWait(10)
        assert not window.bar.newer.isVisible()  # one question at a time
        ((name, request),) = asked
        assert request.model == figures["newer_model"]
        answer(place, name, Answer(granted=True, words="better works from frame 7 on"))
        while "frame 7" not in window.pill.text():
            assert time.monotonic() < end
            QTest.qWait(10)


def test_a_run_that_has_ended_says_so_when_it_is_asked(growing, tmp_path, monkeypatch):
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state"))
    said = ask_for(growing, tmp_path / "better")
    assert not said.granted
    assert "has ended" in said.words
