"""The small parts of the preview window: texts, lamps, rows of readings, the verdict.

Owns how they are drawn. Every traffic light also differs in shape, because red and green look
alike to one man in twelve. It decides nothing about figures, contrast or the stream; colours are
in `style`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from ...inference.trust.verdict import Grade
from .model import Reading
from .style import BACKGROUND, BORDER, GRADE_COLOURS, MUTED, TEXT


def label(name: str, text: str = "", *, wrap: bool = False) -> QLabel:
    """Return a text that the style sheet knows by `name`."""
    widget = QLabel(text)
    widget.setObjectName(name)
    widget.setWordWrap(wrap)
    widget.setTextFormat(Qt.TextFormat.PlainText)
    return widget


def coloured(text: str, colour: str) -> str:
    """Return `text` as rich text of this colour."""
    return f'<span style="color:{colour}">{text}</span>'


def rule() -> QFrame:
    """Return a thin horizontal line."""
    line = QFrame()
    line.setObjectName("rule")
    return line


class Lamp(QWidget):
    """A traffic light that differs in shape as well: tick, triangle, cross, ring."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self.grade = Grade.UNKNOWN
        self.setFixedSize(size, size)

    def set_grade(self, grade: Grade) -> None:
        """Show `grade`."""
        if grade is not self.grade:
            self.grade = grade
            self.update()

    def set_scale(self, scale: float) -> None:
        """Grow with the text."""
        self.setFixedSize(round(self._size * scale), round(self._size * scale))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the lamp."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.scale(self.width() / 20, self.height() / 20)
        colour = QColor(GRADE_COLOURS[self.grade])
        stroke = QPen(QColor(BACKGROUND), 2.4)
        stroke.setCapStyle(Qt.PenCapStyle.RoundCap)
        stroke.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
        if self.grade is Grade.UNKNOWN:
            painter.setPen(QPen(colour, 2))
            painter.drawEllipse(QRectF(4, 4, 12, 12))
            return
        painter.setBrush(colour)
        if self.grade is Grade.CARE:
            painter.setPen(QPen(colour, 2.5, j=Qt.PenJoinStyle.RoundJoin))
            painter.drawPolygon([QPointF(10, 2.8), QPointF(18, 16.8), QPointF(2, 16.8)])
            strokes: list[list[tuple[float, float]]]
            strokes = [[(10, 7.2), (10, 11.6)], [(10, 14.8), (10, 14.81)]]
        else:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.drawEllipse(QRectF(1, 1, 18, 18))
            strokes = (
                [[(5.8, 10.4), (8.8, 13.3), (14.2, 7.2)]]
                if self.grade is Grade.GOOD
                else [[(6.6, 6.6), (13.4, 13.4)], [(13.4, 6.6), (6.6, 13.4)]]
            )
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(stroke)
        for points in strokes:
            path = QPainterPath(QPointF(*points[0]))
            for point in points[1:]:
                path.lineTo(QPointF(*point))
            painter.drawPath(path)


class ReadingRow(QWidget):
    """One judged figure: lamp, name, value, and what it means."""

    def __init__(self, *, lamp: bool = True) -> None:
        super().__init__()
        self._shown: tuple[Reading, bool] | None = None
        self.lamp = Lamp(18)
        self.lamp.setVisible(lamp)
        self.name = label("name")
        self.value = label("value")
        self.sentence = label("small", wrap=True)
        top = QHBoxLayout()
        top.setSpacing(6)
        top.addWidget(self.name)
        top.addStretch(1)
        top.addWidget(self.value)
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addLayout(top)
        words.addWidget(self.sentence)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(9)
        row.addWidget(self.lamp, alignment=Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)

    def show_reading(self, reading: Reading, *, with_sentence: bool = True) -> None:
        """Show `reading`, its sentence only where there is room for it."""
        # Only what is new: each change makes Qt lay out the whole window again.
        if (reading, with_sentence) == self._shown:
            return
        self._shown = (reading, with_sentence)
        self.lamp.set_grade(reading.grade)
        self.name.setText(reading.name)
        self.value.setText(reading.value)
        colour = f"color: {GRADE_COLOURS[reading.grade]};" if reading.grade >= Grade.CARE else ""
        if colour != self.value.styleSheet():
            self.value.setStyleSheet(colour)
        self.sentence.setText(reading.sentence)
        self.sentence.setVisible(with_sentence and bool(reading.sentence))
        self.setToolTip(reading.explanation)


