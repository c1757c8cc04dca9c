"""The parts of the preview window: colours, lamps, rows of readings, image panels, plots.

Owns how things look. Colours suit a dark microscope room: near-black, no pure white in the
frame, and every traffic light also differs in shape, because red and green look alike to one man
in twelve. It decides nothing about figures, contrast or the stream.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
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
    QLabel,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from .display_levels import GREYS, Limits, nice_scale_bar, screen_greys, visible_part
from .model import Grade, Reading

BACKGROUND = "#0b0d10"
SURFACE = "#13171b"
RAISED = "#1b2026"
BORDER = "#262d34"
TEXT = "#d3dae0"
MUTED = "#8b97a2"
ACCENT = "#5ec8b5"
RAW_COLOUR = "#87929c"
GRADE_COLOURS = {
    Grade.UNKNOWN: "#5b6670",
    Grade.GOOD: "#45b584",
    Grade.CARE: "#dca545",
    Grade.BAD: "#e5675f",
}
_SATURATED_COLOUR = (255, 72, 66)


def style_sheet(scale: float) -> str:
    """Return the window's style sheet, with lengths multiplied by `scale`."""

    def px(size: float) -> str:
        return f"{size * scale:.0f}px"

    return f"""
    QWidget {{ background: {BACKGROUND}; color: {TEXT}; font-size: {px(13)}; }}
    QLabel {{ background: transparent; }}
    QToolTip {{ background: {RAISED}; color: {TEXT}; border: 1px solid {BORDER}; padding: 4px; }}
    #bar, #side {{ background: {SURFACE}; }}
    #bar QWidget, #side QWidget {{ background: transparent; }}
    #side {{ border-left: 1px solid {BORDER}; }}
    #title {{ font-size: {px(15)}; font-weight: 600; }}
    #section {{ color: {MUTED}; font-size: {px(11)}; font-weight: 600; letter-spacing: 1px; }}
    #muted {{ color: {MUTED}; font-size: {px(12)}; }}
    #small {{ color: {MUTED}; font-size: {px(12)}; }}
    #value {{ font-weight: 600; }}
    #panel {{ font-size: {px(14)}; font-weight: 600; }}
    #headline {{ font-size: {px(15)}; font-weight: 600; }}
    #badge {{ color: {GRADE_COLOURS[Grade.CARE]}; border: 1px solid {GRADE_COLOURS[Grade.CARE]};
              border-radius: {px(4)}; padding: {px(2)} {px(8)}; font-size: {px(11)};
              font-weight: 700; letter-spacing: 1px; }}
    #overlay {{ color: {MUTED}; font-size: {px(15)}; }}
    #verdict {{ border-radius: {px(8)}; }}
    #rule {{ background: {BORDER}; max-height: 1px; min-height: 1px; }}
    #bar QPushButton, QPushButton {{ background: {RAISED}; border: 1px solid {BORDER};
              border-radius: {px(5)}; padding: {px(4)} {px(11)}; color: {TEXT}; }}
    #bar QPushButton:hover, QPushButton:hover {{ border-color: {MUTED}; }}
    #bar QPushButton:checked, QPushButton:checked {{ background: #1f3f3a; border-color: {ACCENT};
              color: {TEXT}; }}
    QPushButton:disabled {{ color: {GRADE_COLOURS[Grade.UNKNOWN]}; }}
    QComboBox {{ background: {RAISED}; border: 1px solid {BORDER}; border-radius: {px(5)};
              padding: {px(2)} {px(8)}; font-size: {px(12)}; }}
    QComboBox QAbstractItemView {{ background: {RAISED}; color: {TEXT};
              selection-background-color: #1f3f3a; }}
    QCheckBox {{ font-size: {px(12)}; spacing: {px(6)}; }}
    QCheckBox::indicator {{ width: {px(11)}; height: {px(11)}; border: 1px solid {MUTED};
              border-radius: {px(3)}; background: {RAISED}; }}
    QCheckBox::indicator:checked {{ background: {ACCENT}; border-color: {ACCENT}; }}
    """


