"""The page of step 5: start, stop, look; and where the run goes afterwards."""

from __future__ import annotations

import subprocess
from pathlib import Path

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QSpinBox,
    QWidget,
)

from ...acquisition.preview.widgets import label
from ..job import JobState
from ..session import Session
from ..steps.live import LiveSnapshot
from .live_view import LiveView
from .page import Page
from .parts import button
from .record_page import channel_box, chosen_channel, show_channels, show_number


class LivePage(Page):
    """Step 5."""

    def __init__(self, session: Session) -> None:
        super().__init__(
            session,
            session.live,
            "Live",
            "Every image is recorded as the camera gives it, and shown denoised beside it.",
            "Start",
        )
        self.live = session.live
        self.frames = QSpinBox()
        self.frames.setRange(1, 10_000_000)
        self.frames.setKeyboardTracking(False)
        self.frames.setSuffix(" images")
        self.frames.setMinimumWidth(150)
        self.frames.valueChanged.connect(lambda value: self.live.choose(frames=value))
        self.channel = channel_box()
        self.channel.activated.connect(
            lambda _: session.record.choose(channel=chosen_channel(self.channel))
        )
        self.follow = QCheckBox("Follow what Micro-Manager does")
        self.follow.setToolTip("Its own live mode or acquisition, instead of starting one here")
        self.follow.toggled.connect(lambda on: self.live.choose(follow=on))
        self.models = label("muted")
        self.view = LiveView("The camera's image and the denoised one appear here, side by side.")
        self.words = label("muted", wrap=True)
        self.after = QWidget()
        after = QHBoxLayout(self.after)
        after.setContentsMargins(0, 0, 0, 0)
        self.folder = button("Open folder", self._open_folder)
        self.tiff = button("Save as TIFF…", self._save_tiff)
        self.fiji = button("Open in Fiji", lambda: self._open_with("fiji"))
        self.napari = button("Open in napari", lambda: self._open_with("napari"))
        self.rest = button("Denoise the rest", self.live.denoise_the_rest)
        for widget in (self.rest, self.folder, self.tiff, self.fiji, self.napari):
            after.addWidget(widget)
        self.body.addWidget(self.view, 1)
        for part in (self.channel, self.frames, self.follow, self.models, self.after):
            self.action_row.addWidget(part)
        self._column.removeWidget(self.intro)
        self._column.insertWidget(2, self.words)
        self.intro.hide()

    def _open_folder(self) -> None:
        run = self.live.run_path or self.live.facts.workspace.path
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(run)))

    def _save_tiff(self) -> None:
        run = self.live.run_path
        if run is None:
            return
        suggestion = str(run.with_name(f"{run.name} denoised.ome.tif"))
        path, _ = QFileDialog.getSaveFileName(self, "Save as TIFF", suggestion, "TIFF (*.tif)")
        if path:
            self.live.save_tiff(_as_tiff(path))

    def _open_with(self, program: str) -> None:
        try:
            subprocess.Popen(self.live.opener(program))
        except OSError as error:
            self.live.error = f"it could not be started: {error}"

    def snapshot(self) -> LiveSnapshot:
        """Return what there is to show."""
        return self.live.snapshot()

    def show_snapshot(self, snapshot: LiveSnapshot) -> None:
        """Show it."""
        running = snapshot.job is not None and snapshot.job.running
        show_number(self.frames, snapshot.frames)
        show_channels(self.channel, snapshot.channels, snapshot.channel)
        self.frames.setVisible(not running)
        self.channel.setVisible(not running and bool(snapshot.channels))
        self.follow.setVisible(not running and snapshot.can_follow)
        self.models.setVisible(not running and not snapshot.run)
        self.models.setText(f"with the model {snapshot.models}" if snapshot.models else "")
        self.view.show_mailbox(snapshot.mailbox)
        self.after.setVisible(bool(snapshot.run) and not running)
        self.rest.setVisible(snapshot.left_over > 0)
        self.rest.setText(f"Denoise the other {snapshot.left_over}")
        self.fiji.setVisible("fiji" in snapshot.opens_with)
        self.napari.setVisible("napari" in snapshot.opens_with)
        self.words.setText(_in_words(snapshot))
        self.words.setVisible(bool(self.words.text()))
        self.title.setVisible(self.view.preview is None)  # the view has one of its own
        self.start.setText("Start again" if snapshot.run else "Start")

    def leave(self) -> None:
        """Let the picture go."""
        self.view.leave()


def _as_tiff(path: str) -> Path:
    made = Path(path)
    return made if made.suffix.lower() in (".tif", ".tiff") else Path(f"{path}.ome.tif")


def _in_words(snapshot: LiveSnapshot) -> str:
    """Return what became of the run, and of what was asked for afterwards, in one line."""
    parts = [
        f"{reading.name}: {reading.value}" + (f". {reading.sentence}" if reading.grade > 1 else "")
        for reading in snapshot.readings
    ]
    export = snapshot.export
    if export is not None:
        if export.running:
            parts.append("writing …" if export.share is None else f"writing {export.share:.0%}")
        elif snapshot.export_error:
            parts.append(snapshot.export_error)
        elif export.state is JobState.DONE:
            parts.append(f"written: {export.summary[-1] if export.summary else ''}")
    return "   ·   ".join(parts)