class VerdictCard(QFrame):
    """The one judgement of the picture, large."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("verdict")
        self._shown: Reading | None = None
        self.lamp = Lamp(34)
        self.headline = label("headline", wrap=True)
        self.sentence = label("small", wrap=True)
        words = QVBoxLayout()
        words.setSpacing(3)
        words.addWidget(self.headline)
        words.addWidget(self.sentence)
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 11, 12, 11)
        row.setSpacing(12)
        row.addWidget(self.lamp, alignment=Qt.AlignmentFlag.AlignVCenter)
        row.addLayout(words, 1)

    def show_verdict(self, verdict: Reading) -> None:
        """Show `verdict`."""
        if verdict == self._shown:
            return
        self._shown = verdict
        self.lamp.set_grade(verdict.grade)
        self.headline.setText(verdict.headline)
        self.sentence.setText(verdict.sentence)
        colour = QColor(GRADE_COLOURS[verdict.grade])
        tint = f"rgba({colour.red()},{colour.green()},{colour.blue()},34)"
        edge = f"rgba({colour.red()},{colour.green()},{colour.blue()},110)"
        self.setStyleSheet(
            f"#verdict {{ background: {tint}; border: 1px solid {edge}; border-radius: 8px; }}"
        )


class Pill(QLabel):
    """Where the run stands, with a coloured dot."""

    def show_state(self, words: str, grade: Grade) -> None:
        """Show `words` beside a dot of the grade's colour."""
        self.setTextFormat(Qt.TextFormat.RichText)
        colour = GRADE_COLOURS[grade]
        text_colour = TEXT if grade in (Grade.GOOD, Grade.UNKNOWN) else colour
        text = f"{coloured('●', colour)}&nbsp; {coloured(html.escape(words), text_colour)}"
        if text != self.text():
            self.setText(text)


def plot() -> Any:
    """Return a quiet plot that does not react to the mouse wheel."""
    widget = pg.PlotWidget(background=BACKGROUND)
    widget.setMenuEnabled(False)
    widget.hideButtons()
    widget.setMouseEnabled(False, False)
    widget.setFrameShape(QFrame.Shape.NoFrame)
    item = widget.getPlotItem()
    item.layout.setContentsMargins(0, 6, 0, 0)  # or the topmost number is cut off
    for side in ("left", "bottom"):
        axis = item.getAxis(side)
        axis.setPen(pg.mkPen(BORDER))
        axis.setTextPen(pg.mkPen(MUTED))
        axis.setStyle(tickLength=-4)
    item.getAxis("left").setWidth(48)
    return widget


class StateLine(QFrame):
    """A line across the window that lights up when the run needs a look."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(2)
        self._colour = ""
        self.show_grade(Grade.UNKNOWN)

    def show_grade(self, grade: Grade) -> None:
        """Take the grade's colour, or none while all is well."""
        colour = GRADE_COLOURS[grade] if grade >= Grade.CARE else BORDER
        if colour != self._colour:
            self._colour = colour
            self.setStyleSheet(f"background: {colour};")


def titled(head: Sequence[QWidget | None], body: QWidget) -> QWidget:
    """Return `body` under a row of widgets; None stands for free space."""
    box = QWidget()
    row = QHBoxLayout()
    row.setContentsMargins(2, 0, 2, 0)
    row.setSpacing(8)
    for widget in head:
        if widget is None:
            row.addStretch(1)
        else:
            row.addWidget(widget)
    column = QVBoxLayout(box)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(4)
    column.addLayout(row)
    column.addWidget(body, 1)
    return box


def later(action: Callable[[], None]) -> Callable[..., None]:
    """Return `action` as a slot that ignores what the signal carries."""

    def slot(*_: object) -> None:
        action()

    return slot