def grey_table() -> NDArray[np.uint8]:
    """Return (256, 3) uint8: greys, and the colour of saturated pixels last."""
    table = np.repeat(np.linspace(0, 255, GREYS)[:, None], 3, axis=1)
    return np.vstack([table, _SATURATED_COLOUR]).round().astype(np.uint8)


def difference_table() -> NDArray[np.uint8]:
    """Return (256, 3) uint8: blue below zero, dark at zero, orange above."""
    return _gradient([(96, 165, 255), (16, 19, 23), (255, 166, 84)])


def uncertainty_table() -> NDArray[np.uint8]:
    """Return (256, 3) uint8: dark where it is sure, bright where it is not."""
    return _gradient([(8, 9, 20), (84, 44, 120), (200, 76, 96), (250, 170, 90), (252, 240, 190)])


def _gradient(stops: list[tuple[int, int, int]]) -> NDArray[np.uint8]:
    positions = np.linspace(0, GREYS - 1, len(stops))
    channels = [
        np.interp(np.arange(256), positions, channel) for channel in zip(*stops, strict=True)
    ]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def label(name: str, text: str = "", *, wrap: bool = False) -> QLabel:
    """Return a text that the style sheet knows by `name`."""
    widget = QLabel(text)
    widget.setObjectName(name)
    widget.setWordWrap(wrap)
    widget.setTextFormat(Qt.TextFormat.PlainText)
    return widget


def coloured(text: str, colour: str) -> str:
    """Return `text` as rich text of this colour."""
    return f'<span style="color:{colour}">{text}</span>'


def rule() -> QFrame:
    """Return a thin horizontal line."""
    line = QFrame()
    line.setObjectName("rule")
    return line


class Lamp(QWidget):
    """A traffic light that differs in shape as well: tick, triangle, cross, ring."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self.grade = Grade.UNKNOWN
        self.setFixedSize(size, size)

    def set_grade(self, grade: Grade) -> None:
        """Show `grade`."""
        if grade is not self.grade:
            self.grade = grade
            self.update()

    def set_scale(self, scale: float) -> None:
        """Grow with the text."""
        self.setFixedSize(round(self._size * scale), round(self._size * scale))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the lamp."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.scale(self.width() / 20, self.height() / 20)
        colour = QColor(GRADE_COLOURS[self.grade])
        stroke = QPen(QColor(BACKGROUND), 2.4)
        stroke.setCapStyle(Qt.PenCapStyle.RoundCap)
        stroke.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
        if self.grade is Grade.UNKNOWN:
            painter.setPen(QPen(colour, 2))
            painter.drawEllipse(QRectF(4, 4, 12, 12))
            return
        painter.setBrush(colour)
        if self.grade is Grade.CARE:
            painter.setPen(QPen(colour, 2.5, j=Qt.PenJoinStyle.RoundJoin))
            painter.drawPolygon([QPointF(10, 2.8), QPointF(18, 16.8), QPointF(2, 16.8)])
            strokes: list[list[tuple[float, float]]]
            strokes = [[(10, 7.2), (10, 11.6)], [(10, 14.8), (10, 14.81)]]
        else:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.drawEllipse(QRectF(1, 1, 18, 18))
            strokes = (
                [[(5.8, 10.4), (8.8, 13.3), (14.2, 7.2)]]
                if self.grade is Grade.GOOD
                else [[(6.6, 6.6), (13.4, 13.4)], [(13.4, 6.6), (6.6, 13.4)]]
            )
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(stroke)
        for points in strokes:
            path = QPainterPath(QPointF(*points[0]))
            for point in points[1:]:
                path.lineTo(QPointF(*point))
            painter.drawPath(path)


class ReadingRow(QWidget):
    """One judged figure: lamp, name, value, and what it means."""

    def __init__(self, *, lamp: bool = True) -> None:
        super().__init__()
        self.lamp = Lamp(18)
        self.lamp.setVisible(lamp)
        self.name = label("name")
        self.value = label("value")
        self.sentence = label("small", wrap=True)
        top = QHBoxLayout()
        top.setSpacing(6)
        top.addWidget(self.name)
        top.addStretch(1)
        top.addWidget(self.value)
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addLayout(top)
        words.addWidget(self.sentence)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(9)
        row.addWidget(self.lamp, alignment=Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)

    def show_reading(self, reading: Reading) -> None:
        """Show `reading`."""
        self.lamp.set_grade(reading.grade)
        self.name.setText(reading.name)
        self.value.setText(reading.value)
        self.value.setStyleSheet(
            f"color: {GRADE_COLOURS[reading.grade]};" if reading.grade >= Grade.CARE else ""
        )
        self.sentence.setText(reading.sentence)
        self.sentence.setVisible(bool(reading.sentence))
        self.setToolTip(reading.explanation)


class VerdictCard(QFrame):
    """The one judgement of the picture, large."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("verdict")
        self.lamp = Lamp(34)
        self.headline = label("headline", wrap=True)
        self.sentence = label("small", wrap=True)
        words = QVBoxLayout()
        words.setSpacing(3)
        words.addWidget(self.headline)
        words.addWidget(self.sentence)
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 11, 12, 11)
        row.setSpacing(12)
        row.addWidget(self.lamp, alignment=Qt.AlignmentFlag.AlignVCenter)
        row.addLayout(words, 1)

    def show_verdict(self, verdict: Reading) -> None:
        """Show `verdict`."""
        self.lamp.set_grade(verdict.grade)
        self.headline.setText(verdict.headline)
        self.sentence.setText(verdict.sentence)
        colour = QColor(GRADE_COLOURS[verdict.grade])
        tint = f"rgba({colour.red()},{colour.green()},{colour.blue()},34)"
        edge = f"rgba({colour.red()},{colour.green()},{colour.blue()},110)"
        self.setStyleSheet(
            f"#verdict {{ background: {tint}; border: 1px solid {edge}; border-radius: 8px; }}"
        )


