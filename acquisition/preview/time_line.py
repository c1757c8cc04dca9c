"""The slider over what was recorded in this run, and the thread that reads it.

Owns that only the newest wish is read and that the window never waits for the disk. What is read
is decided in `recorded_run`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QSlider, QWidget

from .widgets import label

if TYPE_CHECKING:
    from .recorded_run import Past

STEPS = 10_000


class PastReader(QObject):
    """Reads moments of the past, the newest wish first and no other."""

    found = Signal(object)

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._run = run
        self._changed = threading.Condition()
        self._wish: tuple[float, str, tuple[str, ...]] | None = None
        self._over = False
        self._thread: threading.Thread | None = None

    def ask(self, share: float, channel: str, others: Sequence[str]) -> None:
        """Wish for the frame at `share` (0 to 1) of a channel, and those of others beside it.

        It comes as `found`.
        """
        with self._changed:
            self._wish = (share, channel, tuple(others))
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="preview past")
            self._thread.start()

    def close(self) -> None:
        """End the thread; what it reads just now is read to its end."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        from .recorded_run import past  # readers of every format: not before somebody looks back

        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over or self._wish is not None)
                wish, self._wish = self._wish, None
            if self._over or wish is None:
                return
            found = past(self._run, *wish)
            if found is not None:
                self.found.emit(found)


class TimeLine(QWidget):
    """From the first frame of the run on the left to now on the right."""

    asked = Signal(float)
    live_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setValue(STEPS)
        self.slider.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.slider.setAccessibleName("Look back in this run")
        self.slider.setToolTip("Look back at what was recorded (left and right arrow keys)")
        self.slider.valueChanged.connect(lambda value: self.asked.emit(value / STEPS))
        self.text = label("muted", "now")
        self.live = QPushButton("Back to live")
        self.live.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.live.clicked.connect(lambda: self.live_asked.emit())
        self.live.setVisible(False)
        row = QHBoxLayout(self)
        row.setContentsMargins(2, 0, 2, 0)
        row.setSpacing(10)
        row.addWidget(label("section", "LOOK BACK"))
        row.addWidget(self.slider, 1)
        row.addWidget(self.text)
        row.addWidget(self.live)

    def show_place(self, index: int, count: int, place: str) -> None:
        """Say which frame is shown."""
        self.text.setText(f"image {index + 1} of {count}" + (f" ({place})" if place else ""))
        self.live.setVisible(True)

    def show_live(self) -> None:
        """Say that the newest frame is shown."""
        self.slider.blockSignals(True)
        self.slider.setValue(STEPS)
        self.slider.blockSignals(False)
        self.text.setText("now")
        self.live.setVisible(False)

    def go(self, frames: int, count: int) -> None:
        """Go so many frames on, of so many; of an unknown number, to the newest recorded one."""
        step = max(1, round(STEPS / (count - 1))) if count > 1 else 1
        self.slider.setValue(self.slider.value() + frames * step)


class LookBack(QObject):
    """Whether somebody looks back, and at what.

    Parameters
    ----------
    run
        The run directory; None where nothing is recorded, and the slider is hidden.

    Attributes
    ----------
    active
        Whether the past is shown.
    channel, others
        Of which the past is shown, and which are seen with it.
    """

    found = Signal(object)
    changed = Signal()

    def __init__(self, run: Path | None) -> None:
        super().__init__()
        self.active, self.channel = False, ""
        self.others: Sequence[str] = ()
        self._share = 1.0
        self.time_line = TimeLine()
        self.time_line.setVisible(run is not None)
        self._past: Past | None = None
        self._reader = None if run is None else PastReader(run)
        if self._reader is not None:
            self._reader.found.connect(self._show)
        self.time_line.asked.connect(self._ask)
        self.time_line.live_asked.connect(self.return_to_now)

    def go(self, frames: int) -> None:
        """Go so many frames on; back if less than 0."""
        if self._reader is not None:
            self.time_line.go(frames, 0 if self._past is None else self._past.count)

    def return_to_now(self) -> None:
        """Show the newest picture again."""
        self.active = False
        self.time_line.show_live()
        self.changed.emit()

    def close(self) -> None:
        """End the thread that reads."""
        if self._reader is not None:
            self._reader.close()

    def ask_again(self) -> None:
        """Ask for the same moment, because other channels are to be seen."""
        if self.active:
            self._ask(self._share)

    def _ask(self, share: float) -> None:
        if self._reader is not None:
            self.active, self._share = True, share
            self._reader.ask(share, self.channel, self.others)
            self.changed.emit()

    def _show(self, past: Past) -> None:
        if self.active:
            self._past = past
            self.time_line.show_place(past.index, past.count, past.place)
            self.found.emit(past)
