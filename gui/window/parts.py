"""The small parts that the pages share: readings in a column, a job at work, a command to copy.

Owns how they are drawn. They are shown snapshots and decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QGuiApplication, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from ...acquisition.preview.model import Reading
from ...acquisition.preview.widgets import Lamp, ReadingRow, label
from ...acquisition.preview.wording import duration
from ...inference.trust.verdict import Grade
from ..job import JobSnapshot
from ..steps.step import StepSnapshot, StepState

LAMPS = {
    StepState.WAITING: Grade.UNKNOWN,
    StepState.READY: Grade.UNKNOWN,
    StepState.BUSY: Grade.UNKNOWN,
    StepState.DONE: Grade.GOOD,
    StepState.LOOK: Grade.CARE,
    StepState.FAILED: Grade.BAD,
}
COPIED_MS = 1500


def slot(action: Callable[[], object]) -> Callable[..., None]:
    """Return `action` as a slot that ignores what the signal carries, and what it returns."""

    def call(*_: object) -> None:
        action()

    return call


def button(text: str, action: Callable[[], object], *, tip: str = "") -> QPushButton:
    """Return a button that calls `action`."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    made.clicked.connect(slot(action))
    return made


def tell_command(made: QPushButton, tip: str, command: str) -> None:
    """Let the tool tip of a button say its command as well; a click with the right copies it."""
    if made.property("command") == command:
        return
    if made.property("command") is None:
        made.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        made.customContextMenuRequested.connect(
            lambda _: QGuiApplication.clipboard().setText(str(made.property("command")))
        )
    made.setProperty("command", command)
    made.setToolTip(f"{tip}\n\nAs a command (right click copies it):\n{command}".strip())


def primary(text: str, action: Callable[[], object]) -> QPushButton:
    """Return the one button of a page that leads on."""
    made = button(text, action)
    made.setObjectName("primary")
    made.setDefault(True)
    return made


def row(*widgets: QWidget | None) -> QHBoxLayout:
    """Return widgets beside each other; None stands for free space."""
    line = QHBoxLayout()
    line.setSpacing(10)
    for widget in widgets:
        if widget is None:
            line.addStretch(1)
        else:
            line.addWidget(widget)
    return line


def card(*widgets: QWidget, name: str = "card") -> QFrame:
    """Return widgets below each other in a frame."""
    frame = QFrame()
    frame.setObjectName(name)
    column = QVBoxLayout(frame)
    column.setContentsMargins(14, 12, 14, 12)
    column.setSpacing(8)
    for widget in widgets:
        column.addWidget(widget)
    return frame


class ReadingList(QWidget):
    """Readings below each other; rows are made once and used again."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[ReadingRow] = []
        self._shown: tuple[Reading, ...] | None = None
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(9)

    def show_readings(self, readings: Sequence[Reading]) -> None:
        """Show these."""
        if self._shown == tuple(readings):
            return
        self._shown = tuple(readings)
        while len(self._rows) < len(readings):
            self._rows.append(ReadingRow())
            self._column.addWidget(self._rows[-1])
        for index, made in enumerate(self._rows):
            made.setVisible(index < len(readings))
            if index < len(readings):
                made.show_reading(readings[index])
        self.setVisible(bool(readings))


class Elided(QLabel):
    """One line that is cut in the middle where there is no room, and whole in its tool tip."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.whole = ""

    def show_text(self, text: str) -> None:
        """Show `text`."""
        if text != self.whole:
            self.whole = text
            self.setToolTip(text)
            self._cut()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Cut it anew."""
        super().resizeEvent(event)
        self._cut()

    def _cut(self) -> None:
        middle = Qt.TextElideMode.ElideMiddle
        self.setText(self.fontMetrics().elidedText(self.whole, middle, self.width()))


class CommandRow(QWidget):
    """What the button of a page runs, as it can be typed."""

    def __init__(self) -> None:
        super().__init__()
        self.text = Elided("command")
        self.copy = button(
            "Copy as command",
            self._copy,
            tip="For a script that does what you clicked (Ctrl+Shift+C)",
        )
        line = row(self.text, self.copy)
        line.setStretch(0, 1)
        line.setContentsMargins(0, 0, 0, 0)
        self.setLayout(line)

    def show_command(self, command: str) -> None:
        """Show `command`."""
        self.text.show_text(command)

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.text.whole)
        self.copy.setText("Copied")
        QTimer.singleShot(COPIED_MS, self.copy, lambda: self.copy.setText("Copy as command"))


class JobBar(QWidget):
    """A job at work: what it does, how long it will take, a question, an error, a way to stop."""

    def __init__(self, stop: Callable[[], object], answer: Callable[[], object]) -> None:
        super().__init__()
        self.doing = label("muted")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setRange(0, 1000)
        self.stop = button("Stop", stop, tip="What was recorded until now is kept (Esc)")
        self.working = QWidget()
        words = QVBoxLayout()
        words.setSpacing(5)
        words.addWidget(self.doing)
        words.addWidget(self.bar)
        line = QHBoxLayout(self.working)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(14)
        line.addLayout(words, 1)
        line.addWidget(self.stop)
        self.question = label("headline", wrap=True)
        self.answer = button("Done, go on", answer)
        self.asking = card(self.question, self.answer, name="ask")
        self.error = label("", wrap=True)
        self.error.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.failure = card(self.error, name="error")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for widget in (self.failure, self.asking, self.working):
            column.addWidget(widget)

    def show_step(self, step: StepSnapshot) -> None:
        """Show the job of a step, or why it failed."""
        job = step.job if step.job is not None and step.job.running else None
        self.failure.setVisible(bool(step.error))
        self.error.setText(step.error[:1].upper() + step.error[1:])
        self.working.setVisible(job is not None)
        self.asking.setVisible(job is not None and bool(job.question))
        if job is not None:
            self.show_job(job, stopping=step.stopping)

    def show_job(self, job: JobSnapshot, *, stopping: bool = False) -> None:
        """Show how far a job is."""
        self.question.setText(job.question)
        share = job.share
        self.bar.setRange(0, 0 if share is None else 1000)
        if share is not None:
            self.bar.setValue(round(1000 * share))
        self.doing.setText("Stopping; what was recorded is kept" if stopping else _doing(job))
        self.stop.setText("End by force" if stopping else "Stop")


def _doing(job: JobSnapshot) -> str:
    words = [(job.task[:1].upper() + job.task[1:]) or "Starting"]
    if job.note:
        words.append(job.note)
    if job.seconds_left is not None and job.seconds_left >= 1:
        words.append(f"about {duration(round(job.seconds_left))} left")
    return " · ".join(words)


class StepButton(QPushButton):
    """A step in the list on the left: lamp, name, and where it stands."""

    def __init__(self, number: str, name: str, action: Callable[[], object]) -> None:
        super().__init__()
        self.setObjectName("step")
        self.setCheckable(True)
        self.setAccessibleName(name)
        self.lamp = Lamp(18)
        self.name = label("name", f"{number}  {name}".strip())
        self.line = Elided("small")
        for part in (self.lamp, self.name, self.line):
            part.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addWidget(self.name)
        words.addWidget(self.line)
        line = QHBoxLayout(self)
        line.setContentsMargins(10, 7, 8, 7)
        line.setSpacing(10)
        line.addWidget(self.lamp)
        line.addLayout(words, 1)
        self.setMinimumHeight(54)
        self.clicked.connect(slot(action))

    def show_state(self, state: StepState, line: str, *, current: bool) -> None:
        """Show where the step stands."""
        self.lamp.set_grade(LAMPS[state])
        self.line.show_text(line)
        self.setChecked(current)
