"""The page beside the five steps: tonight, what happened, and the way back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices, QShowEvent
from PySide6.QtWidgets import QLineEdit, QVBoxLayout, QWidget

from ...acquisition.preview.widgets import ReadingRow, label
from ..session import Session
from ..steps.overnight import OvernightSnapshot
from .page import Page, column
from .parts import ReadingList, button, row, tell_command

MOST_SHOWN = 30


class OvernightPage(Page):
    """Retraining."""

    def __init__(self, session: Session) -> None:
        super().__init__(
            session,
            session.overnight,
            "While you sleep",
            "Every night it can learn from what you recorded. A new model is used only where it "
            "is better, and you can go back with one click.",
            "Retrain every night",
        )
        self.overnight = session.overnight
        self.at, self.until = QLineEdit(), QLineEdit()
        for line, name in ((self.at, "at"), (self.until, "until")):
            line.setFixedWidth(70)
            line.setAccessibleName(f"Retrain {name}")
        self.at.editingFinished.connect(lambda: self.overnight.choose(at=self.at.text()))
        self.until.editingFinished.connect(lambda: self.overnight.choose(until=self.until.text()))
        self.now = button("Retrain now", self.overnight.start_now)
        self.tonight = label("", wrap=True)
        self.status = ReadingList()
        times = QWidget()
        times.setLayout(
            row(label("muted", "from"), self.at, label("muted", "until"), self.until, None)
        )
        self.in_use = QWidget()
        self._in_use = QVBoxLayout(self.in_use)
        self._in_use.setContentsMargins(0, 0, 0, 0)
        self.history = QWidget()
        self._history = QVBoxLayout(self.history)
        self._history.setContentsMargins(0, 0, 0, 0)
        self._history.setSpacing(10)
        self.action_row.addWidget(self.now)
        self.body.addWidget(
            column(
                times,
                self.tonight,
                self.status,
                label("section", "IN USE"),
                self.in_use,
                None,
                width=430,
            )
        )
        self.body.addWidget(
            column(label("section", "WHAT HAPPENED"), self.history, None, scroll=True), 1
        )
        self._shown: tuple[object, ...] = ()

    def showEvent(self, event: QShowEvent) -> None:
        """Ask how the schedule stands, whenever somebody looks."""
        super().showEvent(event)
        self.overnight.look()

    def snapshot(self) -> OvernightSnapshot:
        """Return what there is to show."""
        return self.overnight.snapshot()

    def show_snapshot(self, snapshot: OvernightSnapshot) -> None:
        """Show it."""
        for line, text in ((self.at, snapshot.at), (self.until, snapshot.until)):
            if not line.hasFocus():
                line.setText(text)
        self.tonight.setText(snapshot.tonight)
        self.status.show_readings(snapshot.status)
        running = snapshot.job is not None and snapshot.job.running
        self.now.setVisible(not running)
        self.now.setEnabled(not snapshot.missing)
        for line in (self.at, self.until):
            line.setEnabled(not snapshot.is_set_up)
        self.start.setText("Turn it off" if snapshot.is_set_up else "Retrain every night")
        if (snapshot.in_use, snapshot.history) == self._shown:
            return
        self._shown = (snapshot.in_use, snapshot.history)
        self._fill_in_use(snapshot)
        self._fill_history(snapshot)

    def _fill_in_use(self, snapshot: OvernightSnapshot) -> None:
        _clear(self._in_use)
        for channel, words, command in snapshot.in_use:
            line = QWidget()
            back = button("Go back", partial(self.overnight.roll_back, channel))
            tell_command(back, "Use the model again that was in use before", command)
            inside = row(label("", words, wrap=True), back)
            inside.setStretch(0, 1)
            inside.setContentsMargins(0, 0, 0, 0)
            line.setLayout(inside)
            self._in_use.addWidget(line)
        if not snapshot.in_use:
            self._in_use.addWidget(label("muted", "No model is in use yet."))

    def _fill_history(self, snapshot: OvernightSnapshot) -> None:
        _clear(self._history)
        for reading, page in snapshot.history[:MOST_SHOWN]:
            shown = ReadingRow()
            shown.show_reading(reading)
            line = QWidget()
            inside = row(shown)
            inside.setStretch(0, 1)
            inside.setContentsMargins(0, 0, 0, 0)
            if page is not None:
                inside.addWidget(button("Pictures…", partial(_open, page), tip="Before and after"))
            line.setLayout(inside)
            self._history.addWidget(line)
        if not snapshot.history:
            self._history.addWidget(label("muted", "Nothing yet."))


def _open(page: Path) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(page)))


def _clear(layout: QVBoxLayout) -> None:
    while layout.count():
        item = layout.takeAt(0)
        widget = None if item is None else item.widget()
        if widget is not None:
            widget.deleteLater()
