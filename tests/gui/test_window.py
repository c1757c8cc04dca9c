"""The window itself, offscreen: a page for every state, what a click and a key do."""

import json
import os
import sys

import numpy as np
import pytest

from quietscope.acquisition.preview.mailbox import MailboxWriter
from quietscope.gui.session import ORDER, Session


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
def window(application, tmp_path, monkeypatch):
    from quietscope.gui.window.main_window import MainWindow

    # Qt prints what a slot raises and goes on; here it fails the test.
    raised = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: raised.append(error))
    session = Session(tmp_path / "state")
    session.facts.remember(workspace=tmp_path / "her folder", appearance="dark")
    made = MainWindow(session)
    made.resize(1280, 720)
    made.show()
    yield made
    for step in session.steps.values():
        step.job = step.seen = None
    made.close()
    made.deleteLater()
    assert raised == []


@pytest.fixture
def click():
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    def press(button):
        assert button.isVisible()
        assert button.isEnabled()
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    return press


def test_every_page_opens_with_nothing_there(window):
    for name in ORDER:
        window.go_to(name)
        page = window.page
        assert page.isVisible()
        assert page.command.text.whole.startswith("quietscope ")
        assert page.start.isEnabled() == (name == "connect")
        assert bool(page.missing.text()) == (name != "connect")
        assert not page.job_bar.working.isVisible()


def test_the_steps_light_up_as_they_are_done(window, camera):
    from quietscope.acquisition.preview.model import Grade

    window.session.facts.connect(camera)
    window.refresh()
    assert window.buttons["connect"].lamp.grade is Grade.GOOD
    assert window.buttons["connect"].line.whole == "Demo camera, 256×256"
    assert window.buttons["calibrate"].lamp.grade is Grade.UNKNOWN


def test_the_curve_grows_and_a_question_is_asked(window, camera, speaking, click):
    window.session.facts.connect(camera)
    job, tell = speaking()
    window.session.calibrate.adopt(job)
    window.go_to("calibrate")
    page = window.page
    assert page.chart.empty.isVisible()
    for level in (100.0, 200.0, 400.0):
        tell("level", name="x", mean_adu=level, variance_adu2=level / 10)
    tell("progress", task="recording", completed=30, total=100, note="level 3")
    tell("ask", text="Cover the camera")
    window.tick()
    assert page.chart._points.xData.size == 3
    assert page.job_bar.bar.value() == 300
    assert "level 3" in page.job_bar.doing.text()
    assert page.job_bar.question.text() == "Cover the camera"
    click(page.job_bar.answer)
    assert (job.folder / "answer").exists()
    assert window.buttons["calibrate"].line.whole == "waits for you"


def test_an_error_is_a_sentence_and_the_step_can_be_tried_again(window, camera, speaking):
    window.session.facts.connect(camera)
    job, tell = speaking("record", ("record",))
    window.session.record.adopt(job)
    window.go_to("record")
    assert window.page.job_bar.working.isVisible()
    tell("ended", status=1, error="camera unplugged; connect it and record again")
    window.tick()
    assert window.page.job_bar.error.text() == "Camera unplugged; connect it and record again"
    assert window.page.job_bar.failure.isVisible()
    assert window.page.start.isEnabled()


def test_the_crop_and_the_losses_are_shown_while_it_learns(window, camera, speaking):
    import base64

    window.session.facts.connect(camera)
    job, tell = speaking("train", ("train",))
    window.session.train.adopt(job)
    window.go_to("train")
    image = np.random.default_rng(0).normal(100, 10, (64, 64)).astype("<f4")
    text = base64.b64encode(image.tobytes()).decode()
    for step in (20, 40):
        tell(
            "training",
            step=step,
            progress=step / 100,
            seconds_left=60 - step,
            loss=5.0 - step / 50,
            validation_loss=4.0 if step == 40 else None,
        )
    tell("tile", step=40, shape=image.shape, raw=text, denoised=text)
    window.tick()
    page = window.page
    assert page.picture.isVisible()
    assert not page.picture.denoised.pixmap().isNull()
    assert page.losses._loss.xData.tolist() == [20, 40]
    assert page.losses._held_out.xData.tolist() == [40]
    assert "20 s left" in page.job_bar.doing.text()


def test_a_run_is_seen_inside_the_window_and_let_go(window, camera, speaking, tmp_path):
    from PySide6.QtTest import QTest

    window.session.facts.connect(camera)
    writer = MailboxWriter.create((48, 64), "uint16", {"title": "a run"}, directory=tmp_path)
    job, tell = speaking("live", ("live", "--out", str(tmp_path / "run")))
    window.session.live.adopt(job)
    window.go_to("live")
    raw = np.random.default_rng(0).poisson(50, (48, 64)).astype(np.uint16)
    writer.put(raw, raw.astype(np.float32), None, {"frames_recorded": 1})
    tell("preview", mailbox=str(writer.path))
    window.tick()
    QTest.qWait(100)
    view = window.page.view
    assert view.preview is not None
    assert view.preview.denoised_panel.item.isVisible()
    assert writer.taken
    writer.end()
    window.page.leave()  # the window closes; the run is not asked
    assert view.preview is None
    writer.close(remove=True)


