"""The window driven as a person would, on the demo camera: from nothing to a denoised run on disk.

Nothing is put in place of anything: the commands run as programs of their own, and the mouse
presses the buttons. Takes two to four minutes.
"""

import os
import time

import pytest

from quietscope.gui.session import Session
from quietscope.storage.open_stack import open_stack

MOST_CLICKS, MOST_SECONDS = 6, 240.0


@pytest.fixture(scope="module")
def application(qt):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


class Person:
    """Clicks and waits."""

    def __init__(self, folder):
        from quietscope.gui.window.main_window import MainWindow

        session = Session(folder / "state")
        session.facts.remember(workspace=folder / "her folder")
        self.window, self.session = MainWindow(session), session
        self.window.resize(1280, 720)
        self.window.show()
        self.clicks = 0

    def click(self, button):
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        assert button.isVisible(), button.text()
        assert button.isEnabled(), self.window.page.missing.text()
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.clicks += 1

    def wait(self, until):
        from PySide6.QtTest import QTest

        end = time.monotonic() + MOST_SECONDS
        while not until():
            QTest.qWait(50)
            assert not self.window.page.step.error
            assert time.monotonic() < end

    def go_live_and_look(self):
        live, view = self.session.live, self.window.pages["live"].view
        self.wait(lambda: view.preview and view.preview.denoised_panel.item.isVisible())
        self.seen_at = time.monotonic()
        self.wait(lambda: not live.busy)
        self.window.tick()
        return live.run_path


@pytest.mark.long
@pytest.mark.timeout(900)
def test_from_nothing_to_a_denoised_run_and_again_the_next_day(application, tmp_path):
    began = time.monotonic()
    person = Person(tmp_path)
    session, pages = person.session, person.window.pages
    person.click(pages["connect"].start)
    person.wait(lambda: session.current == "calibrate")
    person.click(pages["calibrate"].start)
    person.wait(lambda: session.calibrate.snapshot().levels)
    person.wait(lambda: not session.calibrate.busy)
    person.window.tick()
    if session.current == "calibrate":  # a check is red: she reads it, and goes on
        person.click(pages["calibrate"].go_on)
    person.click(pages["record"].start)
    person.wait(lambda: session.current == "train")
    person.click(pages["train"].start)
    person.wait(lambda: session.train.model is not None)
    person.window.tick()
    assert session.train.snapshot().tile is not None
    assert pages["train"].verdict.isVisible()
    person.click(pages["train"].use_and_go)
    run = person.go_live_and_look()
    assert person.clicks <= MOST_CLICKS
    assert person.seen_at - began < MOST_SECONDS
    raw, denoised = open_stack(run / "raw.ome.zarr"), open_stack(run / "denoised.ome.zarr")
    assert len(raw) == len(denoised) == session.live.frames
    assert raw.absent == denoised.absent == 0
    assert denoised.frame(9).std() < raw.frame(9).std()
    person.window.close()

    again = Person(tmp_path)
    again.click(again.window.pages["connect"].start)
    again.wait(lambda: again.session.current == "live")
    assert again.session.facts.calibration is not None
    again.click(again.window.pages["live"].start)
    second = again.go_live_and_look()
    assert again.clicks == 2
    assert second != run
    again.window.close()
