"""What the steps know in common: her microscope, and what of hers fits it.

Owns the choice of the calibration, recording and model that the next step works with. Whether
something fits a camera is decided by `calibration` and `inference`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...calibration.fingerprint import CameraFingerprint
from ...calibration.kept_models import KeptModel, kept_models
from ...errors import QuietscopeError
from ..remembered import (
    JOBS,
    MicroscopeChoice,
    Remembered,
    recall,
    remember,
    state_folder,
)
from ..workspace import Workspace

CONNECT_S = 0.05


class Facts:
    """The shared state of the steps. Used from the window's thread alone.

    Attributes
    ----------
    microscope
        What `quietscope camera` said; None while nothing is connected.
    calibrations
        The noise models in her folder, the newest first, each with whether it fits.
    calibration
        The one that training uses; None estimates the noise from the recording itself.
    recording
        What the next training learns from.
    models
        The models in use for this camera, by channel.
    suggested
        The microscope to begin with, while she has not chosen one.
    complaint
        What could not be written down or read, in a sentence.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_folder()
        self.remembered: Remembered = recall(self.folder)
        self.microscope: Mapping[str, Any] | None = None
        self.calibrations: list[KeptModel] = []
        self.calibration: Path | None = None
        self.recording: Path | None = None
        self.models: dict[str, Path] = {}
        self.complaint = ""
        self.suggested = MicroscopeChoice()
        self.at_microscope = ""
        """Which step has the camera just now; "" for none."""

    @property
    def workspace(self) -> Workspace:
        """Her folder."""
        return Workspace(self.remembered.workspace)

    @property
    def jobs(self) -> Path:
        """Where job folders are kept: not in her folder, whose disk may be full."""
        return self.folder / JOBS

    @property
    def choice(self) -> MicroscopeChoice:
        """Which microscope she chose."""
        return self.remembered.microscope or self.suggested

    def remember(self, **changes: Any) -> None:
        """Write down what is to be known tomorrow."""
        self.remembered = self.remembered.model_copy(update=changes)
        self.complaint = remember(self.folder, self.remembered)

    @property
    def simulated(self) -> bool:
        """Whether the demo camera is connected."""
        return bool(self.microscope and self.microscope["simulated"])

    @property
    def camera(self) -> CameraFingerprint:
        """The camera as it is set; nothing of it is known while none is connected."""
        if self.microscope is None:
            return CameraFingerprint()
        return CameraFingerprint.model_validate(self.microscope["fingerprint"])

    @property
    def channels(self) -> list[str]:
        """The channels that can be chosen."""
        return [] if self.microscope is None else list(self.microscope["channels"])

    def look_for_folder(self) -> bool:
        """Return whether her folder is there, or was never: it is made when it is needed.

        Where it was and is not any more, its disk was unplugged, say.
        """
        there = self.workspace.path.is_dir()
        if there and not self.remembered.folder_was_there:
            self.remember(folder_was_there=True)
        return there or not self.remembered.folder_was_there

    def forget_a_microscope_that_ended(self) -> None:
        """Let her connect anew, where the Micro-Manager that was connected answers no more."""
        if self.choice.kind == "attach" and not listens(self.choice.port):
            self.microscope = None

    def connect(self, microscope: Mapping[str, Any]) -> None:
        """Take what was found, and look for what of hers fits it."""
        self.microscope = microscope
        self.look_again()
        fitting = [kept.path for kept in self.calibrations if kept.fits]
        self.calibration = fitting[0] if fitting else None

    def look_again(self) -> None:
        """Read her folder anew: another program may have added to it."""
        self.complaint = ""
        self.look_for_folder()
        try:
            self.calibrations = kept_models(self.workspace.cameras, self.camera)
        except OSError as error:
            self.complaint = str(error)
        self.find_models()
        recorded = self.workspace.recorded()
        if self.recording not in recorded:
            self.recording = recorded[0] if recorded else None

    def find_models(self) -> None:
        """Read which models are in use for this camera."""
        self.models = {}
        if self.microscope is None:
            return
        try:
            self.models = self.workspace.library.serving(self.camera)
        except QuietscopeError as error:
            self.complaint = str(error)

    def move_to(self, folder: Path) -> None:
        """Use another folder from now on; what lies in the old one stays there."""
        self.remember(workspace=folder, folder_was_there=False)
        if self.microscope is not None:
            self.connect(self.microscope)


def listens(port: int) -> bool:
    """Return whether a program of this computer listens on a port: Micro-Manager's server, say."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S):
        return True
    return False
