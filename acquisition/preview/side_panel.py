"""The words beside the images: the verdict and its history, the figures, the run.

Owns what stands below what. Every word comes from `model`, `stream_watch` and `verdict_history`.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QFormLayout, QFrame, QVBoxLayout, QWidget

from ...inference.trust.verdict import Grade
from .model import Reading
from .style import BORDER, GRADE_COLOURS
from .verdict_history import Span, VerdictHistory
from .widgets import ReadingRow, VerdictCard, label, rule

STRIP_HEIGHT = 14
HEIGHTS = {Grade.GOOD: 0.35, Grade.CARE: 0.7, Grade.BAD: 1.0}
"""Of the strip: worse is higher, so that it reads without colour as well."""


class HistoryStrip(QWidget):
    """The verdicts over the run, from its beginning on the left to now on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(STRIP_HEIGHT)
        self._spans: Sequence[Span] = ()
        self._now_s = 0.0

    def show_history(self, history: VerdictHistory) -> None:
        """Show the judgements so far."""
        self._spans, self._now_s = history.spans, history.now_s
        self.setVisible(bool(self._spans))
        self.setToolTip("The verdict since the run began; higher is worse. " + history.words())
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw them."""
        painter = QPainter(self)
        width, height = self.width(), self.height()
        painter.fillRect(QRectF(0, height - 1, width, 1), QColor(BORDER))
        if not self._spans:
            return
        begin = self._spans[0].since_s
        whole = max(self._now_s - begin, 1e-6)
        ends = [*(span.since_s for span in self._spans[1:]), self._now_s]
        for span, end in zip(self._spans, ends, strict=True):
            left = width * (span.since_s - begin) / whole
            right = max(width * (end - begin) / whole, left + 2)
            tall = HEIGHTS[span.grade] * height
            bar = QRectF(left, height - tall, right - left, tall)
            painter.fillRect(bar, QColor(GRADE_COLOURS[span.grade]))


class SidePanel(QFrame):
    """Verdict, figures and run, below each other."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("side")
        self.verdict_card = VerdictCard()
        self.history = HistoryStrip()
        self.history_words = label("small", wrap=True)
        self.trust_rows = [ReadingRow() for _ in range(6)]
        self.speed_rows = [ReadingRow(lamp=False) for _ in range(5)]
        self._brief = False
        self._said_above = ""
        self._readings: dict[ReadingRow, Reading] = {}
        self.run_form = QFormLayout()
        self.run_form.setVerticalSpacing(3)
        self.run_form.setHorizontalSpacing(12)
        column = QVBoxLayout(self)
        column.setContentsMargins(14, 12, 14, 10)
        column.setSpacing(9)
        for part in (self.verdict_card, self.history, self.history_words, *self.trust_rows):
            column.addWidget(part)
        column.addWidget(rule())
        speed = QVBoxLayout()
        speed.setSpacing(4)
        for row in self.speed_rows:
            speed.addWidget(row)
        column.addLayout(speed)
        column.addStretch(1)
        column.addWidget(rule())
        column.addLayout(self.run_form)

    def be_brief(self, brief: bool) -> None:
        """Leave out the sentences of what is good, where there is no room for them."""
        if brief != self._brief:
            self._brief = brief
            for row, reading in self._readings.items():
                self._show(row, reading)

    def _show(self, row: ReadingRow, reading: Reading) -> None:
        self._readings[row] = reading
        needless = self._brief and reading.grade < Grade.CARE
        said = reading.sentence == self._said_above
        row.show_reading(reading, with_sentence=not needless and not said)

    def show_trust(self, readings: Sequence[Reading], verdict: Reading) -> None:
        """Show the judgement and the figures behind it; what the judgement says is said once."""
        self._said_above = verdict.sentence
        for row, reading in zip(self.trust_rows, readings, strict=True):
            self._show(row, reading)
        self.verdict_card.show_verdict(verdict)

    def show_history(self, history: VerdictHistory) -> None:
        """Show how the judgement came about."""
        self.history.show_history(history)
        self.history_words.setText(history.words())
        self.history_words.setVisible(bool(history.words()))

    def show_speed(self, readings: Sequence[Reading]) -> None:
        """Show what became of the frames."""
        for row, reading in zip(self.speed_rows, readings, strict=True):
            self._show(row, reading)

    def show_run(self, lines: Sequence[tuple[str, str]]) -> None:
        """Show what identifies the run."""
        if self.run_form.rowCount() != len(lines):
            while self.run_form.rowCount():
                self.run_form.removeRow(0)
            for name, value in lines:
                self.run_form.addRow(label("muted", name), label("muted", value))
        for index, (_, value) in enumerate(lines):
            item = self.run_form.itemAt(index, QFormLayout.ItemRole.FieldRole)
            widget = None if item is None else item.widget()
            if widget is not None:
                widget.setProperty("text", value)
