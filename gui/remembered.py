"""What the window remembers from one day to the next: her folder, her microscope, the layout.

Owns the file, and that what is damaged in it, or of a newer version, costs nothing but itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..acquisition.microscope.bridge import DEFAULT_PORT
from ..acquisition.microscope.settings import MicroscopeSettings
from ..storage.atomic_output import OutputError, write_json
from ..storage.bounded_text import read_text

FILE = "window.json"
JOBS = "jobs"

DEMO_ROI = "128,128,256,256"
"""Of the demo camera, which computes its pictures: a small region leaves the computer time."""

MOST_FRAMES = 10_000_000
MOST_EXPOSURE_MS = 100_000.0
MOST_MINUTES = 100_000.0
LONGEST_PATH = 1024


def _usable(folder: Path) -> Path:
    """Refuse what no system takes for a folder: to ask for it would be an error each time."""
    words = str(folder)
    if not folder.is_absolute() or "\0" in words or len(words) > LONGEST_PATH:
        raise ValueError(f"{words[:80]!r} is no folder")
    return folder


Appearance = Literal["system", "dark", "light"]
Frames = Annotated[int, Field(ge=1, le=MOST_FRAMES)]


class MicroscopeChoice(BaseModel):
    """Which microscope she chose, and how it is set for a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["attach", "demo", "config"] = "demo"
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    mm_dir: str = ""
    config: str = ""
    exposure_ms: float | None = Field(default=None, ge=0, le=MOST_EXPOSURE_MS)
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

    workspace: Annotated[Path, AfterValidator(_usable)] = Field(
        default_factory=lambda: Path(platformdirs.user_documents_dir()) / "quietscope"
    )
    folder_was_there: bool = False
    """Whether `workspace` was ever seen: a new one is only made when something is put there."""
    microscope: MicroscopeChoice | None = None
    """None before she chose one."""
    appearance: Appearance = "system"
    geometry: str = Field(default="", pattern="^[A-Za-z0-9+/=]*$")
    """Place and size of the window, as Qt writes them, base64."""
    training_minutes: float | None = Field(default=None, gt=0, le=MOST_MINUTES)
    frames_to_record: Frames | None = None
    frames_live: Frames | None = None


def state_folder() -> Path:
    """Return where the window keeps what it remembers, and its jobs."""
    return Path(platformdirs.user_state_dir("quietscope", appauthor=False))


def recall(folder: Path) -> Remembered:
    """Return what was remembered in `folder`; the defaults for what of it cannot be read."""
    try:
        kept = json.loads(read_text(folder / FILE))
    except (OSError, ValueError, RecursionError):
        return Remembered()
    if not isinstance(kept, dict):
        return Remembered()
    try:
        return Remembered.model_validate(kept)
    except ValidationError as refused:
        wrong = {error["loc"][0] for error in refused.errors()}
        return Remembered.model_validate({k: v for k, v in kept.items() if k not in wrong})


def remember(folder: Path, remembered: Remembered) -> str:
    """Write it down; return why that was not possible, "" if it was."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, remembered.model_dump(mode="json"))
    except (OSError, OutputError) as error:
        return str(error)
    return ""
