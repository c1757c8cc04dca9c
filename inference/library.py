"""A library: a directory of runs, of model bundles, and the pointer to the model in use.

Owns `current.json`, which is replaced in one step and names the model with its history. Does not
train, does not compare, and never deletes a run or a model.

::

    library/
        monday/raw.ome.zarr …      runs, anywhere below up to two levels deep
        models/20260101-0200/      model bundles
        current.json               which of them is in use, and how that came about
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..storage.atomic_output import write_json
from ..storage.bounded_text import read_text
from .bundle import MANIFEST, open_bundle
from .errors import BundleError, InferenceError

CURRENT = "current.json"
MODELS = "models"
RAW = "raw.ome.zarr"

Decision = Literal["promoted", "kept", "skipped"]


class LibraryEntry(BaseModel):
    """One decision about which model is in use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: str
    decision: Decision
    model: str | None
    """The model in use after the decision, relative to the library where it lies inside."""
    candidate: str | None = None
    reason: str
    figures: dict[str, float | None] = {}


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model: str | None = None
    history: tuple[LibraryEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Library:
    """The directory `path` as a library; nothing is read before it is asked for."""

    path: Path

    @property
    def models_dir(self) -> Path:
        """Where model bundles are kept."""
        return self.path / MODELS

    def runs(self) -> list[Path]:
        """Return the run directories, the newest recording first.

        Raises
        ------
        InferenceError
            If the library is no directory.
        """
        if not self.path.is_dir():
            raise InferenceError(
                f"{self.path}: no such folder; give the folder that holds the recorded runs"
            )
        found = [
            raw.parent
            for pattern in (RAW, f"*/{RAW}", f"*/*/{RAW}")
            for raw in self.path.glob(pattern)
            if self.models_dir not in raw.parents
        ]
        return sorted(found, key=_recorded, reverse=True)

    def models(self) -> list[Path]:
        """Return the bundles in `models_dir`, oldest name first."""
        return sorted(manifest.parent for manifest in self.models_dir.glob(f"*/{MANIFEST}"))

    def current(self) -> Path | None:
        """Return the bundle in use, or None if there is none yet.

        Raises
        ------
        BundleError
            If `current.json` is damaged or names a bundle that is not there.
        """
        model = self._pointer().model
        if model is None:
            return None
        bundle = self.path / model  # an absolute path stays what it is
        if not (bundle / MANIFEST).is_file():
            raise BundleError(
                f"{self.path / CURRENT}: names {model}, which is not there; restore the bundle or "
                f"delete {CURRENT} to start anew"
            )
        return bundle

    def history(self) -> tuple[LibraryEntry, ...]:
        """Return every decision that was recorded, oldest first."""
        return self._pointer().history

    def promote(
        self, bundle: Path, reason: str, figures: Mapping[str, float | None] | None = None
    ) -> None:
        """Put `bundle` in use: in one step, after it was verified.

        Raises
        ------
        BundleError
            If the bundle is incomplete or altered; what was in use stays in use.
        """
        open_bundle(bundle)
        self._decide("promoted", self._name(bundle), bundle, reason, figures)

    def keep(
        self,
        candidate: Path | None,
        reason: str,
        figures: Mapping[str, float | None] | None = None,
        *,
        decision: Decision = "kept",
    ) -> None:
        """Record that the model in use stays, and why."""
        self._decide(decision, self._pointer().model, candidate, reason, figures)

    def _decide(
        self,
        decision: Decision,
        model: str | None,
        candidate: Path | None,
        reason: str,
        figures: Mapping[str, float | None] | None,
    ) -> None:
        entry = LibraryEntry(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            decision=decision,
            model=model,
            candidate=None if candidate is None else self._name(candidate),
            reason=reason,
            figures=dict(figures or {}),
        )
        pointer = _Pointer(model=model, history=(*self.history(), entry))
        write_json(self.path / CURRENT, pointer.model_dump())

    def _name(self, bundle: Path) -> str:
        # Relative inside the library, so that it can be moved to another disk.
        inside = bundle.absolute().is_relative_to(self.path.absolute())
        name = bundle.absolute().relative_to(self.path.absolute()) if inside else bundle.absolute()
        return name.as_posix()

    def _pointer(self) -> _Pointer:
        file = self.path / CURRENT
        if not file.is_file():
            return _Pointer()
        try:
            return _Pointer.model_validate_json(read_text(file))
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{file}: cannot be read ({type(error).__name__}); restore it, or delete it and "
                "promote a model anew"
            ) from error


def _recorded(run: Path) -> tuple[float, str]:
    # The report is written once, at the end; the store's own time moves when it is copied.
    report = run / "report.json"
    return ((report if report.is_file() else run / RAW).stat().st_mtime, run.name)
