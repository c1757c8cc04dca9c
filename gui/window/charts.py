"""Pictures of what is measured: the photon-transfer curve, the losses, a crop before and after.

Owns how they are drawn, in both appearances. What is drawn comes in snapshots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage, QPixmap, QResizeEvent
from PySide6.QtWidgets import QFrame, QLabel, QSizePolicy, QVBoxLayout, QWidget

from ...acquisition.preview.display_levels import CONTRAST_RULES, percentile_limits
from ...acquisition.preview.widgets import coloured, label
from ..job import LossPoint, Tile
from .parts import row
from .theme import Theme

MOST_TICKS = 6
"""On an axis: more would run into each other in the smallest window."""


class Chart(QWidget):
    """A quiet plot with a name; subclasses say what is in it."""

    def __init__(self, name: str, across: str, up: str, *, empty: str = "") -> None:
        super().__init__()
        self.plot: Any = pg.PlotWidget()
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.setMouseEnabled(False, False)
        self.plot.setFrameShape(QFrame.Shape.NoFrame)
        for side in ("left", "bottom"):
            self.plot.getPlotItem().getAxis(side).enableAutoSIPrefix(False)
        self.plot.setMinimumHeight(150)
        self._across, self._up = across, up
        self.name = label("section", name)
        self.empty = label("intro", empty, wrap=True)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.show_whether_empty(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self._head = row(self.name)
        column.addLayout(self._head)
        column.addWidget(self.plot, 1)
        column.addWidget(self.empty, 1)

    def show_beside_name(self, words: QLabel) -> None:
        """Put words right of the name, at the other end of the line."""
        self._head.addWidget(words, 1)

    def show_whether_empty(self, empty: bool) -> None:
        """Say what will be here, where there is nothing yet."""
        self.name.setVisible(not empty)
        self.plot.setVisible(not empty)
        self.empty.setVisible(empty)

    def set_theme(self, theme: Theme) -> None:
        """Take these colours."""
        self.plot.setBackground(theme.background)
        item = self.plot.getPlotItem()
        item.setLabel("bottom", self._across, color=theme.muted)
        item.setLabel("left", self._up, color=theme.muted)
        for side in ("left", "bottom"):
            axis = item.getAxis(side)
            axis.setPen(pg.mkPen(theme.border))
            axis.setTextPen(pg.mkPen(theme.muted))


class PhotonTransferChart(Chart):
    """How the noise grows with the light: the curve that a calibration measures."""

    def __init__(self) -> None:
        super().__init__(
            "HOW THE NOISE GROWS WITH LIGHT",
            "brightness (grey levels)",
            "noise² (grey levels²)",
            empty="The curve grows here, point by point, while your camera is measured.",
        )
        self.plot.setLogMode(True, True)
        self._fit = self.plot.plot()
        self._points = self.plot.plot(pen=None, symbol="o", symbolSize=9)

    def set_theme(self, theme: Theme) -> None:
        """Take these colours."""
        super().set_theme(theme)
        self._fit.setPen(pg.mkPen(theme.other_curve, width=2))
        self._points.setSymbolBrush(pg.mkBrush(theme.curve))
        self._points.setSymbolPen(pg.mkPen(theme.background))

    def show_levels(
        self, levels: Sequence[tuple[float, float]], model: Sequence[tuple[float, float]]
    ) -> None:
        """Show the levels so far and, once there is one, the fitted camera."""
        self.show_whether_empty(not levels)
        for curve, values in ((self._points, levels), (self._fit, sorted(model))):
            known = [(x, y) for x, y in values if x > 0 and y > 0]
            curve.setData([x for x, _ in known], [y for _, y in known])
        for number, side in enumerate(("bottom", "left")):
            ticks = round_ticks([level[number] for level in levels])
            self.plot.getPlotItem().getAxis(side).setTicks([ticks, []])


def round_ticks(values: Sequence[float]) -> list[tuple[float, str]]:
    """Return (power of ten, words) of a few round numbers among `values`, for a logarithmic axis.

    As many as there is room for: 1, 2, 5, 10 … over a short range, every third power over a long.
    """
    known = [value for value in values if value > 0]
    if not known:
        return []
    low, high = math.log10(min(known)) - 0.2, math.log10(max(known)) + 0.2
    powers = range(math.floor(low), math.ceil(high) + 1)
    steps = [
        [factor * 10.0**power for power in powers for factor in (1, 2, 5)],
        *([10.0**power for power in powers if power % every == 0] for every in (1, 2, 3)),
    ]
    shown = [[n for n in numbers if low <= math.log10(n) <= high] for numbers in steps]
    numbers = next((few for few in shown if len(few) <= MOST_TICKS), shown[-1])
    return [(math.log10(number), f"{number:,.10g}") for number in numbers]


class LossChart(Chart):
    """How well held-out images are predicted, and those that are learned from."""

    def __init__(self) -> None:
        super().__init__(
            "ERROR (lower is better)",
            "step",
            "error",
            empty="A piece of your image, raw and denoised, appears here while it learns.",
        )
        self._loss = self.plot.plot()
        self._held_out = self.plot.plot(symbol="o", symbolSize=7)
        self._legend = label("small")
        self._legend.setTextFormat(Qt.TextFormat.RichText)
        self._legend.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.show_beside_name(self._legend)

    def set_theme(self, theme: Theme) -> None:
        """Take these colours."""
        super().set_theme(theme)
        self._loss.setPen(pg.mkPen(theme.muted, width=1))
        self._held_out.setPen(pg.mkPen(theme.curve, width=2))
        self._held_out.setSymbolBrush(pg.mkBrush(theme.curve))
        self._held_out.setSymbolPen(pg.mkPen(theme.background))
        learned = coloured("── learned from", theme.muted)
        self._legend.setText(f"{learned}&nbsp;&nbsp; {coloured('●─ never seen', theme.curve)}")
        self._legend.setToolTip("On images that it learns from, and on images that it never sees")

    def show_losses(self, losses: Sequence[LossPoint]) -> None:
        """Show the losses so far; the steep beginning is cut off, or it hides the rest."""
        self.show_whether_empty(not losses)
        self._legend.setVisible(bool(losses))
        known = [(p.step, p.loss) for p in losses if p.loss is not None]
        held_out = {
            p.validation_loss: p.step for p in reversed(losses) if p.validation_loss is not None
        }
        points = sorted((step, loss) for loss, step in held_out.items())
        self._loss.setData([s for s, _ in known], [v for _, v in known])
        self._held_out.setData([s for s, _ in points], [v for _, v in points])
        values = [v for _, v in known[len(known) // 10 :]] + [v for _, v in points]
        if values and math.isfinite(sum(values)):
            low, high = np.percentile(values, [0, 95])
            margin = 0.1 * max(high - low, 1e-3)
            self.plot.setYRange(low - margin, high + margin, padding=0)


class Picture(QLabel):
    """One small image, every pixel as it is, as large as there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(160, 160)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self._pixmap = QPixmap()

    def show_greys(self, image: NDArray[Any], low: float, high: float) -> None:
        """Show `image` (Y, X) between black at `low` and white at `high`."""
        scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
        greys = np.ascontiguousarray(np.round(255 * scaled).astype(np.uint8))
        height, width = greys.shape
        made = QImage(greys.data, width, height, width, QImage.Format.Format_Grayscale8)
        self._pixmap = QPixmap.fromImage(made.copy())
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fill the room there is."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        if not self._pixmap.isNull():
            # Pixels stay squares: smoothing would denoise as well, and make the camera look good.
            self.setPixmap(self._pixmap.scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio))


class BeforeAndAfter(QWidget):
    """The same crop as the camera gave it and as the model sees it now, at one contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.raw, self.denoised = Picture(), Picture()
        self._denoised_name = label("section", "DENOISED")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        pictures = row(self._named(label("section", "CAMERA"), self.raw))
        pictures.addWidget(self._named(self._denoised_name, self.denoised))
        column.addLayout(pictures, 1)
        self._step = -1

    @staticmethod
    def _named(name: QLabel, picture: Picture) -> QWidget:
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(name)
        column.addWidget(picture, 1)
        return box

    def show_tile(self, tile: Tile | None) -> None:
        """Show a tile, if it is a new one."""
        self.setVisible(tile is not None)
        if tile is None or tile.step == self._step:
            return
        self._step = tile.step
        limits = percentile_limits(tile.denoised, CONTRAST_RULES[0])
        self.raw.show_greys(tile.raw, *limits)
        self.denoised.show_greys(tile.denoised, *limits)
        self._denoised_name.setText(f"DENOISED, AFTER {tile.step:,} STEPS")
