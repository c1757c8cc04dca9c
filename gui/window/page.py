"""What every page has: a title in plain words, its body, the button that leads on, the job below.

Owns the frame around a step; what is in its body is written in the page of the step.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QHBoxLayout,
    QLineEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from ...acquisition.preview.widgets import label
from ..session import Session
from ..steps.step import Step, StepSnapshot
from .charts import Chart
from .parts import CommandRow, JobBar, primary
from .theme import Theme

WIDTH = "width at the smallest text size"


class Page(QWidget):
    """The page of one step."""

    def __init__(self, session: Session, step: Step, title: str, intro: str, start: str) -> None:
        super().__init__()
        self.setObjectName("page")
        self.session, self.step = session, step
        self.title = label("title", title)
        self.intro = label("intro", intro, wrap=True)
        self.start = primary(start, self.begin)
        self.missing = label("muted", wrap=True)
        self.job_bar = JobBar(step.cancel, step.answer)
        self.command = CommandRow()
        self.body = QHBoxLayout()
        self.body.setSpacing(22)
        self.action_row = QHBoxLayout()
        self.action_row.setSpacing(10)
        self.action_row.addWidget(self.start)
        self.action_row.addWidget(self.missing, 1)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(24, 18, 24, 14)
        self._column.setSpacing(12)
        self._column.addWidget(self.title)
        self._column.addWidget(self.intro)
        self._column.addLayout(self.body, 1)
        self._column.addWidget(self.job_bar)
        self._column.addLayout(self.action_row)
        self._column.addWidget(self.command)

    def order_focus(self) -> None:
        """Let Tab go as the eye does: the page, its buttons, the job at work, the command."""
        items = map(self.action_row.itemAt, range(self.action_row.count()))
        actions = [item.widget() for item in items if item is not None]

        def place(part: QWidget) -> int:
            if self.command.isAncestorOf(part):
                return 3
            if self.job_bar.isAncestorOf(part):
                return 2
            return int(any(part is one or one.isAncestorOf(part) for one in actions if one))

        within = [p for p in self.findChildren(QWidget) if p.window() is self.window()]
        parts = [p for p in within if p.focusPolicy() & Qt.FocusPolicy.TabFocus]
        in_order = sorted(parts, key=place)
        for before, after in pairwise(in_order):
            QWidget.setTabOrder(before, after)

    def begin(self) -> None:
        """Do what the button says."""
        self.step.start()

    def snapshot(self) -> StepSnapshot:
        """Return what there is to show."""
        raise NotImplementedError

    def show_snapshot(self, snapshot: Any) -> None:
        """Show it."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Show what there is now."""
        snapshot = self.snapshot()
        running = snapshot.job is not None and snapshot.job.running
        self.start.setEnabled(not snapshot.missing and not running)
        self.start.setVisible(not running)
        self.missing.setText(_sentence(snapshot.missing))
        self.job_bar.show_step(snapshot)
        self.command.show_command(snapshot.command)
        self.show_snapshot(snapshot)

    def set_theme(self, theme: Theme) -> None:
        """Take these colours."""
        for chart in self.findChildren(Chart):
            chart.set_theme(theme)

    def set_scale(self, scale: float) -> None:
        """Let columns of a fixed width grow with the text."""
        for part in self.findChildren(QWidget):
            if isinstance(width := part.property(WIDTH), int):
                part.setFixedWidth(round(width * scale))
        margin = round(5 * scale)  # the style sheet does not reach into a box of numbers
        for line in self.findChildren(QLineEdit):
            if isinstance(line.parentWidget(), QAbstractSpinBox):
                line.setTextMargins(margin, 0, margin, 0)

    def leave(self) -> None:
        """Let go of what another program holds, because the window closes."""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def column(*widgets: QWidget | None, width: int | None = None, scroll: bool = False) -> QWidget:
    """Return widgets below each other; None stands for free space."""
    box = QWidget()
    inside = QVBoxLayout(box)
    inside.setContentsMargins(0, 0, 0, 0)
    inside.setSpacing(12)
    for widget in widgets:
        if widget is None:
            inside.addStretch(1)
        else:
            inside.addWidget(widget)
    if not scroll:
        if width is not None:
            _fix_width(box, width)
        return box
    inside.setContentsMargins(0, 0, 10, 0)
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(box)
    if width is not None:
        _fix_width(area, width)
    return area


def _fix_width(part: QWidget, width: int) -> None:
    part.setProperty(WIDTH, width)
    part.setFixedWidth(width)
