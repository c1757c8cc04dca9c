"""The preview window itself: what is shown where, and what a click does.

Owns the layout, the clock that looks into the mailbox, and the hands-on controls. The pictures
come from `mailbox`, contrast from `display_levels`, every judgement and sentence from `model` and
`stream_watch`; how the parts look is in `tool_bar`, `image_row`, `plots`, `side_panel`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QCloseEvent, QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from ...inference.trust.verdict import Grade
from .contrast_control import ContrastControl
from .display_levels import telling_row
from .image_row import UNCERTAINTY, ImageRow, Shown
from .mailbox import MailboxReader, Picture, ReaderState
from .merge import Channels, ChannelView
from .model import Reading, merged_verdict, run_lines, speed_readings, trust_readings, verdict
from .newer_model import ModelExchange
from .picture_file import ask_and_save
from .plots import ProfilePlot, TracePlot
from .region_trace import RegionTrace
from .side_panel import SidePanel
from .stream_watch import StreamState, StreamWatch, WriterProcess
from .style import TABLES, style_sheet
from .time_line import LookBack
from .tool_bar import ToolBar
from .widgets import Lamp, StateLine, later
from .wording import shortened

if TYPE_CHECKING:
    from ...storage.session_requests import Answer
    from .recorded_run import Past

SIDE_WIDTH, PLOT_HEIGHT = 326, 104
"""In pixels, at the smallest text size."""
NARROW = 980
"""Below it the plots have no room for their names."""
BRIEF_HEIGHT = 690
"""Below it the panel of words has no room for every sentence."""
TICK_MS = 20
NUDGE, ZOOM = 0.05, 1.25
"""By how much a key moves an edge of the contrast or the wiper, and zooms."""
CPU_SHARE = 0.4
"""The window takes at most this share of one core: the rest is the camera's and denoiser's."""
WORDS_INTERVAL_S = 0.3
"""Numbers that change faster than this cannot be read."""
LONGEST_WORDS = 70
PLOTS_INTERVAL_S = 0.25
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
        self.channels = Channels()
        self._past: Channels | None = None
        self._watch = StreamWatch()
        self._writer = WriterProcess(reader.writer_pid)
        self._picture: Picture | None = None
        self._shape: tuple[int, ...] = ()
        self._row = 0
        self._column: int | None = None
        self._held = False
        self._trace: RegionTrace | None = None
        self._began_s = time.monotonic()
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
        about = self._reader.about
        title = str(about.get("title") or "")
        self.setWindowTitle(f"{title} – quietscope" if title else "quietscope")
        if not self._embedded:
            self.setMinimumSize(1000, 640)
        self.bar = ToolBar(title or "Live preview")
        self.bar.pill.setVisible(not self._still)
        self.state_line = StateLine()
        self.images = ImageRow()
        self.images.about(about.get("pixel_size_um"), about.get("saturation_adu"))
        self.side = SidePanel()
        self._name_parts()
        page = QVBoxLayout(self)
        page.setContentsMargins(0, 0, 0, 0)
        page.setSpacing(0)
        page.addWidget(self.bar)
        page.addWidget(self.state_line)
        middle = QHBoxLayout()
        middle.setSpacing(0)
        middle.addLayout(self._build_images(), 1)
        middle.addWidget(self.side)
        page.addLayout(middle, 1)

    def _name_parts(self) -> None:
        """Give the parts that a click changes a short name."""
        self.pill, self.badge, self.extra = self.bar.pill, self.bar.badge, self.bar.extra
        self.channel_box, self.hold_button = self.bar.channel_box, self.bar.hold
        self.panels = self.images.panels
        self.raw_panel, self.denoised_panel, self.extra_panel = self.panels
        self.verdict_card = self.side.verdict_card
        self.trust_rows, self.speed_rows = self.side.trust_rows, self.side.speed_rows

    def _build_images(self) -> QVBoxLayout:
        self.contrast = ContrastControl()
        self.contrast_plot, self.profile_plot = self.contrast.plot, ProfilePlot()
        self.trace_plot = TracePlot()
        self.trace_plot.widget.setVisible(False)
        run = self._reader.about.get("run")
        folder = None if run is None or self._still else Path(str(run))
        self.look_back, self.exchange = LookBack(folder), ModelExchange(folder)
        below = QHBoxLayout()
        below.setSpacing(10)
        for part in (self.contrast_plot, self.profile_plot, self.trace_plot):
            below.addWidget(part.widget, 1)
        column = QVBoxLayout()
        column.setContentsMargins(12, 10, 12, 8)
        column.setSpacing(8)
        column.addWidget(self.images, 1)
        column.addWidget(self.look_back.time_line)
        column.addLayout(below)
        return column

    def _connect(self) -> None:
        bar = self.bar
        bar.extra.idClicked.connect(self._choose_extra)
        bar.channel_box.textActivated.connect(self.choose_channel)
        bar.merge.toggled.connect(self.merge)
        bar.table_box.textActivated.connect(self._choose_table)
        bar.doubts.toggled.connect(self.images.show_doubts)
        bar.wipe.toggled.connect(self._wipe)
        bar.trace.toggled.connect(self._toggle_trace)
        bar.hold.toggled.connect(self.hold)
        bar.newer.clicked.connect(later(self.use_newer_model))
        self.exchange.answered.connect(self._show_answer)
        bar.fit.clicked.connect(later(self.fit))
        bar.save.clicked.connect(later(self._ask_and_save))
        self.contrast.changed.connect(self._draw_images)
        self.images.region_moved.connect(self._begin_trace)
        self.look_back.found.connect(self._show_past)
        self.look_back.changed.connect(self._look_back_or_return)
        for panel in self.panels:
            panel.pointed.connect(self._point_at)
            panel.fit_asked.connect(self.fit)
        for key, action in self._keys().items():
            QShortcut(QKeySequence(key), self, action)

    def _keys(self) -> dict[str, Callable[[], object]]:
        removed, uncertainty = self.extra.buttons()
        keys: dict[str, Callable[[], object]] = {
            "Space": self._space,
            "F": self.fit,
            "S": self._ask_and_save,
            "A": self.contrast_plot.auto_box.toggle,
            "R": removed.click,
            "U": uncertainty.click,
            "D": self.bar.doubts.toggle,
            "W": self.bar.wipe.toggle,
            "T": self.bar.trace.toggle,
            "L": self._next_table,
            "M": self._toggle_merge,
            "C": self._next_channel,
            **{str(number + 1): partial(self._press_number, number) for number in range(9)},
            "N": self.use_newer_model,
            "K": self.contrast.next_rule,
            "Ctrl+Up": partial(self.contrast.nudge, white=NUDGE),
            "Ctrl+Down": partial(self.contrast.nudge, white=-NUDGE),
            "Ctrl+Shift+Up": partial(self.contrast.nudge, black=NUDGE),
            "Ctrl+Shift+Down": partial(self.contrast.nudge, black=-NUDGE),
            "+": partial(self.images.zoom, 1 / ZOOM),
            "-": partial(self.images.zoom, ZOOM),
            "Ctrl+Left": partial(self.images.move_wipe_line, -NUDGE),
            "Ctrl+Right": partial(self.images.move_wipe_line, NUDGE),
            "Alt+Up": partial(self._move_row, -1),
            "Alt+Down": partial(self._move_row, 1),
            "Left": lambda: self.look_back.go(-1),
            "Right": lambda: self.look_back.go(1),
            "Home": self.look_back.return_to_now,
        }
        if not self._embedded:  # the window around it has its own
            keys["F11"] = self.toggle_full_screen
        return keys

    # -- the clock ------------------------------------------------------------------------

    def _tick(self) -> None:
        # A window that nobody sees leaves the picture in the mailbox: the writer then copies less.
        seen = not self.isMinimized() and (self.isVisible() or not self._embedded)
        if seen and not self._held and not self.look_back.active:
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
        self._watch.arrived(now)
        self.channels.note(picture.channels)
        self.bar.show_channels(self.channels.names)
        name = str(picture.figures.get("channel") or "")
        beside = self.channels.takes(name)
        if not beside:
            self._turn_to(name)
        view = self.channels.of(name)
        since_last = now - view.seen_s if view.picture is not None else 0.0
        view.take(picture, now)
        if beside:
            self.contrast.follow_beside(name, picture, since_last)
            self._draw_images()
            return
        if self._trace is not None:
            self._trace.add(picture, now - self._began_s)
        self._show(picture, since_last)

    def _show(self, picture: Picture, since_last: float) -> None:
        now = time.monotonic()
        self._picture = picture
        self.contrast.follow(picture, since_last)
        new_shape = picture.raw.shape != self._shape
        if new_shape:
            self._shape = picture.raw.shape
            shown = picture.raw if picture.denoised is None else picture.denoised
            self._row, self._column = telling_row(shown), None
        self._draw_images()
        if new_shape or now - self._last_plots_s > PLOTS_INTERVAL_S:
            self.contrast.draw()
            self._draw_profile(now - self._last_plots_s)
            self._draw_trace()
            self._last_plots_s = now
        if new_shape:
            self.fit()

    def _show_past(self, past: Past) -> None:
        """Show a moment of the past; the newest pictures are kept for the way back."""
        self._past = self.channels.with_pictures((past.picture, *past.others))
        self._show(past.picture, 0.0)

    def _look_back_or_return(self) -> None:
        newest = self.channels.now.picture
        if not self.look_back.active and self._past is not None:
            self._past = None
            if newest is not None:
                self._show(newest, 0.0)
        self.refresh()

    def _turn_to(self, name: str) -> None:
        if name == self.channels.now.name:
            return
        self.channels.turn_to(name)
        self.contrast.turn_to(name)
        self.channel_box.setCurrentText(name)
        self.bar.table_box.setCurrentText(self.channels.now.table)
        self._tell_look_back()
        self._begin_trace()

    def _draw_images(self) -> None:
        if self._picture is None:
            return
        channels = self._past or self.channels
        shown = [
            Shown(view.name, view.picture, self.contrast.limits_of(view.name), table)
            for view, table in channels.merged()
            if view.picture is not None
        ]
        self.images.draw(self._picture, shown, self._row)

    def _draw_profile(self, since_last: float = 0.0) -> None:
        if self._picture is not None:
            self._row = min(self._row, self._picture.raw.shape[0] - 1)
            self.profile_plot.show(self._picture, self._row, self._column, since_last)

    def _draw_trace(self) -> None:
        if self._trace is not None:
            self.trace_plot.show(self._trace)

    def refresh(self) -> None:
        """Write all words and numbers anew."""
        now = time.monotonic()
        self._last_words_s = now
        figures = self.channels.now.average.figures
        if not self.look_back.active:
            verdicts = {view.name: self._judged(view) for view, _ in self.channels.merged()}
            now_seen = self._readings(self.channels.now)
            self.side.show_trust(now_seen, merged_verdict(verdicts or {"": verdict(now_seen)}))
            self.side.show_history(self.channels.now.history)
        self.side.show_speed(speed_readings(figures))
        self.side.show_run(run_lines(figures))
        self.badge.setVisible(bool(figures.get("simulated")))
        newer = figures.get("newer_model")
        waits = bool(newer) and self.exchange.can_ask and not self._reader.ended
        self.bar.show_newer_model(Path(str(newer)).name if waits else "")
        words, grade = self._watch.words(self.stream_state(), now)
        if self.look_back.active:
            words, grade = "Looking back – the run goes on", Grade.CARE
        elif self._held:
            words, grade = "Held – press space to go on", Grade.CARE
        self.pill.show_state(words, grade)
        self.state_line.show_grade(Grade.UNKNOWN if self._still else grade)

    def _readings(self, view: ChannelView) -> list[Reading]:
        span = 0.0 if view.picture is None else self.contrast.limits_of(view.name).span
        return trust_readings(view.average.figures, span)

    def _judged(self, view: ChannelView) -> Reading:
        """Return the verdict on a channel, and keep it in its history."""
        denoised = view.picture is None or view.picture.denoised is not None
        judged = verdict(self._readings(view), denoised=denoised)
        figures = view.average.figures
        elapsed, frame = figures.get("elapsed_s"), figures.get("frame_index")
        if isinstance(elapsed, int | float) and isinstance(frame, int):
            view.history.add(judged.grade, judged.headline, float(elapsed), frame)
        return judged

    def show_camera_alone(self) -> None:
        """Show the camera's images and nothing about a model: for a run without one."""
        self.side.hide()
        self.denoised_panel.hide()
        self.bar.show_camera_alone()

    # -- what a person does ---------------------------------------------------------------

    def fit(self) -> None:
        """Show the whole image in every panel."""
        self.images.fit()

    def hold(self, held: bool) -> None:
        """Keep the picture on the screen, or go on."""
        self._held = held
        self.refresh()

    def _space(self) -> None:
        # In another window the space bar also presses the button that has the focus.
        focused = QApplication.focusWidget()
        if isinstance(focused, QAbstractButton):
            focused.click()
        else:
            self.bar.hold.toggle()

    def _choose_extra(self, chosen: int) -> None:
        for button in self.extra.buttons():
            if self.extra.id(button) != chosen:
                button.setChecked(False)
        self.show_extra(self.extra.checkedId())

    def show_extra(self, which: int) -> None:
        """Show a third image: 0 what was removed, 1 the uncertainty, -1 none."""
        for button in self.extra.buttons():
            button.setChecked(self.extra.id(button) == which)
        self.images.show_extra(which)
        self._want_uncertainty()
        self._draw_images()
        # Once the layout has given the panels their new widths.
        QTimer.singleShot(0, self, self.fit)

    def _want_uncertainty(self) -> None:
        self._reader.want_uncertainty(self.images.extra == UNCERTAINTY or self._trace is not None)

    def _wipe(self, on: bool) -> None:
        self.images.wipe(on)
        QTimer.singleShot(0, self, self.fit)

    def _toggle_trace(self, on: bool) -> None:
        self.images.show_region(on)
        self.profile_plot.widget.setVisible(not on)
        self.trace_plot.widget.setVisible(on)
        self._trace = None
        if on:
            self._begin_trace()
        self._want_uncertainty()

    def _begin_trace(self) -> None:
        if self.bar.trace.isChecked():
            self._trace = RegionTrace(self.images.region())
            self._draw_trace()

    def _choose_table(self, name: str) -> None:
        self.channels.now.table = name
        self.bar.table_box.setCurrentText(name)
        self._draw_images()

    def _next_table(self) -> None:
        names = list(TABLES)
        here = names.index(self.channels.now.table)
        self._choose_table(names[(here + 1) % len(names)])

    # -- several channels -----------------------------------------------------------------

    def merge(self, on: bool) -> None:
        """Show all channels as one picture, or the one that is looked at."""
        self.channels.merging = on
        self._reader.want_all_channels(on)
        self._reader.want_channel(self.channels.now.name)
        self._tell_look_back()
        self._draw_images()
        self.refresh()

    def choose_channel(self, name: str) -> None:
        """Look at a channel: alone, or with its figures beside the sum."""
        self._reader.want_channel(name)
        newest = self.channels.of(name).picture
        if self.channels.merging and newest is not None:
            self._turn_to(name)
            self._show(newest, 0.0)
            self.refresh()

    def _toggle_merge(self) -> None:
        if len(self.channels.names) > 1:
            self.bar.merge.toggle()

    def _next_channel(self) -> None:
        names = list(self.channels.names)
        if len(names) > 1:
            here = names.index(self.channels.now.name) if self.channels.now.name in names else -1
            self.choose_channel(names[(here + 1) % len(names)])

    def _press_number(self, number: int) -> None:
        """Choose a channel by its number; in a sum, leave it out or take it in again."""
        names = self.channels.names
        if len(names) < 2 or number >= len(names):
            return
        if self.channels.merging:
            self.channels.toggle(names[number])
            self._tell_look_back()
            self._draw_images()
        else:
            self.choose_channel(names[number])

    def _tell_look_back(self) -> None:
        channels, back = self.channels, self.look_back
        back.channel = channels.now.name
        beside = channels.names if channels.merging else ()
        back.others = [n for n in beside if n != back.channel and channels.is_seen(n)]
        back.ask_again()

    def toggle_full_screen(self) -> None:
        """Fill the screen with the images, or go back."""
        whole = not self.isFullScreen()
        self.side.setVisible(not whole)
        if whole:
            self.showFullScreen()
        else:
            self.showNormal()
        QTimer.singleShot(0, self, self.fit)

    # -- the mouse over an image ----------------------------------------------------------

    def _point_at(self, x: float, y: float) -> None:
        if self._picture is None:
            return
        height, width = self._picture.raw.shape
        if 0 <= x < width and 0 <= y < height:
            self._row, self._column = int(y), int(x)
            self.images.mark_row(self._row)
            self._draw_profile()

    def _move_row(self, rows: int) -> None:
        if self._picture is not None:
            self._row = min(max(self._row + rows, 0), self._picture.raw.shape[0] - 1)
            self.images.mark_row(self._row)
            self._draw_profile()

    def _ask_and_save(self) -> None:
        problem = ask_and_save(self)
        if problem:
            self._say(problem, Grade.BAD)

    def use_newer_model(self) -> None:
        """Let the run change over to the model that came into use meanwhile."""
        newer = self.channels.now.average.figures.get("newer_model")
        if newer and self.exchange.ask(Path(str(newer))):
            self.refresh()
            self._say(f"Changing over to “{Path(str(newer)).name}” …", Grade.UNKNOWN)

    def _show_answer(self, answer: Answer) -> None:
        self._say(answer.words, Grade.GOOD if answer.granted else Grade.BAD)

    def _say(self, words: str, grade: Grade) -> None:
        """Say something in place of the run's state, long enough to be read."""
        self.pill.show_state(shortened(words, LONGEST_WORDS), grade)
        self.pill.setToolTip(words)
        self._last_words_s = time.monotonic() + 4

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
            for plot in (self.contrast_plot, self.profile_plot, self.trace_plot):
                plot.plot.setFixedHeight(round(PLOT_HEIGHT * scale))
            for lamp in self.findChildren(Lamp):
                lamp.set_scale(scale)
        self.bar.make_room(self.width())
        narrow = self.width() < NARROW * scale
        self.contrast_plot.be_brief(narrow)
        self.profile_plot.be_brief(narrow)
        self.side.be_brief(self.height() < BRIEF_HEIGHT * scale)
        QTimer.singleShot(0, self, self.fit)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Tell the acquisition that nobody looks any more, and tidy up."""
        self._clock.stop()
        self.look_back.close()
        by_user = not self._reader.please_close and not self._over_and_unseen()
        self._reader.report(ReaderState.CLOSED_BY_USER if by_user else ReaderState.SHOWN)
        self._reader.close(remove=self._reader.ended or not self._writer.alive())
        super().closeEvent(event)
        self.closed.emit()
