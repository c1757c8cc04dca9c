"""The page of step 3: what to record, the camera's picture, the room on the disk."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QSpinBox,
    QWidget,
)

from ...acquisition.preview.widgets import label
from ..session import Session
from ..steps.record import RecordSnapshot
from .live_view import LiveView
from .page import Page, column
from .parts import ReadingList, button

AS_SET = "as it is set"


class RecordPage(Page):
    """Step 3."""

    def __init__(self, session: Session) -> None:
        super().__init__(
            session,
            session.record,
            "Record what it is to learn from",
            "Ordinary images of your specimen, noisy as they are: no clean ones are needed. "
            "Record what you will look at, in the light that you will use.",
            "Record",
        )
        self.record = session.record
        self.frames = QSpinBox()
        self.frames.setRange(10, 1_000_000)
        self.frames.setKeyboardTracking(False)
        self.frames.valueChanged.connect(lambda value: self.record.choose(frames=value))
        self.channel = channel_box()
        self.channel.activated.connect(
            lambda _: self.record.choose(channel=chosen_channel(self.channel))
        )
        self.interval = QDoubleSpinBox()
        self.interval.setRange(0, 86_400)
        self.interval.setSuffix(" s")
        self.interval.setSpecialValueText("as fast as it goes")
        self.interval.setKeyboardTracking(False)
        self.interval.valueChanged.connect(lambda value: self.record.choose(interval_s=value))
        self.planes = QLineEdit()
        self.planes.setPlaceholderText("one; or start, end, step in µm")
        self.planes.editingFinished.connect(lambda: self.record.choose(planes=self.planes.text()))
        form = QWidget()
        fields = QFormLayout(form)
        fields.setContentsMargins(0, 0, 0, 0)
        fields.addRow("Images", self.frames)
        fields.addRow("Channel", self.channel)
        fields.addRow("One every", self.interval)
        fields.addRow("Planes", self.planes)
        self.form = form
        self.readings = ReadingList()
        self.recorded_name = label("section", "TRAINING LEARNS FROM")
        self.recorded = QListWidget()
        self.recorded.setMaximumHeight(110)
        self.recorded.itemClicked.connect(self._choose)
        self.recorded.itemActivated.connect(self._choose)
        self.go_on = button("Go on to training", lambda: session.go_to("train"))
        self.action_row.addWidget(self.go_on)
        self.view = LiveView("The camera's picture appears here.", camera_alone=True)
        self.body.addWidget(
            column(
                form,
                self.readings,
                self.recorded_name,
                self.recorded,
                None,
                width=330,
                scroll=True,
            )
        )
        self.body.addWidget(self.view, 1)
        self._shown: tuple[object, ...] = ()

    def _choose(self, item: QListWidgetItem) -> None:
        self.record.choose_recording(item.data(Qt.ItemDataRole.UserRole))

    def snapshot(self) -> RecordSnapshot:
        """Return what there is to show."""
        return self.record.snapshot()

    def show_snapshot(self, snapshot: RecordSnapshot) -> None:
        """Show it."""
        running = snapshot.job is not None and snapshot.job.running
        self.form.setEnabled(not running)
        show_number(self.frames, snapshot.frames)
        show_number(self.interval, snapshot.interval_s)
        show_channels(self.channel, snapshot.channels, snapshot.channel)
        self.readings.show_readings(snapshot.readings)
        self.view.show_mailbox(snapshot.mailbox)
        self.go_on.setVisible(snapshot.chosen is not None and not running)
        self._show_recorded(snapshot)
        self.start.setText("Record more" if snapshot.chosen else "Record")

    def _show_recorded(self, snapshot: RecordSnapshot) -> None:
        self.recorded_name.setVisible(bool(snapshot.recorded))
        self.recorded.setVisible(bool(snapshot.recorded))
        if snapshot.recorded != self._shown:
            self._shown = snapshot.recorded
            self.recorded.clear()
            for path in snapshot.recorded:
                item = QListWidgetItem(path.name, self.recorded)
                item.setData(Qt.ItemDataRole.UserRole, path)
        for index, path in enumerate(snapshot.recorded):
            self.recorded.item(index).setSelected(path == snapshot.chosen)

    def leave(self) -> None:
        """Let the picture go."""
        self.view.leave()


def channel_box() -> QComboBox:
    """Return a box of channels; its first entry leaves the light path as it stands."""
    made = QComboBox()
    made.addItem(AS_SET, "")
    return made


def show_channels(box: QComboBox, channels: tuple[str, ...], chosen: str) -> None:
    """Show the channels that there are, and which one is chosen."""
    if box.count() != len(channels) + 1 or any(box.findData(name) < 0 for name in channels):
        box.clear()
        box.addItem(AS_SET, "")
        for name in channels:
            box.addItem(name, name)
    if not box.hasFocus():
        box.setCurrentIndex(max(0, box.findData(chosen)))


def chosen_channel(box: QComboBox) -> str:
    """Return the channel that is chosen, "" for none."""
    return str(box.currentData() or "")


def show_number(box: QSpinBox | QDoubleSpinBox, value: float) -> None:
    """Show a number, unless somebody is just typing one."""
    if box.hasFocus() or box.value() == value:
        return
    box.blockSignals(True)
    box.setValue(value)  # type: ignore[arg-type]
    box.blockSignals(False)
