"""The preview window itself: what is shown where, and what a click does.

Owns the layout, the clock that looks into the mailbox, and the hands-on controls. The pictures
come from `mailbox`, contrast from `display_levels`, every judgement and sentence from `model` and
`stream_watch`; how the parts look is in `widgets`, `image_panel`, `plots` and `style`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
from numpy.typing import NDArray
from PySide6.QtCore import QDateTime, QRectF, QStandardPaths, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from .display_levels import (
    CONTRAST_RULES,
    Limits,
    SharedContrast,
    percentile_limits,
    saturation,
    symmetric_limits,
    telling_row,
)
from .image_panel import ImagePanel
from .mailbox import MailboxReader, Picture, ReaderState
from .model import FigureAverage, Grade, run_lines, speed_readings, trust_readings, verdict
from .plots import ContrastPlot, ProfilePlot
from .stream_watch import StreamState, StreamWatch
from .style import difference_table, grey_table, style_sheet, uncertainty_table
from .widgets import (
    Lamp,
    Pill,
    ReadingRow,
    StateLine,
    VerdictCard,
    label,
    later,
    rule,
)

SIDE_WIDTH, PLOT_HEIGHT = 326, 104
"""In pixels, at the smallest text size."""
TICK_MS = 20
CPU_SHARE = 0.3
"""The window takes at most this share of one core: the rest is the camera's and denoiser's."""
WORDS_INTERVAL_S = 0.3
"""Numbers that change faster than this cannot be read."""
PLOTS_INTERVAL_S = 0.15
"""Curves cost more to draw than images."""


class PreviewWindow(QWidget):
    """The window on one mailbox.

    Parameters
    ----------
    reader
        Where the pictures come from; the window closes it.
    still
        True for a picture of the window: no clock, no state of the run.
    embedded
        Whether it is a part of another window, which decides on its size and its end.
    """

    closed = Signal()

    def __init__(
        self, reader: MailboxReader, *, still: bool = False, embedded: bool = False
    ) -> None:
        super().__init__()
        self._reader = reader
        self._still = still
        self._embedded = embedded
        # One contrast per channel, kept while another one is looked at.
        self._channel = ""
        self._contrast = SharedContrast()
        self._contrasts = {self._channel: self._contrast}
        self._average = FigureAverage()
        self._watch = StreamWatch()
        self._writer = _Process(reader.writer_pid)
        self._picture: Picture | None = None
        self._shape: tuple[int, ...] = ()
        self._pixel_size_um: float | None = reader.about.get("pixel_size_um")
        self._saturation_adu: float | None = reader.about.get("saturation_adu")
        self._row = 0
        self._column: int | None = None
        self._held = False
        self._last_picture_s = time.monotonic()
        self._last_words_s = 0.0
        self._last_plots_s = 0.0
        self._cpu_s = time.process_time()
        self._scale = 0.0
        self._build()
        self._connect()
        self._rescale()
        self.refresh()
        self._clock = QTimer(self)
        self._clock.setSingleShot(True)
        self._clock.timeout.connect(self._tick)
        if not still:
            self._clock.start(TICK_MS)

    # -- layout ---------------------------------------------------------------------------

    def _build(self) -> None:
        title = str(self._reader.about.get("title") or "")
        self.setWindowTitle(f"{title} – quietscope" if title else "quietscope")
        if not self._embedded:
            self.setMinimumSize(1000, 640)
        page = QVBoxLayout(self)
        page.setContentsMargins(0, 0, 0, 0)
        page.setSpacing(0)
        page.addWidget(self._build_bar(title or "Live preview"))
        self.state_line = StateLine()
        page.addWidget(self.state_line)
        middle = QHBoxLayout()
        middle.setSpacing(0)
        middle.addLayout(self._build_images(), 1)
        middle.addWidget(self._build_side())
        page.addLayout(middle, 1)

    def _build_bar(self, title: str) -> QWidget:
        bar = QFrame()
        bar.setObjectName("bar")
        self.title = label("title", title)
        self.pill = Pill()
        self.badge = label("badge", "SIMULATION")
        self.badge.setToolTip("This specimen is computed, not seen by a camera.")
        self.badge.setVisible(False)
        self.pill.setVisible(not self._still)
        row = QHBoxLayout(bar)
        row.setContentsMargins(14, 8, 14, 8)
        row.setSpacing(12)
        for widget in (self.title, self.badge, self.pill):
            row.addWidget(widget)
        self.channel_box = QComboBox()
        self.channel_box.setToolTip("The channel that is shown; all of them are recorded.")
        self.channel_box.setVisible(False)
        self.channel_box.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        row.addWidget(self.channel_box)
        row.addStretch(1)
        self.extra = QButtonGroup(self)
        for index, (text, tip) in enumerate(
            [
                ("Removed", "A third image: what the denoiser took out. It should be pure noise."),
                ("Uncertainty", "A third image: how sure each pixel is. Bright is unsure."),
            ]
        ):
            button = QPushButton(text)
            button.setCheckable(True)
            button.setToolTip(tip)
            self.extra.addButton(button, index)
            row.addWidget(button)
        self.extra.setExclusive(False)
        self.hold_button = QPushButton("Hold")
        self.hold_button.setCheckable(True)
        self.hold_button.setToolTip("Keep this picture on the screen (space bar); the run goes on")
        self.fit_button = QPushButton("Fit")
        self.fit_button.setToolTip("Show the whole image (F, or double-click it)")
        self.save_button = QPushButton("Save picture…")
        self.save_button.setToolTip("Save this window as a PNG picture (S)")
        for button in (self.hold_button, self.fit_button, self.save_button):
            row.addWidget(button)
        for any_button in bar.findChildren(QPushButton):
            any_button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        return bar

    def _build_images(self) -> QVBoxLayout:
        greys = grey_table()
        self.raw_panel = ImagePanel("Camera", "raw", greys)
        self.denoised_panel = ImagePanel("Denoised", "same contrast", greys)
        self.extra_panel = ImagePanel("Removed", "camera minus denoised", difference_table())
        self.panels = (self.raw_panel, self.denoised_panel, self.extra_panel)
        row = QHBoxLayout()
        row.setSpacing(10)
        for panel in self.panels:
            row.addWidget(panel, 1)
            panel.moved.connect(self._show_range)
        self.extra_panel.setVisible(False)
        self.raw_panel.message.setText("Waiting for the first image")
        below = QHBoxLayout()
        below.setSpacing(10)
        self.contrast_plot, self.profile_plot = ContrastPlot(), ProfilePlot()
        below.addWidget(self.contrast_plot.widget, 1)
        below.addWidget(self.profile_plot.widget, 1)
        column = QVBoxLayout()
        column.setContentsMargins(12, 10, 12, 8)
        column.setSpacing(10)
        column.addLayout(row, 1)
        column.addLayout(below)
        return column

    def _build_side(self) -> QWidget:
        self.side = QFrame()
        self.side.setObjectName("side")
        self.verdict_card = VerdictCard()
        self.trust_rows = [ReadingRow() for _ in range(4)]
        self.speed_rows = [ReadingRow(lamp=False) for _ in range(5)]
        self.run_form = QFormLayout()
        self.run_form.setVerticalSpacing(3)
        self.run_form.setHorizontalSpacing(12)
        column = QVBoxLayout(self.side)
        column.setContentsMargins(14, 12, 14, 10)
        column.setSpacing(9)
        column.addWidget(self.verdict_card)
        for row in self.trust_rows:
            column.addWidget(row)
        column.addWidget(rule())
        speed = QVBoxLayout()
        speed.setSpacing(4)
        for row in self.speed_rows:
            speed.addWidget(row)
        column.addLayout(speed)
        column.addStretch(1)
        column.addWidget(rule())
        column.addLayout(self.run_form)
        return self.side

    def _connect(self) -> None:
        self.extra.idClicked.connect(self._choose_extra)
        self.channel_box.textActivated.connect(self._reader.want_channel)
        self.hold_button.toggled.connect(self.hold)
        self.fit_button.clicked.connect(later(self.fit))
        self.save_button.clicked.connect(later(self._ask_and_save))
        self.contrast_plot.auto_box.toggled.connect(self._toggle_automatic)
        self.contrast_plot.rule_box.currentIndexChanged.connect(self._choose_rule)
        self.contrast_plot.levels.sigRegionChanged.connect(later(self._levels_dragged))
        for panel in self.panels:
            panel.pointed.connect(self._point_at)
            panel.fit_asked.connect(self.fit)
        for key, action in (
            ("Space", self.hold_button.toggle),
            ("F", self.fit),
            ("S", self._ask_and_save),
            ("A", self.contrast_plot.auto_box.toggle),
        ):
            QShortcut(QKeySequence(key), self, action)

    # -- the clock ------------------------------------------------------------------------

    def _tick(self) -> None:
        # A window that nobody sees leaves the picture in the mailbox: the writer then copies less.
        if not self.isMinimized() and not self._held:
            picture = self._reader.take()
            if picture is not None:
                self.show_picture(picture)
        if time.monotonic() - self._last_words_s > WORDS_INTERVAL_S:
            self.refresh()
        asked_to_go = self._reader.please_close and not self._embedded
        if asked_to_go or self._over_and_unseen():
            self.close()
            return
        spent_s = time.process_time() - self._cpu_s  # with what Qt painted since the last tick
        self._cpu_s += spent_s
        self._clock.start(round(max(TICK_MS, 1000 * spent_s / CPU_SHARE)))

    def _over_and_unseen(self) -> bool:
        # Without a screen nobody could ever close the window.
        if self._embedded:
            return False
        unseen = QGuiApplication.platformName() in ("offscreen", "minimal")
        return unseen and self.stream_state() in (StreamState.ENDED, StreamState.LOST)

    def stream_state(self) -> StreamState:
        """Return where the run stands."""
        return self._watch.state(
            time.monotonic(), ended=self._reader.ended, writer_alive=self._writer.alive()
        )

    def show_picture(self, picture: Picture) -> None:
        """Show `picture` and its figures."""
        now = time.monotonic()
        since_last = now - self._last_picture_s
        self._last_picture_s = now
        self._watch.arrived(now)
        self._picture = picture
        self._turn_to_channel(picture)
        self._average.add(picture.figures, since_last)
        self._contrast.follow(
            picture.raw if picture.denoised is None else picture.denoised, since_last
        )
        new_shape = picture.raw.shape != self._shape
        if new_shape:
            self._shape = picture.raw.shape
            shown = picture.raw if picture.denoised is None else picture.denoised
            self._row, self._column = telling_row(shown), None
        self._draw_images()
        if new_shape or now - self._last_plots_s > PLOTS_INTERVAL_S:
            self._draw_histogram()
            self._draw_profile(now - self._last_plots_s)
            self._last_plots_s = now
        if new_shape:
            self.fit()

    def _turn_to_channel(self, picture: Picture) -> None:
        channel = str(picture.figures.get("channel") or "")
        if channel != self._channel:
            self._channel = channel
            self._contrast = self._contrasts.setdefault(channel, SharedContrast())
            self._average = FigureAverage()
            self.contrast_plot.show_rule(self._contrast)
        known = self.channel_box.count()
        if len(picture.channels) > known:
            self.channel_box.addItems(picture.channels[known:])
            self.channel_box.setVisible(len(picture.channels) > 1)

    def _draw_images(self) -> None:
        picture = self._picture
        if picture is None:
            return
        limits = self._contrast.limits
        pixel_size_um = None if self._pixel_size_um is None else self._pixel_size_um * picture.step
        self.raw_panel.message.setText("")
        self.raw_panel.hint.setText(
            "raw" if picture.step == 1 else f"raw, one pixel in {picture.step} shown"
        )
        saturation_adu = saturation(picture.raw.dtype.name, self._saturation_adu)
        common = (limits, picture.raw, saturation_adu)
        self.raw_panel.show_image(picture.raw, *common, pixel_size_um)
        self.denoised_panel.show_image(picture.denoised, *common)
        self.denoised_panel.message.setText(
            "" if picture.denoised is not None else "No model denoises this run"
        )
        if self.extra_panel.isVisibleTo(self):
            self._draw_extra(picture)
        for panel in self.panels:
            panel.show_row(self._row)

    def _draw_extra(self, picture: Picture) -> None:
        panel = self.extra_panel
        image: NDArray[Any] | None
        if self.extra.checkedId() == 1:
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

    def _draw_histogram(self) -> None:
        if self._picture is not None:
            self.contrast_plot.show(self._picture, self._contrast.limits)

    def _draw_profile(self, since_last: float = 0.0) -> None:
        if self._picture is not None:
            self._row = min(self._row, self._picture.raw.shape[0] - 1)
            self.profile_plot.show(self._picture, self._row, self._column, since_last)

    def refresh(self) -> None:
        """Write all words and numbers anew."""
        now = time.monotonic()
        self._last_words_s = now
        figures = self._average.figures
        readings = trust_readings(figures, self._contrast.limits.span if self._picture else 0.0)
        for row, reading in zip(self.trust_rows, readings, strict=True):
            row.show_reading(reading)
        denoised = self._picture is None or self._picture.denoised is not None
        self.verdict_card.show_verdict(verdict(readings, denoised=denoised))
        for row, reading in zip(self.speed_rows, speed_readings(figures), strict=True):
            row.show_reading(reading)
        self._show_run(run_lines(figures))
        self.badge.setVisible(bool(figures.get("simulated")))
        words, grade = self._watch.words(self.stream_state(), now)
        if self._held:
            words, grade = "Held – press space to go on", Grade.CARE
        self.pill.show_state(words, grade)
        self.state_line.show_grade(Grade.UNKNOWN if self._still else grade)

    def _show_run(self, lines: list[tuple[str, str]]) -> None:
        if self.run_form.rowCount() != len(lines):
            while self.run_form.rowCount():
                self.run_form.removeRow(0)
            for name, value in lines:
                self.run_form.addRow(label("muted", name), label("muted", value))
        for index, (_, value) in enumerate(lines):
            item = self.run_form.itemAt(index, QFormLayout.ItemRole.FieldRole)
            widget = None if item is None else item.widget()
            if widget is not None:
                widget.setProperty("text", value)

    def show_camera_alone(self) -> None:
        """Show the camera's images and nothing about a model: for a run without one."""
        self.side.hide()
        self.denoised_panel.hide()
        for button in self.extra.buttons():
            button.hide()

    # -- what a person does ---------------------------------------------------------------

    def fit(self) -> None:
        """Show the whole image in every panel."""
        for panel in self.panels:
            panel.fit()

    def _show_range(self, rectangle: QRectF) -> None:
        for panel in self.panels:
            if panel is not self.sender():
                panel.show_range(rectangle)

    def hold(self, held: bool) -> None:
        """Keep the picture on the screen, or go on."""
        self._held = held
        self.refresh()

    def _choose_extra(self, chosen: int) -> None:
        for button in self.extra.buttons():
            if self.extra.id(button) != chosen:
                button.setChecked(False)
        self.show_extra(self.extra.checkedId())

    def show_extra(self, which: int) -> None:
        """Show a third image: 0 what was removed, 1 the uncertainty, -1 none."""
        for button in self.extra.buttons():
            button.setChecked(self.extra.id(button) == which)
        self._reader.want_uncertainty(which == 1)
        self.extra_panel.name.setText("Uncertainty" if which == 1 else "Removed")
        self.extra_panel.set_table(uncertainty_table() if which == 1 else difference_table())
        self.extra_panel.setVisible(which >= 0)
        self._draw_images()
        # Once the layout has given the panels their new widths.
        QTimer.singleShot(0, self, self.fit)

    def _toggle_automatic(self, automatic: bool) -> None:
        if automatic:
            self._contrast.set_automatic()
            self._follow_at_once()
        else:
            self._contrast.set_by_hand(*self._contrast.limits)

    def _choose_rule(self, index: int) -> None:
        self._contrast.set_automatic(CONTRAST_RULES[index])
        self.contrast_plot.auto_box.setChecked(True)
        self._follow_at_once()

    def _follow_at_once(self) -> None:
        if self._picture is not None:
            shown = self._picture.denoised
            self._contrast.follow(self._picture.raw if shown is None else shown, 0.0)
            self._draw_images()
            self._draw_histogram()

    def _levels_dragged(self) -> None:
        low, high = self.contrast_plot.levels.getRegion()
        self._contrast.set_by_hand(low, high)
        self.contrast_plot.auto_box.setChecked(False)
        self._draw_images()
        self.contrast_plot.show_limits(Limits(low, high))

    def _point_at(self, x: float, y: float) -> None:
        if self._picture is None:
            return
        height, width = self._picture.raw.shape
        if 0 <= x < width and 0 <= y < height:
            self._row, self._column = int(y), int(x)
            for panel in self.panels:
                panel.show_row(self._row)
            self._draw_profile()

    def _ask_and_save(self) -> None:
        picture = self.grab()  # before the dialog: this very moment
        folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.PicturesLocation)
        stamp = QDateTime.currentDateTime().toString("yyyy-MM-dd HH-mm-ss")
        place = Path(folder) if Path(folder).is_dir() else Path.home()
        suggestion = str(place / f"quietscope {stamp}.png")
        path, _ = QFileDialog.getSaveFileName(self, "Save picture", suggestion, "Picture (*.png)")
        if path and not picture.save(path, "PNG"):
            self.pill.show_state(f"{path} could not be written", Grade.BAD)
            self._last_words_s = time.monotonic() + 4  # leave it there long enough to be read

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Grow the text with the window, so that it can be read from the microscope."""
        super().resizeEvent(event)
        self._rescale()

    def _rescale(self) -> None:
        fitting = min(self.width() / 1280, self.height() / 720)
        scale = round(min(max(fitting, 1.0), 1.35) * 20) / 20
        if scale != self._scale:
            self._scale = scale
            self.setStyleSheet(style_sheet(scale))
            self.side.setFixedWidth(round(SIDE_WIDTH * scale))
            for plot in (self.contrast_plot, self.profile_plot):
                plot.plot.setFixedHeight(round(PLOT_HEIGHT * scale))
            for lamp in self.findChildren(Lamp):
                lamp.set_scale(scale)
        QTimer.singleShot(0, self, self.fit)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Tell the acquisition that nobody looks any more, and tidy up."""
        self._clock.stop()
        by_user = not self._reader.please_close and not self._over_and_unseen()
        self._reader.report(ReaderState.CLOSED_BY_USER if by_user else ReaderState.SHOWN)
        self._reader.close(remove=self._reader.ended or not self._writer.alive())
        super().closeEvent(event)
        self.closed.emit()


class _Process:
    """Whether the program that feeds the mailbox still runs."""

    def __init__(self, pid: int) -> None:
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.Error:
            self._process = None

    def alive(self) -> bool:
        try:
            return (
                self._process is not None
                and self._process.is_running()
                and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return False
