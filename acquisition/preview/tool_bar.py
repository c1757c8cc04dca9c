"""The bar at the top of the preview: what the run is, where it stands, what can be shown.

Owns the buttons and their keys' tool tips. What a click does is decided in `window`.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from .style import TABLES
from .widgets import Pill, label

EXTRAS = (
    ("Removed", "A third image: what the denoiser took out. It should be pure noise (R)"),
    ("Uncertainty", "A third image: how sure each pixel is. Bright is unsure (U)"),
)


class ToolBar(QFrame):
    """Title, state and buttons."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setObjectName("bar")
        self.title = label("title", title)
        self.pill = Pill()
        self.badge = label("badge", "SIMULATION")
        self.badge.setToolTip("This specimen is computed, not seen by a camera.")
        self.badge.setVisible(False)
        self.channel_box = QComboBox()
        self.channel_box.setToolTip(
            "The channel that is shown; all of them are recorded (C for the next, 1 to 9)"
        )
        self.channel_box.setVisible(False)
        self.merge = self._switch(
            "Merge", "All channels in one picture, each in its colour (M; 1 to 9 leave one out)"
        )
        self.merge.setVisible(False)
        self.table_box = QComboBox()
        self.table_box.setToolTip("Colours of this channel (L)")
        self.table_box.addItems(list(TABLES))
        self.extra = QButtonGroup(self)
        self.extra.setExclusive(False)
        for index, (text, tip) in enumerate(EXTRAS):
            self.extra.addButton(self._switch(text, tip), index)
        self.wipe = self._switch("Wipe", "One image: camera left of the line, denoised right (W)")
        self.doubts = self._switch(
            "Doubts",
            "Circle where something was removed (orange), and where the picture says more than "
            "the camera's image (blue) (D)",
        )
        self.trace = self._switch("Trace", "The brightness of a region over time (T)")
        self.hold = self._switch(
            "Hold", "Keep this picture on the screen (space bar); the run goes on"
        )
        self.newer = QPushButton("Use newer model")
        self.newer.setVisible(False)
        self.fit = QPushButton("Fit")
        self.fit.setToolTip("Show the whole image (F, or double-click it)")
        self.save = QPushButton("Save…")
        self.save.setToolTip("Save this window as a PNG picture (S)")
        self._room = 0
        self._unwanted: Sequence[QWidget] = ()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 8, 14, 8)
        row.setSpacing(9)
        for shown in (
            self.title,
            self.badge,
            self.pill,
            self.newer,
            self.channel_box,
            self.merge,
        ):
            row.addWidget(shown)
        row.addStretch(1)
        row.addWidget(self.table_box)
        for button in (
            *self.extra.buttons(),
            self.doubts,
            self.wipe,
            self.trace,
            self.hold,
            self.fit,
        ):
            row.addWidget(button)
        row.addWidget(self.save)
        for part in (*self.findChildren(QPushButton), *self.findChildren(QComboBox)):
            part.setFocusPolicy(Qt.FocusPolicy.NoFocus)

    def show_channels(self, names: Sequence[str]) -> None:
        """Offer the channels that there are; a single one is no choice."""
        known = self.channel_box.count()
        if len(names) > known:
            self.channel_box.addItems(list(names[known:]))
            self.channel_box.setVisible(len(names) > 1)
            self.merge.setVisible(len(names) > 1)
            self.make_room(self._room)

    def show_newer_model(self, name: str) -> None:
        """Offer a model that came into use since the run began; "" for none."""
        if bool(name) == self.newer.isHidden():
            self.newer.setVisible(bool(name))
            self.make_room(self._room)
        self.newer.setToolTip(
            f"“{name}” came into use since this run began. From the next image on it is denoised "
            "with that one (N); no image is lost, and the report says from which on."
        )

    def show_camera_alone(self) -> None:
        """Leave out what is about a model."""
        self._unwanted = (*self.extra.buttons(), self.doubts, self.wipe, self.trace)
        for part in self._unwanted:
            part.setVisible(False)

    def event(self, event: QEvent) -> bool:
        """Make room also where a part has grown: words change, channels come."""
        done = super().event(event)
        if event.type() == QEvent.Type.LayoutRequest and self._is_crowded():
            self.make_room(self._room)
        return done

    def make_room(self, width: int) -> None:
        """Leave out what has a key, and the title, where the bar is too narrow for everything."""
        self._room = width
        in_turn = (
            self.title,
            self.save,
            self.fit,
            self.table_box,
            self.trace,
            self.doubts,
            self.wipe,
        )
        leave_out = [part for part in in_turn if part not in self._unwanted]
        for part in leave_out:
            part.setVisible(True)
        for part in leave_out:
            if self._needed() <= width:
                break
            part.setVisible(False)
        row = self.layout()
        if row is not None:
            row.activate()

    def _is_crowded(self) -> bool:
        row = self.layout()
        return row is not None and row.minimumSize().width() > self._room > 0

    def _needed(self) -> int:
        """Return the width of what is not left out, pixels."""
        row = self.layout()
        if row is None:
            return 0
        row.invalidate()
        return int(row.minimumSize().width())

    def _switch(self, text: str, tip: str) -> QPushButton:
        made = QPushButton(text)
        made.setCheckable(True)
        made.setToolTip(tip)
        return made
