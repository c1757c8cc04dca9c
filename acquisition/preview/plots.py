"""The two plots below the images: brightness with the contrast's edges, and a line profile.

Owns what they show of a picture, and their controls. What a person does with these is decided in
`window`, the contrast itself in `display_levels`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QCheckBox, QComboBox

from .display_levels import CONTRAST_RULES, Limits, SharedContrast, histogram, histogram_edges
from .mailbox import Picture
from .region_trace import RegionTrace
from .style import ACCENT, RAW_COLOUR
from .widgets import coloured, label, plot, titled


class ContrastPlot:
    """Histograms of both images, and the edges between which they are shown."""

    def __init__(self) -> None:
        self.auto_box = QCheckBox("Automatic")
        self.auto_box.setChecked(True)
        self.auto_box.setToolTip("Follow the image (A). Drag the edges to set contrast by hand.")
        self.rule_box = QComboBox()
        for contrast_rule in CONTRAST_RULES:
            self.rule_box.addItem(contrast_rule.name)
        for widget in (self.auto_box, self.rule_box):
            widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.plot = plot()
        self.plot.getPlotItem().hideAxis("left")
        self._raw = self.plot.plot(
            pen=None, fillLevel=0, brush=pg.mkBrush(RAW_COLOUR + "66"), stepMode="center"
        )
        self._denoised = self.plot.plot(pen=pg.mkPen(ACCENT, width=1.5), stepMode="center")
        self.levels = pg.LinearRegionItem(
            brush=pg.mkBrush(255, 255, 255, 14),
            pen=pg.mkPen(ACCENT, width=2),
            hoverBrush=pg.mkBrush(255, 255, 255, 22),
        )
        self.levels.setZValue(10)
        self.plot.addItem(self.levels)
        self._text = label("muted")
        self._text.setToolTip("What is black and what is white, in the camera's values (ADU)")
        self._name = label("section", "CONTRAST")
        head = [self._name, self._text, None, self.auto_box, self.rule_box]
        self.widget = titled(head, self.plot)

    def be_brief(self, brief: bool) -> None:
        """Leave out the words, where there is room for the controls alone."""
        self._name.setVisible(not brief)
        self._text.setVisible(not brief)

    def show(self, picture: Picture, limits: Limits) -> None:
        """Show the brightness of a picture, and the limits between which it is drawn."""
        edges = histogram_edges(picture.raw, picture.denoised)
        self._raw.setData(edges, histogram(picture.raw, edges))
        if picture.denoised is not None:
            self._denoised.setData(edges, histogram(picture.denoised, edges))
        self._denoised.setVisible(picture.denoised is not None)
        self.levels.blockSignals(True)
        self.levels.setRegion(limits)
        self.levels.blockSignals(False)
        low, high = min(edges[0], limits.low), max(edges[-1], limits.high)
        self.plot.setXRange(low, high, padding=0.02)
        self.show_limits(limits)

    def show_limits(self, limits: Limits) -> None:
        """Write the limits in numbers."""
        self._text.setText(f"{limits.low:.4g} – {limits.high:.4g}")

    def show_rule(self, contrast: SharedContrast) -> None:
        """Show how a contrast is set, without setting it."""
        with QSignalBlocker(self.auto_box), QSignalBlocker(self.rule_box):
            self.auto_box.setChecked(contrast.automatic)
            self.rule_box.setCurrentIndex(CONTRAST_RULES.index(contrast.rule))


class ProfilePlot:
    """The brightness along one row of both images."""

    def __init__(self) -> None:
        self.text = label("muted")
        self.text.setTextFormat(Qt.TextFormat.RichText)  # its colours are the legend
        self.plot = plot()
        self._raw = self.plot.plot(pen=pg.mkPen(RAW_COLOUR, width=1))
        self.denoised = self.plot.plot(pen=pg.mkPen(ACCENT, width=2))
        self._column_line = pg.InfiniteLine(angle=90, pen=pg.mkPen(RAW_COLOUR, width=1))
        self._column_line.setVisible(False)
        self.plot.addItem(self._column_line)
        self._range = SharedContrast()
        self._range.set_automatic(CONTRAST_RULES[2])
        self._name = label("section", "LINE PROFILE")
        self.widget = titled([self._name, None, self.text], self.plot)

    def be_brief(self, brief: bool) -> None:
        """Leave out the name, where the values alone have room."""
        self._name.setVisible(not brief)

    def show(self, picture: Picture, row: int, column: int | None, since_last: float) -> None:
        """Show a row of a picture, and one of its pixels if somebody points at it."""
        columns = np.arange(picture.raw.shape[1])
        self._raw.setData(columns, picture.raw[row].astype(np.float32))
        if picture.denoised is not None:
            self.denoised.setData(columns, picture.denoised[row])
        self.denoised.setVisible(picture.denoised is not None)
        self._range.follow(picture.raw[row][None], since_last)
        low, high = self._range.limits
        self.plot.setXRange(0, columns[-1], padding=0)
        self.plot.setYRange(low, high, padding=0.05)
        self._column_line.setVisible(column is not None)
        if column is not None:
            self._column_line.setPos(column)
        self.text.setText(_words(picture, row, column))


def _words(picture: Picture, row: int, column: int | None) -> str:
    if column is None or column >= picture.raw.shape[1]:
        words = [f"row {row * picture.step}", coloured("camera", RAW_COLOUR)]
        if picture.denoised is not None:
            words.append(coloured("denoised", ACCENT))
        return "&nbsp;&nbsp; ".join(words)
    words = [f"x {column * picture.step}, y {row * picture.step}"]
    words.append(coloured(f"camera {picture.raw[row, column]:.5g}", RAW_COLOUR))
    if picture.denoised is not None:
        value = f"{picture.denoised[row, column]:.4g}"
        if picture.uncertainty is not None:
            value += f" ± {picture.uncertainty[row, column]:.2g}"
        words.append(coloured(f"denoised {value}", ACCENT))
    return "&nbsp;&nbsp; ".join(words)


class TracePlot:
    """The brightness of a region over time, with the band in which the denoised one lies."""

    def __init__(self) -> None:
        self.plot = plot()
        self._raw = self.plot.plot(pen=pg.mkPen(RAW_COLOUR, width=1), connect="finite")
        self._upper, self._lower = pg.PlotCurveItem(pen=None), pg.PlotCurveItem(pen=None)
        self._band = pg.FillBetweenItem(self._upper, self._lower, brush=pg.mkBrush(ACCENT + "44"))
        self.plot.addItem(self._band)
        self.denoised = self.plot.plot(pen=pg.mkPen(ACCENT, width=2), connect="finite")
        self.text = label("muted")
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.widget = titled([label("section", "REGION OVER TIME"), None, self.text], self.plot)
        self.widget.setToolTip(
            "Mean of the region. The band is the widest that its uncertainty can be: as if the "
            "errors of all its pixels were the same."
        )

    def show(self, trace: RegionTrace) -> None:
        """Show the moments so far."""
        times, raw, denoised, uncertainty = trace.curves().T
        self._raw.setData(times, raw)
        self.denoised.setData(times, denoised)
        known = np.isfinite(denoised) & np.isfinite(uncertainty)
        self._upper.setData(times[known], (denoised + uncertainty)[known])
        self._lower.setData(times[known], (denoised - uncertainty)[known])
        self._band.setVisible(bool(known.any()))
        if times.size:
            self._range(times, [raw, (denoised + uncertainty)[known], denoised - uncertainty])
            words = [coloured(f"camera {raw[-1]:.5g}", RAW_COLOUR)]
            if np.isfinite(denoised[-1]):
                sure = f" ± {uncertainty[-1]:.2g}" if np.isfinite(uncertainty[-1]) else ""
                words.append(coloured(f"denoised {denoised[-1]:.5g}{sure}", ACCENT))
            self.text.setText("&nbsp;&nbsp; ".join(words))

    def _range(self, times: NDArray[np.float64], curves: Sequence[NDArray[np.float64]]) -> None:
        values = np.concatenate(curves)
        values = values[np.isfinite(values)]
        self.plot.setXRange(times[0], max(times[-1], times[0] + 1), padding=0)
        if values.size:
            low, high = float(values.min()), float(values.max())
            self.plot.setYRange(low, max(high, low + 1e-3), padding=0.1)