class Pill(QLabel):
    """Where the run stands, with a coloured dot."""

    def show_state(self, words: str, grade: Grade) -> None:
        """Show `words` beside a dot of the grade's colour."""
        self.setTextFormat(Qt.TextFormat.RichText)
        colour = GRADE_COLOURS[grade]
        text_colour = TEXT if grade in (Grade.GOOD, Grade.UNKNOWN) else colour
        self.setText(f"{coloured('●', colour)}&nbsp; {coloured(html.escape(words), text_colour)}")


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


def plot() -> Any:
    """Return a quiet plot that does not react to the mouse wheel."""
    widget = pg.PlotWidget(background=BACKGROUND)
    widget.setMenuEnabled(False)
    widget.hideButtons()
    widget.setMouseEnabled(False, False)
    widget.setFrameShape(QFrame.Shape.NoFrame)
    item = widget.getPlotItem()
    item.layout.setContentsMargins(0, 6, 0, 0)  # or the topmost number is cut off
    for side in ("left", "bottom"):
        axis = item.getAxis(side)
        axis.setPen(pg.mkPen(BORDER))
        axis.setTextPen(pg.mkPen(MUTED))
        axis.setStyle(tickLength=-4)
    item.getAxis("left").setWidth(48)
    return widget


class StateLine(QFrame):
    """A line across the window that lights up when the run needs a look."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(2)
        self.show_grade(Grade.UNKNOWN)

    def show_grade(self, grade: Grade) -> None:
        """Take the grade's colour, or none while all is well."""
        colour = GRADE_COLOURS[grade] if grade >= Grade.CARE else BORDER
        self.setStyleSheet(f"background: {colour};")


def titled(head: Sequence[QWidget | None], body: QWidget) -> QWidget:
    """Return `body` under a row of widgets; None stands for free space."""
    box = QWidget()
    row = QHBoxLayout()
    row.setContentsMargins(2, 0, 2, 0)
    row.setSpacing(8)
    for widget in head:
        if widget is None:
            row.addStretch(1)
        else:
            row.addWidget(widget)
    column = QVBoxLayout(box)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(4)
    column.addLayout(row)
    column.addWidget(body, 1)
    return box


def later(action: Callable[[], None]) -> Callable[..., None]:
    """Return `action` as a slot that ignores what the signal carries."""

    def slot(*_: object) -> None:
        action()

    return slot
