"""What the window remembers from one day to the next: her folder, her microscope, the layout.

Owns the file and that a damaged one costs nothing but what it remembered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..acquisition.microscope.bridge import DEFAULT_PORT
from ..acquisition.microscope.settings import MicroscopeSettings
from ..storage.atomic_output import OutputError, write_json

FILE = "window.json"
JOBS = "jobs"

DEMO_ROI = "128,128,256,256"
"""Of the demo camera, which computes its pictures: a small region leaves the computer time."""


Appearance = Literal["system", "dark", "light"]


class MicroscopeChoice(BaseModel):
    """Which microscope she chose, and how it is set for a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["attach", "demo", "config"] = "demo"
    port: int = DEFAULT_PORT
    mm_dir: str = ""
    config: str = ""
    exposure_ms: float | None = None
    roi: str = ""
    channel: str = ""

    def words(self) -> list[str]:
        """Return it as options of a command."""
        words = self.camera_words()
        if self.exposure_ms is not None:
            words += ["--exposure-ms", f"{self.exposure_ms:g}"]
        if self.channel:
            words += ["--channel", self.channel]
        return words

    def camera_words(self) -> list[str]:
        """Return the options that choose camera and region alone."""
        roi = self.roi or (DEMO_ROI if self.kind == "demo" else "")
        settings = MicroscopeSettings(
            demo=self.kind == "demo",
            attach=self.kind == "attach",
            port=self.port,
            mm_dir=Path(self.mm_dir) if self.kind == "config" else None,
            config=Path(self.config) if self.kind == "config" else None,
        )
        return [*settings.as_words(), *(["--roi", roi] if roi else [])]


class Remembered(BaseModel):
    """All that is remembered."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    workspace: Path = Field(
        default_factory=lambda: Path(platformdirs.user_documents_dir()) / "quietscope"
    )
    folder_was_there: bool = False
    """Whether `workspace` was ever seen: a new one is only made when something is put there."""
    microscope: MicroscopeChoice | None = None
    """None before she chose one."""
    appearance: Appearance = "system"
    geometry: str = ""
    """Place and size of the window, as Qt writes them, base64."""
    training_minutes: float | None = None
    frames_to_record: int | None = None
    frames_live: int | None = None


def state_folder() -> Path:
    """Return where the window keeps what it remembers, and its jobs."""
    return Path(platformdirs.user_state_dir("quietscope", appauthor=False))


def recall(folder: Path) -> Remembered:
    """Return what was remembered in `folder`; the defaults where that cannot be read."""
    try:
        return Remembered.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return Remembered()


def remember(folder: Path, remembered: Remembered) -> str:
    """Write it down; return why that was not possible, "" if it was."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, remembered.model_dump(mode="json"))
    except (OSError, OutputError) as error:
        return str(error)
    return ""
