"""One image of the preview window: zoom, move, scale bar, marks of saturated pixels.

Owns how an image gets on the screen and where the mouse is in it. Which limits it is shown between
is settled in `display_levels`, which images there are in `window`.
"""

from __future__ import annotations

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

from .display_levels import Limits, nice_scale_bar, visible_part
from .merge import Layer, added_up
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
        self._layers: tuple[Layer, ...] = ()
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

    @property
    def layers(self) -> Sequence[Layer]:
        """What is shown; more than one are added up."""
        return self._layers

    @property
    def shape(self) -> tuple[int, int] | None:
        """(Y, X) of what is shown; None while the panel is empty."""
        if not self._layers:
            return None
        height, width = self._layers[0].image.shape
        return height, width

    def show_layers(self, layers: Sequence[Layer], pixel_size_um: float | None = None) -> None:
        """Show images of one shape, added up; none leave the panel empty."""
        self._layers, self._pixel_size_um = tuple(layers), pixel_size_um
        self.draw()

    def show_image(self, image: NDArray[Any] | None, limits: Limits) -> None:
        """Show `image` (Y, X) between `limits` in the panel's colours; None leaves it empty."""
        self.show_layers([] if image is None else [Layer(image, limits, self._table)])

    def set_table(self, table: NDArray[np.uint8]) -> None:
        """Use other colours for the next image, (256, 3) uint8."""
        self._table = table

    def draw(self, *_: object) -> None:
        """Draw the visible part again, for a new image, contrast or zoom."""
        shape = self.shape
        self.item.setVisible(shape is not None)
        if shape is None:
            return
        (left, right), (top, bottom) = self.box.viewRange()
        width, height = round(self.box.width()), round(self.box.height())
        sharp = self.devicePixelRatioF()
        screen = (round(width * sharp), round(height * sharp))
        part = visible_part(shape, (left, right), (top, bottom), screen)
        if len(self._layers) == 1:
            (layer,) = self._layers
            self.item.setImage(layer.greys(part), autoLevels=False, levels=None, lut=layer.table)
        else:
            colours = added_up(self._layers, part)
            self.item.setImage(colours, autoLevels=False, levels=None, lut=None)
        self.item.setRect(QRectF(*part.rectangle))
        if self._pixel_size_um and width:
            zoom = width / (right - left)  # screen pixels per image pixel
            image = QRectF(-left * zoom, -top * zoom, shape[1] * zoom, shape[0] * zoom)
            visible = image & QRectF(0, 0, width, height)
            self.scale_bar.show_scale(self._pixel_size_um / zoom, visible)

    def fit(self) -> None:
        """Show the whole image."""
        if self.shape is not None:
            height, width = self.shape
            self.show_range(QRectF(0, 0, width, height))

    def show_range(self, rectangle: QRectF) -> None:
        """Show this part of the image."""
        self.box.setRange(rectangle, padding=0)

    def _tell_range(self, *_: object) -> None:
        self.moved.emit(self.box.viewRect())

    def show_row(self, row: int | None) -> None:
        """Mark the row of the line profile."""
        self.row_line.setVisible(row is not None and self.shape is not None)
        if row is not None and self.shape is not None:
            self.row_line.setLine(0, row + 0.5, self.shape[1], row + 0.5)

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
        if self._layers and self.view.underMouse():
            point = self.box.mapSceneToView(position)
            self.pointed.emit(point.x(), point.y())

    def _clicked(self, click: Any) -> None:
        if click.double():
            self.fit_asked.emit()
