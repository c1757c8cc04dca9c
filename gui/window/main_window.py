"""The window: the steps on the left, the page of one of them on the right.

Owns the clock that reads the jobs, what the keys do, the question before closing, and the layout
that is remembered. What a step knows is in `steps`, how its page looks in the page's own module.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

from PySide6.QtCore import QByteArray, QTimer
from PySide6.QtGui import QCloseEvent, QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QMainWindow,
    QMessageBox,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from ...acquisition.preview.widgets import Lamp, label, rule
from ..remembered import Appearance
from ..session import ORDER, Session
from .calibrate_page import CalibratePage
from .connect_page import ConnectPage
from .live_page import LivePage
from .overnight_page import OvernightPage
from .page import Page
from .parts import Elided, StepButton, button
from .record_page import RecordPage
from .theme import style_sheet, theme_for
from .train_page import TrainPage

TICK_MS = 150
NAMES = {
    "connect": "Connect",
    "calibrate": "Calibrate",
    "record": "Record",
    "train": "Train",
    "live": "Live",
    "overnight": "Overnight",
}
NEXT_APPEARANCE: dict[Appearance, Appearance] = {
    "system": "dark",
    "dark": "light",
    "light": "system",
}
RAIL_WIDTH = 216
LEAST_SIZE = (1000, 640)
"""It fits on a screen of 1024 × 768, and on one of 1920 × 1080 that is scaled to 150 %."""


class MainWindow(QMainWindow):
    """Everything in one window.

    Parameters
    ----------
    session
        What is shown.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.setWindowTitle("quietscope")
        self.setMinimumSize(*LEAST_SIZE)
        self._scale = 0.0
        self.pages: dict[str, Page] = {
            "connect": ConnectPage(session),
            "calibrate": CalibratePage(session),
            "record": RecordPage(session),
            "train": TrainPage(session),
            "live": LivePage(session),
            "overnight": OvernightPage(session),
        }
        self.stack = QStackedWidget()
        for name in ORDER:
            self.stack.addWidget(self.pages[name])
            self.pages[name].order_focus()
        middle = QWidget()
        line = QHBoxLayout(middle)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(0)
        self.rail = self._build_rail()
        line.addWidget(self.rail)
        line.addWidget(self.stack, 1)
        self.setCentralWidget(middle)
        self._connect_keys()
        self._restore()
        self.apply_theme()
        self.tick()
        self._clock = QTimer(self)
        self._clock.timeout.connect(self.tick)
        self._clock.start(TICK_MS)

    def _build_rail(self) -> QWidget:
        rail = QFrame()
        rail.setObjectName("rail")
        rail.setFixedWidth(RAIL_WIDTH)
        column = QVBoxLayout(rail)
        column.setContentsMargins(10, 16, 10, 12)
        column.setSpacing(4)
        column.addWidget(label("brand", "quietscope"))
        column.addSpacing(10)
        self.buttons: dict[str, StepButton] = {}
        for number, name in enumerate(ORDER, start=1):
            digit = str(number) if name != "overnight" else ""
            made = StepButton(digit, NAMES[name], partial(self.go_to, name))
            self.buttons[name] = made
            if name == "overnight":
                column.addWidget(rule())
            column.addWidget(made)
        column.addStretch(1)
        self.complaint = label("small", wrap=True)
        self.folder = Elided("small")
        self.choose_folder = button(
            "Change folder…", self._ask_folder, tip="Where recordings and models are kept"
        )
        self.appearance = button("", self._next_appearance, tip="Dark, light, or as the desktop")
        column.addWidget(self.complaint)
        column.addWidget(label("muted", "Everything is kept in"))
        column.addWidget(self.folder)
        column.addWidget(self.choose_folder)
        column.addWidget(self.appearance)
        return rail

    def _connect_keys(self) -> None:
        for number, name in enumerate(ORDER, start=1):
            self._key(f"Ctrl+{number}", partial(self.go_to, name))
        self._key("Ctrl+Return", self._press_primary)
        self._key("Esc", self._escape)
        self._key("F11", self.toggle_full_screen)
        self._key("Ctrl+Shift+C", lambda: self.page.command.copy.click())
        self._key("Ctrl+Q", self.close)

    def _key(self, keys: str, action: object) -> None:
        QShortcut(QKeySequence(keys), self, action)  # type: ignore[call-overload]

    @property
    def page(self) -> Page:
        """The page that is shown."""
        return self.pages[self.session.current]

    # -- the clock ------------------------------------------------------------------------

    def tick(self) -> None:
        """Read the jobs and show where everything stands."""
        self.session.tick()
        self.refresh()

    def refresh(self) -> None:
        """Show where everything stands."""
        for name, step in self.session.steps.items():
            self.buttons[name].show_state(
                step.state(), step.line_now(), current=name == self.session.current
            )
        if self.stack.currentWidget() is not self.page:
            self.stack.setCurrentWidget(self.page)
        self.page.refresh()
        self.folder.show_text(str(self.session.facts.workspace.path))
        self.complaint.setText(self.session.facts.complaint)
        self.complaint.setVisible(bool(self.session.facts.complaint))

    # -- what a person does ---------------------------------------------------------------

    def go_to(self, name: str) -> None:
        """Show a step."""
        self.session.go_to(name)
        self.refresh()

    def _press_primary(self) -> None:
        for made in self.page.findChildren(type(self.page.start)):
            if made.objectName() == "primary" and made.isVisible() and made.isEnabled():
                made.click()
                return

    def _escape(self) -> None:
        if self.isFullScreen():
            self.toggle_full_screen()
        elif self.page.step.busy:
            self.page.step.cancel()

    def toggle_full_screen(self) -> None:
        """Fill the screen with the page alone, or go back."""
        whole = not self.isFullScreen()
        self.rail.setVisible(not whole)
        if whole:
            self.showFullScreen()
        else:
            self.showNormal()

    def _ask_folder(self) -> None:
        start = str(self.session.facts.workspace.path.parent)
        folder = QFileDialog.getExistingDirectory(self, "Where to keep everything", start)
        if folder:
            self.session.facts.move_to(Path(folder))
            self.refresh()

    def _next_appearance(self) -> None:
        now = self.session.facts.remembered.appearance
        self.session.facts.remember(appearance=NEXT_APPEARANCE[now])
        self.apply_theme()

    def apply_theme(self) -> None:
        """Take the colours that were chosen, and a size of text that fits the window."""
        chosen = self.session.facts.remembered.appearance
        theme = theme_for(chosen)
        self.appearance.setText(
            {"system": "Colours: as the desktop", "dark": "Colours: dark", "light": "Light"}[
                chosen
            ].replace("Light", "Colours: light")
        )
        self._scale = self._fitting_scale()
        self.setStyleSheet(style_sheet(theme, self._scale))
        self.rail.setFixedWidth(round(RAIL_WIDTH * self._scale))
        for lamp in self.rail.findChildren(Lamp):
            lamp.set_scale(self._scale)
        for page in self.pages.values():
            page.set_theme(theme)
            page.set_scale(self._scale)

    def _fitting_scale(self) -> float:
        fitting = min(self.width() / 1280, self.height() / 720)
        return round(min(max(fitting, 1.0), 1.5) * 10) / 10

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Grow the text with the window, so that it can be read from the microscope."""
        super().resizeEvent(event)
        if self._fitting_scale() != self._scale:
            self.apply_theme()

    # -- beginning and end ----------------------------------------------------------------

    def _restore(self) -> None:
        geometry = self.session.facts.remembered.geometry
        if geometry and self.restoreGeometry(QByteArray.fromBase64(geometry.encode("ascii"))):
            return
        space = QGuiApplication.primaryScreen().availableGeometry()
        self.resize(min(1500, round(space.width() * 0.9)), min(940, round(space.height() * 0.9)))

    def closeEvent(self, event: QCloseEvent) -> None:
        """Ask first if something runs; a recording can go on without the window."""
        busy = self.session.busy()
        if busy:
            answer = self.ask_before_closing([NAMES[name] for name in busy])
            if answer is QMessageBox.StandardButton.Cancel:
                event.ignore()
                return
            if answer is QMessageBox.StandardButton.Discard:
                self.session.stop_all()
        self._clock.stop()
        geometry = bytes(cast("bytes", self.saveGeometry().toBase64().data())).decode("ascii")
        self.session.facts.remember(geometry=geometry)
        for page in self.pages.values():
            page.leave()
        self.session.leave()
        super().closeEvent(event)

    def ask_before_closing(self, busy: list[str]) -> QMessageBox.StandardButton:
        """Ask what is to become of what runs."""
        box = QMessageBox(self)
        box.setWindowTitle("quietscope")
        box.setText(f"{' and '.join(busy)} {'is' if len(busy) == 1 else 'are'} still at work.")
        box.setInformativeText(
            "It can go on without this window; open quietscope again to see it. If you stop it, "
            "what was recorded until now is kept."
        )
        go_on = box.addButton("Leave it running", QMessageBox.ButtonRole.AcceptRole)
        stop = box.addButton("Stop it", QMessageBox.ButtonRole.DestructiveRole)
        box.addButton(QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(go_on)
        box.exec()
        if box.clickedButton() is stop:
            return QMessageBox.StandardButton.Discard
        if box.clickedButton() is go_on:
            return QMessageBox.StandardButton.Ok
        return QMessageBox.StandardButton.Cancel
