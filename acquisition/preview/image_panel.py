"""One image of the preview window: zoom, move, scale bar, marks of saturated pixels.

Owns how an image gets on the screen and where the mouse is in it. Which limits it is shown between
is settled in `display_levels`, which images there are in `window`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFont, QPainter, QPainterPath, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QGraphicsLineItem,
    QGraphicsScene,
    QHBoxLayout,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from .display_levels import Limits, nice_scale_bar, screen_greys, visible_part
from .style import BACKGROUND, INVENTED, LOST, TEXT
from .widgets import label


class ScaleBar(QWidget):
    """A bar of a round length in µm in the corner of an image."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setStyleSheet("background: transparent;")
        self._length = 0.0
        self._corner = QPointF()
        self._text = ""

    def show_scale(self, um_per_screen_pixel: float, visible: QRectF) -> None:
        """Choose the length for this magnification; `visible` is where the image is."""
        length_um = nice_scale_bar(um_per_screen_pixel * visible.width())
        self._length = length_um / um_per_screen_pixel
        self._corner = visible.bottomLeft()
        self._text = f"{length_um:g} µm" if length_um >= 1 else f"{length_um * 1000:g} nm"
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw bar and length, with a dark edge so that it shows on bright cells too."""
        if not self._length:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        left, bottom = self._corner.x() + 14, self._corner.y() - 14
        bar = QRectF(left, bottom - 4, self._length, 4)
        painter.fillRect(bar.adjusted(-1, -1, 1, 1), QColor(0, 0, 0, 170))
        painter.fillRect(bar, QColor(TEXT))
        font = QFont(self.font())
        font.setBold(True)
        path = QPainterPath()
        path.addText(QPointF(left, bottom - 10), font, self._text)
        painter.strokePath(path, QPen(QColor(0, 0, 0, 190), 3))
        painter.fillPath(path, QColor(TEXT))


class ImagePanel(QWidget):
    """One image with its name: zoom with the wheel, move by dragging, fit with a double click."""

    pointed = Signal(float, float)
    fit_asked = Signal()
    moved = Signal(QRectF)

    def __init__(self, name: str, hint: str, table: NDArray[np.uint8]) -> None:
        super().__init__()
        self.name = label("panel", name)
        self.hint = label("muted", hint)
        self.view = pg.GraphicsView(background=BACKGROUND)
        self.view.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.view.setFrameShape(QFrame.Shape.NoFrame)
        self.box = pg.ViewBox(lockAspect=True, invertY=True, enableMenu=False)
        self.view.setCentralItem(self.box)
        self.item = pg.ImageItem(axisOrder="row-major")
        self.box.addItem(self.item)
        self.row_line = QGraphicsLineItem()
        self.row_line.setPen(pg.mkPen(QColor(94, 200, 181, 95), width=1))
        self.row_line.setVisible(False)
        self.box.addItem(self.row_line, ignoreBounds=True)
        self.places = pg.ScatterPlotItem(pxMode=False)
        self.box.addItem(self.places, ignoreBounds=True)
        self.message = label("overlay", "", wrap=True)
        self.message.setParent(self.view)
        self.message.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.message.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.scale_bar = ScaleBar(self.view)
        self._table = table
        self._image: NDArray[Any] | None = None
        self._raw: NDArray[Any] | None = None
        self._saturation_adu = math.inf
        self._limits = Limits(0.0, 1.0)
        self._pixel_size_um: float | None = None
        head = QHBoxLayout()
        head.setContentsMargins(2, 0, 2, 0)
        head.addWidget(self.name)
        head.addStretch(1)
        head.addWidget(self.hint)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(head)
        column.addWidget(self.view, 1)
        self.box.sigRangeChanged.connect(self.draw)
        self.box.sigRangeChangedManually.connect(self._tell_range)
        self.view.sigDeviceRangeChanged.connect(self._lay_over)
        scene: QGraphicsScene = self.view.scene()
        scene.sigMouseMoved.connect(self._moved)  # type: ignore[attr-defined]
        scene.sigMouseClicked.connect(self._clicked)  # type: ignore[attr-defined]

    def show_image(
        self,
        image: NDArray[Any] | None,
        limits: Limits,
        raw: NDArray[Any] | None = None,
        saturation_adu: float = math.inf,
        pixel_size_um: float | None = None,
    ) -> None:
        """Show `image` (Y, X) between `limits`; None leaves the panel empty.

        Pixels at which `raw` reaches `saturation_adu` are marked.
        """
        self._image, self._limits, self._raw = image, limits, raw
        self._saturation_adu, self._pixel_size_um = saturation_adu, pixel_size_um
        self.draw()

    def set_table(self, table: NDArray[np.uint8]) -> None:
        """Use other colours, (256, 3) uint8."""
        self._table = table

    def draw(self, *_: object) -> None:
        """Draw the visible part again, for a new image, contrast or zoom."""
        self.item.setVisible(self._image is not None)
        if self._image is None:
            return
        (left, right), (top, bottom) = self.box.viewRange()
        width, height = round(self.box.width()), round(self.box.height())
        shape = (self._image.shape[0], self._image.shape[1])
        sharp = self.devicePixelRatioF()
        screen = (round(width * sharp), round(height * sharp))
        part = visible_part(shape, (left, right), (top, bottom), screen)
        raw = self._raw
        greys = screen_greys(
            self._image[part.rows, part.columns],
            self._limits,
            None if raw is None else raw[part.rows, part.columns] >= self._saturation_adu,
        )
        self.item.setImage(greys, autoLevels=False, levels=None, lut=self._table)
        self.item.setRect(QRectF(*part.rectangle))
        if self._pixel_size_um and width:
            zoom = width / (right - left)  # screen pixels per image pixel
            image = QRectF(-left * zoom, -top * zoom, shape[1] * zoom, shape[0] * zoom)
            visible = image & QRectF(0, 0, width, height)
            self.scale_bar.show_scale(self._pixel_size_um / zoom, visible)

    def fit(self) -> None:
        """Show the whole image."""
        if self._image is not None:
            height, width = self._image.shape
            self.show_range(QRectF(0, 0, width, height))

    def show_range(self, rectangle: QRectF) -> None:
        """Show this part of the image."""
        self.box.setRange(rectangle, padding=0)

    def _tell_range(self, *_: object) -> None:
        self.moved.emit(self.box.viewRect())

    def show_row(self, row: int | None) -> None:
        """Mark the row of the line profile."""
        self.row_line.setVisible(row is not None and self._image is not None)
        if row is not None and self._image is not None:
            self.row_line.setLine(0, row + 0.5, self._image.shape[1], row + 0.5)

    def show_places(self, places: Sequence[Sequence[float]], step: int) -> None:
        """Circle places (y, x, radius, strength) of the camera frame, of which `step` are shown.

        Those where something was removed in one colour, where something was added in the other.
        """
        self.places.setData(
            [
                {
                    "pos": ((x + 0.5) / step, (y + 0.5) / step),
                    "size": 4 * radius / step,
                    "pen": pg.mkPen(LOST if strength > 0 else INVENTED, width=2),
                    "brush": None,
                    "symbol": "o" if strength > 0 else "s",
                }
                for y, x, radius, strength in places
            ]
        )

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep what lies over the image in place."""
        super().resizeEvent(event)
        self._lay_over()

    def _lay_over(self, *_: object) -> None:
        self.message.setGeometry(self.view.rect().adjusted(24, 24, -24, -24))
        self.scale_bar.setGeometry(self.view.rect())
        self.draw()

    def _moved(self, position: QPointF) -> None:
        if self._image is not None and self.view.underMouse():
            point = self.box.mapSceneToView(position)
            self.pointed.emit(point.x(), point.y())

    def _clicked(self, click: Any) -> None:
        if click.double():
            self.fit_asked.emit()
