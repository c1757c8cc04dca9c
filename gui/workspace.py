"""Her folder: where the window keeps calibrations, recordings, live runs and models.

Owns the layout and the names in it. It is a library, so `retrain` and `models` take it as it is::

    quietscope/
        cameras/       calibrations (npz) and their figure pages
        recordings/    what models learn from
        live/          runs that were denoised as they came
        models/        model bundles
        current.json   which of them are in use

Nothing in it is ever deleted or replaced from here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..inference.library import Library
from ..storage.output_kinds import RAW


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder at `path`; it is made when the first thing is put there."""

    path: Path

    @property
    def cameras(self) -> Path:
        """Where calibrations are kept."""
        return self.path / "cameras"

    @property
    def recordings(self) -> Path:
        """Where training data is kept."""
        return self.path / "recordings"

    @property
    def live(self) -> Path:
        """Where live runs are kept."""
        return self.path / "live"

    @property
    def library(self) -> Library:
        """The same folder as a library of models."""
        return Library(self.path)

    def new_calibration(self, camera: str) -> Path:
        """Return where the next calibration is to be written."""
        return _free(self.cameras, f"{_plain(camera)} {_now()}", ".npz")

    def new_recording(self) -> Path:
        """Return where the next recording is to be written."""
        return _free(self.recordings, _now())

    def new_run(self) -> Path:
        """Return where the next live run is to be written."""
        return _free(self.live, _now())

    def new_model(self) -> Path:
        """Return where the next model is to be written."""
        return _free(self.library.models_dir, _now())

    def recorded(self) -> list[Path]:
        """Return the recordings, the newest first."""
        return list(_newest_first(self.recordings))

    def runs(self) -> list[Path]:
        """Return the live runs, the newest first."""
        return list(_newest_first(self.live))

    def free_bytes(self) -> int | None:
        """Return how much room its disk has left; None if that cannot be told."""
        for place in (self.path, *self.path.parents):
            if place.is_dir():
                try:
                    return shutil.disk_usage(place).free
                except OSError:
                    return None
        return None


def _newest_first(folder: Path) -> Iterator[Path]:
    runs = [raw.parent for raw in folder.glob(f"*/{RAW}")]
    return iter(sorted(runs, key=lambda run: run.name, reverse=True))


def _free(folder: Path, stem: str, suffix: str = "") -> Path:
    """Return a name in `folder` that nothing has yet."""
    number, path = 1, folder / f"{stem}{suffix}"
    while path.exists():
        number += 1
        path = folder / f"{stem} ({number}){suffix}"
    return path


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H.%M}"


def _plain(name: str) -> str:
    """Return a name without what file systems refuse."""
    return "".join(c if c.isalnum() or c in " -_" else " " for c in name).strip() or "camera"
