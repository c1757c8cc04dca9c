"""The images beside each other: camera, denoised, a third one; or one image with a line to wipe.

Owns which of them are seen, that they move and zoom together, and the region of a trace. Contrast
and colours come from outside; one panel by itself is `image_panel`, the sum of channels `merge`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from .display_levels import (
    CONTRAST_RULES,
    Limits,
    percentile_limits,
    saturation,
    symmetric_limits,
)
from .image_panel import ImagePanel
from .mailbox import Picture
from .merge import Layer
from .region_trace import Region
from .style import ACCENT, TABLES, difference_table, uncertainty_table
from .widgets import coloured
from .wording import shortened

REMOVED, UNCERTAINTY = 0, 1
LONGEST_NAME = 16


class Shown(NamedTuple):
    """A channel on its way to the screen: its picture, contrast and colours."""

    channel: str
    picture: Picture
    limits: Limits
    table: NDArray[np.uint8]

    @property
    def in_colour(self) -> str:
        """Its name in its colour, rich text."""
        red, green, blue = self.table[200]
        name = html.escape(shortened(self.channel, LONGEST_NAME))
        return coloured(f"■ {name}", f"#{red:02x}{green:02x}{blue:02x}")


class ImageRow(QWidget):
    """The panels of one picture."""

    region_moved = Signal()

    def __init__(self) -> None:
        super().__init__()
        greys = next(iter(TABLES.values()))()
        self.raw_panel = ImagePanel("Camera", "raw", greys)
        self.denoised_panel = ImagePanel("Denoised", "same contrast", greys)
        self.extra_panel = ImagePanel("Removed", "camera minus denoised", difference_table())
        self.panels = (self.raw_panel, self.denoised_panel, self.extra_panel)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(10)
        for panel in self.panels:
            row.addWidget(panel, 1)
            panel.moved.connect(self._show_range)
        self.extra_panel.setVisible(False)
        self.raw_panel.message.setText("Waiting for the first image")
        self.extra = -1
        self._pixel_size_um: float | None = None
        self._saturation_adu: float | None = None
        self._picture: Picture | None = None
        self._shown: Sequence[Shown] = ()
        self._region_is_placed = False
        self._doubts = False
        for panel in (self.raw_panel, self.denoised_panel):
            panel.hint.setTextFormat(Qt.TextFormat.RichText)
        line = pg.mkPen(ACCENT, width=2)
        self.wipe_line = pg.InfiniteLine(angle=90, movable=True, pen=line)
        self.wipe_line.setVisible(False)
        self.wipe_line.sigPositionChanged.connect(self._draw_denoised)
        self.denoised_panel.box.addItem(self.wipe_line, ignoreBounds=True)
        self.region_box = pg.RectROI([0, 0], [10, 10], pen=line)
        self.region_box.setVisible(False)
        self.region_box.sigRegionChanged.connect(lambda: self.region_moved.emit())
        self.denoised_panel.box.addItem(self.region_box, ignoreBounds=True)

    def about(self, pixel_size_um: float | None, saturation_adu: float | None) -> None:
        """Take what holds for the whole run."""
        self._pixel_size_um, self._saturation_adu = pixel_size_um, saturation_adu

    # ------------------------------------------------------------------------- what is seen

    def draw(self, picture: Picture, shown: Sequence[Shown], row: int) -> None:
        """Draw one channel, or several added up, with the row of the line profile marked.

        Parameters
        ----------
        picture
            Of the channel that is looked at; what is removed and unsure is shown of this one.
        shown
            The channels that are seen, of one shape.
        row
            Of `picture`.
        """
        self._picture, self._shown = picture, shown
        self._place_region()
        size_um = None if self._pixel_size_um is None else self._pixel_size_um * picture.step
        self.raw_panel.message.setText("")
        thinned = "" if picture.step == 1 else f", one pixel in {picture.step} shown"
        self.raw_panel.hint.setText((self._legend(lambda p: p.raw) or "raw") + thinned)
        self.raw_panel.show_layers(self._layers(lambda p: p.raw), size_um)
        self._draw_denoised()
        self.denoised_panel.message.setText(
            "" if picture.denoised is not None else "No model denoises this run"
        )
        if self.extra_panel.isVisibleTo(self):
            self._draw_extra(picture)
        self.mark_row(row)

    def _draw_denoised(self) -> None:
        picture = self._picture
        if picture is None:
            return
        scale_um = None
        if self.wiping:
            column = round(self.wipe_line.value())
            layers = self._layers(lambda p: wiped(p, column))
            scale_um = self._pixel_size_um and self._pixel_size_um * picture.step
        else:
            layers = self._layers(lambda p: p.denoised)
            hint = self._legend(lambda p: p.denoised) or "same contrast"
            self.denoised_panel.hint.setText(hint)
        self.denoised_panel.show_layers(layers, scale_um)
        places = picture.figures.get("places") if self._doubts else None
        self.denoised_panel.show_places(places or [], picture.step)

    def _layers(self, image_of: Callable[[Picture], NDArray[Any] | None]) -> list[Layer]:
        """Return an image of each channel that has one."""
        layers = []
        for _, picture, limits, table in self._shown:
            image, raw = image_of(picture), picture.raw
            if image is not None:
                limit = saturation(raw.dtype.name, self._saturation_adu)
                layers.append(Layer(image, limits, table, raw, limit))
        return layers

    def _legend(self, image_of: Callable[[Picture], NDArray[Any] | None]) -> str:
        """Return the channels of a sum in their colours, rich text; "" for a single one."""
        if len(self._shown) < 2:
            return ""
        seen = [one.in_colour for one in self._shown if image_of(one.picture) is not None]
        return "&nbsp; ".join(seen)

    def _draw_extra(self, picture: Picture) -> None:
        panel = self.extra_panel
        image: NDArray[Any] | None
        if self.extra == UNCERTAINTY:
            image = picture.uncertainty
            limits = Limits(0.0, 1.0)
            if image is not None:
                limits = Limits(0.0, max(percentile_limits(image, CONTRAST_RULES[0]).high, 1e-6))
            panel.hint.setText(f"0 to {limits.high:.3g} ADU")
        else:
            image = None if picture.denoised is None else picture.raw - picture.denoised
            limits = Limits(-1.0, 1.0) if image is None else symmetric_limits(image)
            panel.hint.setText(f"± {limits.high:.3g} ADU, should be pure noise")
        panel.message.setText("" if image is not None else "Waiting for the next image")
        panel.show_image(image, limits)

    def mark_row(self, row: int) -> None:
        """Mark the row of the line profile."""
        for panel in self.panels:
            panel.show_row(row)

    # ------------------------------------------------------------------- which of them there are

    def show_extra(self, which: int) -> None:
        """Show a third image: `REMOVED`, `UNCERTAINTY`, or -1 for none."""
        self.extra = which
        unsure = which == UNCERTAINTY
        self.extra_panel.name.setText("Uncertainty" if unsure else "Removed")
        self.extra_panel.set_table(uncertainty_table() if unsure else difference_table())
        self.extra_panel.setVisible(which >= 0)

    def show_doubts(self, on: bool) -> None:
        """Circle the places at which picture and camera do not agree."""
        self._doubts = on
        self._draw_denoised()

    @property
    def wiping(self) -> bool:
        """Whether one image is shown with a line to wipe."""
        return bool(self.wipe_line.isVisible())

    def wipe(self, on: bool) -> None:
        """Show one image, the camera's left of a line and the denoised one right of it."""
        self.wipe_line.setVisible(on)
        self.raw_panel.setVisible(not on)
        self.denoised_panel.name.setText("Camera  |  Denoised" if on else "Denoised")
        self.denoised_panel.hint.setText("drag the line" if on else "same contrast")
        if on and self._picture is not None:
            self.wipe_line.setValue(self._picture.raw.shape[1] / 2)
        self._draw_denoised()

    def show_region(self, on: bool) -> None:
        """Show the region of the trace, in the middle at first."""
        self.region_box.setVisible(on)
        self._place_region()

    def _place_region(self) -> None:
        if self._picture is None or self._region_is_placed or not self.region_box.isVisible():
            return
        self._region_is_placed = True
        height, width = self._picture.raw.shape
        self.region_box.setPos(0.4 * width, 0.4 * height)
        self.region_box.setSize([0.2 * width, 0.2 * height])

    def region(self) -> Region:
        """Return the region of the trace, in pixels of the picture."""
        corner, size = self.region_box.pos(), self.region_box.size()
        return Region(
            round(corner.y()), round(corner.x()), max(1, round(size.y())), max(1, round(size.x()))
        )

    # ----------------------------------------------------------------------------- zoom

    def fit(self) -> None:
        """Show the whole image in every panel."""
        for panel in self.panels:
            panel.fit()

    def zoom(self, factor: float) -> None:
        """Show `factor` times as much of the image, around the middle of what is seen."""
        seen = self.denoised_panel.box.viewRect()
        middle = seen.center()
        seen.setSize(seen.size() * factor)
        seen.moveCenter(middle)
        for panel in self.panels:
            panel.show_range(seen)

    def move_wipe_line(self, share: float) -> None:
        """Move the line by a share of the image's width."""
        if self._picture is not None and self.wiping:
            width = self._picture.raw.shape[1]
            self.wipe_line.setValue(min(max(self.wipe_line.value() + share * width, 0), width))

    def _show_range(self, rectangle: QRectF) -> None:
        for panel in self.panels:
            if panel is not self.sender():
                panel.show_range(rectangle)


def wiped(picture: Picture, column: int) -> NDArray[Any] | None:
    """Return the denoised image with the camera's left of `column`; None without a model."""
    if picture.denoised is None:
        return None
    column = min(max(column, 0), picture.raw.shape[1])
    image = picture.denoised.copy()
    image[:, :column] = picture.raw[:, :column]
    return image
