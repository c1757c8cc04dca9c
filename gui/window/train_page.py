"""The page of step 4: minutes, the crop that gets better, the losses, the verdict."""

from __future__ import annotations

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QSizePolicy, QSlider

from ...acquisition.preview.widgets import VerdictCard, label
from ..session import Session
from ..steps.train import CHOICES, TrainSnapshot
from .charts import BeforeAndAfter, LossChart
from .page import Page, column
from .parts import ReadingList, button, primary, tell_command


class TrainPage(Page):
    """Step 4."""

    def __init__(self, session: Session) -> None:
        super().__init__(
            session,
            session.train,
            "Let it learn",
            "It learns what is specimen and what is noise from your own recording. You can stop "
            "at any time and go on later.",
            "Train",
        )
        self.train = session.train
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, len(CHOICES) - 1)
        self.slider.setAccessibleName("Minutes of training")
        self.slider.valueChanged.connect(lambda index: self.train.choose_minutes(CHOICES[index]))
        self.minutes = label("headline")
        self.expects = label("small", wrap=True)
        self.sources = ReadingList()
        self.verdict = VerdictCard()
        self.figures = ReadingList()
        self.picture = BeforeAndAfter()
        self.losses = LossChart()
        self.resume = button("Go on with it", self.train.resume)
        self.use_and_go = primary("Use it and go live", session.use_and_go_live)
        self.use = button("Use for this channel", self.train.use)
        self.report = button("Figures…", self._open_report)
        for widget in (self.use_and_go, self.use, self.report, self.resume):
            self.action_row.addWidget(widget)
        self.body.addWidget(
            column(
                self.minutes,
                self.slider,
                self.expects,
                self.sources,
                self.verdict,
                self.figures,
                None,
                width=330,
                scroll=True,
            )
        )
        self.losses.setMaximumHeight(210)
        self.picture.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.body.addWidget(column(self.picture, self.losses), 1)
        self.body.addStretch(0)

    def _open_report(self) -> None:
        report = self.train.snapshot().report
        if report is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(report)))

    def snapshot(self) -> TrainSnapshot:
        """Return what there is to show."""
        return self.train.snapshot()

    def show_snapshot(self, snapshot: TrainSnapshot) -> None:
        """Show it."""
        running = snapshot.job is not None and snapshot.job.running
        nearest = min(range(len(CHOICES)), key=lambda i: abs(CHOICES[i] - snapshot.minutes))
        self.slider.blockSignals(True)
        self.slider.setValue(nearest)
        self.slider.blockSignals(False)
        self.slider.setEnabled(not running)
        minutes = f"{snapshot.minutes:g} minute{'' if snapshot.minutes == 1 else 's'}"
        self.minutes.setText(f"Train for {minutes}")
        self.expects.setText(snapshot.expects)
        self.sources.show_readings(snapshot.sources)
        self.picture.show_tile(snapshot.tile)
        self.losses.show_losses(snapshot.losses)
        self.verdict.setVisible(snapshot.verdict is not None and not running)
        if snapshot.verdict is not None:
            self.verdict.show_verdict(snapshot.verdict)
        self.figures.show_readings(snapshot.readings)
        trained = snapshot.model is not None and not running
        self.use_and_go.setVisible(trained)
        self.use.setVisible(trained)
        self.use.setEnabled(not snapshot.in_use)
        tell_command(self.use, "Live runs of this camera then use it", snapshot.use_command)
        self.use.setText("In use" if snapshot.in_use else "Use for this channel")
        self.report.setVisible(snapshot.report is not None and not running)
        self.resume.setVisible(snapshot.can_resume)
        self.start.setText("Train again" if trained else "Train")
        self.start.setObjectName("" if trained else "primary")
        self.start.style().polish(self.start)
