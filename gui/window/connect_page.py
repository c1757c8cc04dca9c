"""The page of step 1: which microscope, what was found, and what this computer lacks."""

from __future__ import annotations

from PySide6.QtWidgets import (
    QButtonGroup,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QRadioButton,
    QWidget,
)

from ...acquisition.preview.widgets import label
from ..remembered import DEMO_ROI
from ..session import Session
from ..steps.connect import ConnectSnapshot
from .page import Page, column
from .parts import ReadingList, button, row, tell_command

EXAMINES = "Core, processor or graphics card, training, screen, disk"
KINDS = ("attach", "demo", "config")


class ConnectPage(Page):
    """Step 1."""

    def __init__(self, session: Session) -> None:
        super().__init__(
            session,
            session.connect,
            "Which microscope?",
            "quietscope works with Micro-Manager: with the one that is running on this computer, "
            "or with a camera that it starts itself. No microscope at hand? Try the demo camera.",
            "Connect",
        )
        self.connecting = session.connect
        self.kinds = QButtonGroup(self)
        self.attach = self._kind(0, "The Micro-Manager that is open here")
        self.attach_hint = label("small", wrap=True)
        self.demo = self._kind(1, "Demo camera (a simulated specimen)")
        self.config = self._kind(2, "Start a camera from a configuration file")
        self.kinds.idClicked.connect(self._choose_kind)
        self.mm_dir = self._path("Micro-Manager's folder", self._ask_folder)
        self.config_file = self._path("Its configuration file", self._ask_file)
        self.files = column(self.mm_dir[1], self.config_file[1])
        self.exposure = QDoubleSpinBox()
        self.exposure.setRange(0.0, 100_000.0)
        self.exposure.setDecimals(1)
        self.exposure.setSuffix(" ms")
        self.exposure.setSpecialValueText("as it is set")
        self.exposure.setKeyboardTracking(False)
        self.exposure.valueChanged.connect(
            lambda value: self.connecting.choose(exposure_ms=value or None)
        )
        self.roi = QLineEdit()
        self.roi.editingFinished.connect(
            lambda: self.connecting.choose(roi=self.roi.text().replace(" ", ""))
        )
        form = QWidget()
        fields = QFormLayout(form)
        fields.setContentsMargins(0, 6, 0, 0)
        fields.addRow("Exposure", self.exposure)
        fields.addRow("Region", self.roi)
        self.nothing_yet = label(
            "intro",
            "Press Connect: what your microscope is, and how it is set, appears here in words. "
            "Nothing is changed, and nothing is recorded.",
            wrap=True,
        )
        self.found = ReadingList()
        self.found_name = label("section", "WHAT WAS FOUND")
        self.examined_name = label("section", "THIS COMPUTER")
        self.examined = ReadingList()
        self.examine = button("Examine this computer", self.connecting.examination.start)
        self.body.addWidget(
            column(
                self.attach,
                self.attach_hint,
                self.demo,
                self.config,
                self.files,
                form,
                None,
                self.examine,
                width=390,
            )
        )
        self.body.addWidget(
            column(
                self.nothing_yet,
                self.found_name,
                self.found,
                self.examined_name,
                self.examined,
                None,
                scroll=True,
            ),
            1,
        )

    def _kind(self, index: int, text: str) -> QRadioButton:
        made = QRadioButton(text)
        self.kinds.addButton(made, index)
        return made

    def _path(self, name: str, ask: object) -> tuple[QLineEdit, QWidget]:
        line = QLineEdit()
        line.setReadOnly(True)
        line.setPlaceholderText(name)
        box = QWidget()
        inside = row(line, button("Choose…", ask))  # type: ignore[arg-type]
        inside.setContentsMargins(22, 0, 0, 0)
        box.setLayout(inside)
        return line, box

    def _choose_kind(self, index: int) -> None:
        self.connecting.choose(kind=KINDS[index])
        self.refresh()

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Micro-Manager's folder")
        if folder:
            self.connecting.choose(mm_dir=folder)
            self.refresh()

    def _ask_file(self) -> None:
        file, _ = QFileDialog.getOpenFileName(
            self,
            "Its configuration file",
            self.mm_dir[0].text(),
            "Micro-Manager configuration (*.cfg)",
        )
        if file:
            self.connecting.choose(config=file)
            self.refresh()

    def snapshot(self) -> ConnectSnapshot:
        """Return what there is to show."""
        return self.connecting.snapshot()

    def show_snapshot(self, snapshot: ConnectSnapshot) -> None:
        """Show it."""
        choice = snapshot.choice
        self.kinds.button(KINDS.index(choice.kind)).setChecked(True)
        self.files.setVisible(choice.kind == "config")
        self.mm_dir[0].setText(choice.mm_dir)
        self.config_file[0].setText(choice.config)
        self.attach_hint.setVisible(choice.kind == "attach" or snapshot.server_answers)
        self.attach_hint.setText(
            "It is running, and answers."
            if snapshot.server_answers
            else "None answers yet. In Micro-Manager open Tools > Options and tick “Run "
            f"pycro-manager server on port {choice.port}”."
        )
        if not self.exposure.hasFocus():
            self.exposure.blockSignals(True)
            self.exposure.setValue(choice.exposure_ms or 0.0)
            self.exposure.blockSignals(False)
        if not self.roi.hasFocus():
            self.roi.setText(choice.roi)
        self.roi.setPlaceholderText(
            f"{DEMO_ROI}: a part, to leave the computer time"
            if choice.kind == "demo"
            else "as it is set, or x, y, width, height"
        )
        self.nothing_yet.setVisible(not snapshot.found and not snapshot.examined)
        self.found_name.setVisible(bool(snapshot.found))
        self.found.show_readings(snapshot.found)
        self.examined_name.setVisible(bool(snapshot.examined))
        self.examined.show_readings(snapshot.examined)
        examining = snapshot.examining is not None
        self.examine.setEnabled(not examining)
        tell_command(self.examine, EXAMINES, snapshot.examine_command)
        self.examine.setText("Examining …" if examining else "Examine this computer")
        self.start.setText("Connect again" if snapshot.found else "Connect")
