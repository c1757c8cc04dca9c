"""The page of step 2: the ladder of light as it is measured, its checks, and what was kept."""

from __future__ import annotations

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QComboBox, QListWidget, QListWidgetItem

from ...acquisition.preview.widgets import label
from ..session import Session
from ..steps.calibrate import WITHOUT, CalibrateSnapshot, KeptCalibration
from .charts import PhotonTransferChart
from .page import Page, column
from .parts import ReadingList, button

LIGHTS = (("exposure", "by the exposure time"), ("hand", "by hand: I turn the lamp"))


class CalibratePage(Page):
    """Step 2."""

    def __init__(self, session: Session) -> None:
        super().__init__(
            session,
            session.calibrate,
            "How noisy is your camera?",
            "Point the microscope at something even and out of focus, with a steady lamp. "
            "quietscope takes dark images first, then brighter and brighter ones: about a "
            "minute. The result is kept, and found again for this camera in this setting.",
            "Calibrate",
        )
        self.calibrate = session.calibrate
        self.chart = PhotonTransferChart()
        self.light = QComboBox()
        self.light.setEditable(True)
        self.light.setToolTip(
            "Or a device and its property, as Micro-Manager names it: LED-Intensity"
        )
        for value, words in LIGHTS:
            self.light.addItem(words, value)
        self.light.currentTextChanged.connect(self._choose_light)
        self.belongs = label("headline", wrap=True)
        self.checks = ReadingList()
        self.kept_name = label("section", "KEPT CALIBRATIONS")
        self.kept = QListWidget()
        self.kept.setMaximumHeight(76)
        self.kept.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.kept.itemActivated.connect(self._reuse)
        self.kept.itemClicked.connect(self._reuse)
        self.without = button("I cannot calibrate now", self._do_without, tip=WITHOUT)
        self.cost = label("small", WITHOUT, wrap=True)
        self.report = button("Figures…", self._open_report, tip="The page of all figures")
        self.go_on = button("Use it and go on", self._go_on)
        self.body.addWidget(column(self.chart), 3)
        self.body.addWidget(
            column(
                label("muted", "The light is varied"),
                self.light,
                self.belongs,
                self.kept_name,
                self.kept,
                self.cost,
                self.checks,
                None,
                scroll=True,
            ),
            2,
        )
        for widget in (self.go_on, self.report, self.without):
            self.action_row.addWidget(widget)
        self._kept_shown: tuple[KeptCalibration, ...] = ()

    def _choose_light(self, text: str) -> None:
        known = {words: value for value, words in LIGHTS}
        self.calibrate.choose_light(known.get(text, text))

    def _reuse(self, item: QListWidgetItem) -> None:
        self.calibrate.reuse(item.data(Qt.ItemDataRole.UserRole))
        self.refresh()

    def _do_without(self) -> None:
        self.calibrate.do_without()
        self._go_on()

    def _go_on(self) -> None:
        self.session.go_to("record")

    def _open_report(self) -> None:
        report = self.calibrate.snapshot().report
        if report is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(report)))

    def snapshot(self) -> CalibrateSnapshot:
        """Return what there is to show."""
        return self.calibrate.snapshot()

    def show_snapshot(self, snapshot: CalibrateSnapshot) -> None:
        """Show it."""
        running = snapshot.job is not None and snapshot.job.running
        self.chart.show_levels(snapshot.levels, snapshot.model_levels)
        self.belongs.setText(snapshot.belongs)
        self.belongs.setVisible(bool(snapshot.belongs) and not running)
        self.checks.show_readings(snapshot.checks)
        self._show_kept(snapshot)
        self.cost.setVisible(snapshot.without)
        self.without.setVisible(not running and snapshot.chosen is None)
        self.report.setVisible(snapshot.report is not None and not running)
        self.go_on.setVisible(snapshot.chosen is not None and not running)
        self.light.setEnabled(not running)
        self.start.setText("Calibrate again" if snapshot.chosen else "Calibrate")

    def _show_kept(self, snapshot: CalibrateSnapshot) -> None:
        self.kept_name.setVisible(bool(snapshot.kept))
        self.kept.setVisible(bool(snapshot.kept))
        if snapshot.kept != self._kept_shown:
            self._kept_shown = snapshot.kept
            self.kept.clear()
            for kept in snapshot.kept:
                words = kept.words if kept.fits else f"{kept.words} (another setting)"
                item = QListWidgetItem(words, self.kept)
                item.setData(Qt.ItemDataRole.UserRole, kept.path)
                item.setToolTip(kept.why_not or "It belongs to this camera in this setting.")
                if not kept.fits:
                    item.setFlags(Qt.ItemFlag.NoItemFlags)
        for index, kept in enumerate(snapshot.kept):
            self.kept.item(index).setSelected(kept.path == snapshot.chosen)
