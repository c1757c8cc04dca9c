"""The bar at the top of the preview: what the run is, where it stands, what can be shown.

Owns the buttons and their keys' tool tips. What a click does is decided in `window`.
"""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QButtonGroup, QComboBox, QFrame, QHBoxLayout, QPushButton

from .style import TABLES
from .widgets import Pill, label

EXTRAS = (
    ("Removed", "A third image: what the denoiser took out. It should be pure noise (R)"),
    ("Uncertainty", "A third image: how sure each pixel is. Bright is unsure (U)"),
)
WIDE = 1200
"""Pixels, at the smallest text size, from which on everything has room."""


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
        self.channel_box.setToolTip("The channel that is shown; all of them are recorded.")
        self.channel_box.setVisible(False)
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
        self.fit = QPushButton("Fit")
        self.fit.setToolTip("Show the whole image (F, or double-click it)")
        self.save = QPushButton("Save…")
        self.save.setToolTip("Save this window as a PNG picture (S)")
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 8, 14, 8)
        row.setSpacing(9)
        for shown in (self.title, self.badge, self.pill, self.channel_box):
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

    def make_room(self, width: float) -> None:
        """Leave out what has a key, where the bar is narrower than everything in it."""
        self.title.setVisible(width >= WIDE)
        for button in (self.fit, self.save):
            button.setVisible(width >= WIDE)

    def _switch(self, text: str, tip: str) -> QPushButton:
        made = QPushButton(text)
        made.setCheckable(True)
        made.setToolTip(tip)
        return made
