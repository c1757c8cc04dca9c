"""The widget: choose a layer and a model, see how far it is, stop it.

Owns what is seen and the thread that works; what is worked is in `selected_layer`. Imports napari
and Qt, so nothing else of the house imports this.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

from napari.layers import Image, Layer
from napari.qt.threading import FunctionWorker, create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QWidget,
)

from ..errors import QuietscopeError, one_line
from ..inference.general.choice import GENERAL
from ..storage.output_kinds import Kind, kind_of
from .layers import LayerData
from .selected_layer import (
    Asked,
    OnProgress,
    called,
    denoise_layer,
    models_for,
    models_of,
    suggested_axes,
)

KEPT = ("scale", "translate", "units", "axis_labels", "contrast_limits", "gamma", "blending")
"""What a result takes over from its layer."""


class _Stopped(Exception):
    """The person has pressed Stop."""


class _Outcome(NamedTuple):
    """The result, or what kept it away: errors of a worker itself are shown as tracebacks."""

    layers: list[LayerData]
    error: Exception | None = None


def _outcome(asked: Asked, on_progress: OnProgress) -> _Outcome:
    try:
        return _Outcome(denoise_layer(asked, on_progress))
    except Exception as error:
        return _Outcome([], error)


class DenoiseWidget(QWidget):
    """Denoises the selected layer with a model.

    Parameters
    ----------
    napari_viewer
        Whose layers are meant.
    """

    progressed = Signal(int, int)

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._worker: FunctionWorker[_Outcome] | None = None
        self._stop = threading.Event()
        self._given: list[Path] = []
        self._build()
        self.progressed.connect(self._show_progress)
        self._viewer.layers.selection.events.active.connect(self._look_at_layer)
        self._look_at_layer()

    # ------------------------------------------------------------------------ what is seen

    def _build(self) -> None:
        self.layer_name, self.said = QLabel(), QLabel()
        self.said.setWordWrap(True)
        self.axes = QLineEdit()
        self.axes.setToolTip("A letter for each dimension: t, c, z, y, x")
        self.model = QComboBox()
        self.browse = QPushButton("Other …")
        self.browse.setToolTip("A model bundle, or the library that holds some")
        self.noise_model = QLineEdit()
        self.noise_model.setPlaceholderText("told from the layer")
        self.noise_model.setToolTip("A calibration (.npz) of the camera, for the general model")
        self.uncertainty = QCheckBox("Uncertainty as a layer")
        self.run, self.stop, self.bar = QPushButton("Denoise"), QPushButton("Stop"), QProgressBar()
        form = QFormLayout(self)
        form.addRow("Layer", self.layer_name)
        form.addRow("Its axes", self.axes)
        form.addRow("Model", self._side_by_side(self.model, self.browse))
        form.addRow("Calibration", self.noise_model)
        form.addRow(self.uncertainty)
        form.addRow(self._side_by_side(self.run, self.stop))
        form.addRow(self.bar)
        form.addRow(self.said)
        self.model.currentIndexChanged.connect(self._look_at_model)
        self.browse.clicked.connect(self._browse)
        self.run.clicked.connect(self.denoise)
        self.stop.clicked.connect(self.cancel)
        self._show_running(False)

    @staticmethod
    def _side_by_side(*widgets: QWidget) -> QHBoxLayout:
        row = QHBoxLayout()
        for widget in widgets:
            row.addWidget(widget)
        return row

    @property
    def layer(self) -> Image | None:
        """The selected layer, if it is an image."""
        active = self._viewer.layers.selection.active
        return active if isinstance(active, Image) else None

    def _look_at_layer(self, *_: object) -> None:
        layer = self.layer
        self.layer_name.setText("select an image layer" if layer is None else layer.name)
        if layer is not None:
            labels = getattr(layer, "axis_labels", ())
            self.axes.setText(suggested_axes(layer.ndim, labels, layer.metadata))
        self._list_models()
        self._show_running(self._worker is not None)

    def _list_models(self) -> None:
        chosen = self.model.currentData()
        layer = self.layer
        found = [] if layer is None else models_for(layer.metadata)
        listed = list(dict.fromkeys([*self._given, *found, GENERAL]))
        self.model.clear()
        for path in listed:
            self.model.addItem(called(path), path)
        if chosen in listed:
            self.model.setCurrentIndex(listed.index(chosen))

    def _look_at_model(self, *_: object) -> None:
        self.noise_model.setEnabled(self.model.currentData() == GENERAL)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "A model bundle or a library")
        if folder:
            self.add_models(Path(folder))

    def add_models(self, folder: Path) -> None:
        """Offer a model bundle, or all models of a library."""
        found = [folder] if kind_of(folder) is Kind.BUNDLE else models_of(folder)
        if not found:
            self._say(f"{folder}: is no model bundle and no library with models; choose another")
            return
        self._given = [*found, *self._given]
        self._list_models()
        self.model.setCurrentIndex(0)

    # ---------------------------------------------------------------------------- the work

    def denoise(self) -> None:
        """Begin to denoise the selected layer; its result becomes a layer when it is done."""
        if self._worker is not None:
            return
        asked = self._asked()
        if asked is None:
            return
        self._stop.clear()
        worker = create_worker(_outcome, asked, self._progress, _start_thread=False)
        worker.returned.connect(self._take)
        worker.finished.connect(self._finish)
        self._worker = worker
        self._say("")
        self._show_running(True)
        self.bar.setRange(0, 0)
        worker.start()

    def cancel(self) -> None:
        """Stop after the present frame."""
        self._stop.set()

    def _asked(self) -> Asked | None:
        layer = self.layer
        if layer is None:
            self._say("no image layer is selected; select the noisy one")
            return None
        if layer.rgb:
            self._say(f"{layer.name}: is in colours; choose a grey layer as the camera gave it")
            return None
        noise_model = self.noise_model.text().strip()
        general = self.model.currentData() == GENERAL
        shown = {name: getattr(layer, name) for name in KEPT}
        return Asked(
            data=layer.data[0] if layer.multiscale else layer.data,
            axes=self.axes.text().strip(),
            shown={**shown, "name": layer.name, "colormap": layer.colormap.name},
            metadata=dict(layer.metadata),
            model=self.model.currentData(),
            noise_model=Path(noise_model) if noise_model and general else None,
            uncertainty=self.uncertainty.isChecked(),
        )

    def _progress(self, done: int, to_do: int) -> None:
        """Tell how far it is, in the thread that works."""
        if self._stop.is_set():
            raise _Stopped
        self.progressed.emit(done, to_do)

    def _show_progress(self, done: int, to_do: int) -> None:
        self.bar.setRange(0, to_do)
        self.bar.setValue(done)
        self._say(f"{done} of {to_do} frames")

    def _take(self, outcome: _Outcome) -> None:
        if outcome.error is not None:
            self._fail(outcome.error)
        else:
            self._add(outcome.layers)

    def _add(self, layers: list[LayerData]) -> None:
        for data, shown, kind in layers:
            self._viewer.add_layer(Layer.create(data, shown, kind))
        self._say(f"done: {', '.join(shown['name'] for _, shown, _ in layers)}")

    def _fail(self, error: Exception) -> None:
        if isinstance(error, _Stopped):
            self._say("stopped; nothing was added")
            return
        known = isinstance(error, QuietscopeError)
        sentence = one_line(error) if known else f"{type(error).__name__}: {one_line(error)}"
        self._say(sentence)
        show_error(sentence)

    def _finish(self) -> None:
        self._worker = None
        self._show_running(False)

    def _say(self, sentence: str) -> None:
        self.said.setText(sentence)

    def _show_running(self, running: bool) -> None:
        self.run.setEnabled(not running and self.layer is not None)
        self.stop.setEnabled(running)
        self.bar.setVisible(running)

    def closeEvent(self, event: Any) -> None:
        """Stop what runs: its result would have nowhere to go."""
        self.cancel()
        super().closeEvent(event)