def test_keys_do_what_clicks_do(window):
    from PySide6.QtCore import Qt
    from PySide6.QtGui import QGuiApplication
    from PySide6.QtTest import QTest

    window.activateWindow()
    assert QTest.qWaitForWindowActive(window)
    control = Qt.KeyboardModifier.ControlModifier
    QTest.keyClick(window, Qt.Key.Key_4, control)
    assert window.session.current == "train"
    QTest.keyClick(window, Qt.Key.Key_C, control | Qt.KeyboardModifier.ShiftModifier)
    assert QGuiApplication.clipboard().text() == window.page.command.text.whole
    QTest.keyClick(window, Qt.Key.Key_F11)
    assert not window.rail.isVisible()
    QTest.keyClick(window, Qt.Key.Key_Escape)
    assert window.rail.isVisible()


def test_closing_in_mid_work_asks(window, camera, speaking, monkeypatch):
    from PySide6.QtWidgets import QMessageBox

    window.session.facts.connect(camera)
    job, _ = speaking("record", ("record",))
    window.session.record.adopt(job)
    asked = []
    answers = [QMessageBox.StandardButton.Cancel, QMessageBox.StandardButton.Ok]
    monkeypatch.setattr(
        window, "ask_before_closing", lambda busy: asked.append(busy) or answers.pop(0)
    )
    assert not window.close()
    assert window.close()
    assert asked == [["Record"], ["Record"]]
    assert not (job.folder / "cancel").exists()  # it goes on without the window


def test_the_layout_is_remembered(window, application):
    from quietscope.gui.window.main_window import MainWindow

    window.resize(1200, 711)
    window.close()
    folder = window.session.facts.folder
    assert json.loads((folder / "window.json").read_text(encoding="utf-8"))["geometry"]
    again = MainWindow(Session(folder))
    assert again.height() == 711  # the offscreen screen is narrower than the window
    again.close()


def test_nothing_is_cut_off_on_a_small_screen(window, camera, tmp_path):
    """1024 × 768, less the desktop's own bars."""
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QAbstractButton, QComboBox

    from quietscope.gui.window.main_window import LEAST_SIZE

    window.session.facts.connect(camera)
    window.resize(*LEAST_SIZE)
    writer = MailboxWriter.create((64, 64), "uint16", {"title": "a run"}, directory=tmp_path)
    raw = np.random.default_rng(0).poisson(50, (64, 64)).astype(np.uint16)
    writer.put(raw, raw.astype(np.float32), None, {"channel": "GFP"}, ["GFP", "mCherry"])
    window.pages["live"].view.show_mailbox(str(writer.path))
    for name in ORDER:
        window.go_to(name)
        QTest.qWait(100)
        assert window.width() == LEAST_SIZE[0]
        assert window.height() == LEAST_SIZE[1]
        for part in window.findChildren(QAbstractButton) + window.findChildren(QComboBox):
            if part.isVisible() and part.objectName() != "step":
                corner = part.mapTo(window, part.rect().bottomRight())
                assert window.rect().contains(corner), (name, part.objectName())
                assert part.width() >= part.minimumSizeHint().width(), (name, part.toolTip())
    window.pages["live"].leave()
    writer.close(remove=True)


def test_every_part_is_reached_by_the_keyboard(window, camera):
    """Tab goes through all parts of a page, and the focus begins at the top."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QApplication, QPushButton

    window.session.facts.connect(camera)
    window.activateWindow()
    assert QTest.qWaitForWindowActive(window)
    for name in ORDER:
        window.go_to(name)
        window.buttons[name].setFocus()
        reached = []
        for _ in range(60):
            reached.append(QApplication.focusWidget())
            QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        page = window.page
        wanted = [b for b in page.findChildren(QPushButton) if b.isVisible() and b.isEnabled()]
        assert set(wanted) <= set(reached), name
        in_page = [part for part in reached if page.isAncestorOf(part)]
        heights = [part.mapTo(page, part.rect().center()).y() for part in in_page]
        copied = reached.index(page.command.copy)
        assert all(reached.index(button) <= copied for button in wanted), name
        assert heights[0] <= heights[-1]


def test_decimal_commas_are_understood(application, tmp_path):
    from PySide6.QtCore import QLocale, Qt
    from PySide6.QtTest import QTest

    from quietscope.gui.window.main_window import MainWindow

    before = QLocale()
    QLocale.setDefault(QLocale(QLocale.Language.German, QLocale.Country.Germany))
    try:
        made = MainWindow(Session(tmp_path / "state"))
        made.show()
        exposure = made.pages["connect"].exposure
        exposure.setFocus()
        exposure.selectAll()
        QTest.keyClicks(exposure, "12,5")
        QTest.keyClick(exposure, Qt.Key.Key_Return)
        assert made.session.facts.choice.exposure_ms == 12.5
        assert "--exposure-ms 12.5" in made.session.connect.snapshot().command
        made.close()
    finally:
        QLocale.setDefault(before)


@pytest.mark.parametrize("appearance", ["dark", "light"])
def test_words_can_be_read_in_both_appearances(application, appearance):
    """Contrast by WCAG 2.1: at least 4.5 for text."""
    from quietscope.gui.window.theme import theme_for

    theme = theme_for(appearance)

    def luminance(colour):
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one, other):
        bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (bright + 0.05) / (dark + 0.05)

    for text in (theme.text, theme.muted, theme.bad):
        assert contrast(text, theme.background) >= 4.5
        assert contrast(text, theme.surface) >= 4.5
    assert contrast(theme.on_accent, theme.accent) >= 4.5
    assert contrast(theme.text, theme.chosen) >= 4.5
