"""A library: a directory of runs, of model bundles, and the models that are in use.

Owns `current.json`, which is replaced in one step and names for each camera, setting and channel
the model in use, with its history. Does not train, does not compare, and never deletes a run.

For whoever shows it: `Library.models`, `in_use`, `history` and `last_page` return plain data.

::

    library/
        monday/raw.ome.zarr …      runs, anywhere below up to two levels deep
        models/20260101-0200/      model bundles
        nights/2026-01-01.html     what became of a night
        current.json               which of them are in use, and how that came about
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..calibration.fingerprint import CameraFingerprint
from ..storage.atomic_output import write_json
from ..storage.bounded_text import read_text
from ..storage.directory_lock import owned
from ..storage.output_kinds import RAW
from ..storage.urls import without_credentials
from .bundle import MANIFEST, Bundle, Manifest, open_bundle, read_manifest
from .errors import BundleError, InferenceError
from .model_choice import EVERY_CHANNEL

CURRENT = "current.json"
MODELS = "models"
NIGHTS = "nights"
"""What nights of retraining leave: records, pages, a log."""

NIGHTS_NAME = re.compile(r"\d{8}-\d{4}(\d\d)?(-\d+)?")
"""Of a candidate: the time at which its training began."""

LOCK_WAIT_S = 10.0
"""A decision takes milliseconds: who waits longer than this waits for a program that hangs."""

Decision = Literal["promoted", "kept", "skipped", "rolled back"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[\\/]+")
"""As a path shows it; one letter would be a drive of Windows."""


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


class InUse(BaseModel):
    """A model that is in use, and for what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str | None
    """None serves every channel."""
    camera: CameraFingerprint
    model: str
    since: str | None

    def serves_as(self, channel: str | None, camera: CameraFingerprint) -> bool:
        """Whether a model of this channel and camera would take its place."""
        return self.channel == channel and not self.camera.differences(camera)


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2] = 2
    model: str | None = None
    """The model that came into use last: all that version 1 knew."""
    in_use: tuple[InUse, ...] = ()
    history: tuple[LibraryEntry, ...] = ()


def require_folder(path: Path) -> None:
    """Refuse what is no folder to keep a library in.

    Raises
    ------
    InferenceError
        If there is none, or a URL was given.
    """
    if path.is_dir():
        return
    if _URL.match(str(path)):
        url = without_credentials(_URL.sub(r"\1://", str(path)))
        raise InferenceError(
            f"{url}: a library is a folder on a disk, or on a share that this computer mounted: "
            "models come into use by the replacement of a file, under a lock, which object stores "
            "do not have; give such a folder, and copy there what is to be learned from"
        )
    raise InferenceError(
        f"{path}: no such folder; give the library, the folder that holds the recorded runs"
    )


@dataclass(frozen=True, slots=True)
class Library:
    """The directory `path` as a library; nothing is read before it is asked for."""

    path: Path

    @property
    def models_dir(self) -> Path:
        """Where model bundles are kept."""
        return self.path / MODELS

    @property
    def last_page(self) -> Path | None:
        """The page that the last night left; None before the first."""
        return max((self.path / NIGHTS).glob("????-??-??.html"), default=None)

    def runs(self) -> list[Path]:
        """Return the run directories, the newest recording first.

        Raises
        ------
        InferenceError
            If the library is no directory.
        """
        require_folder(self.path)
        found = [
            raw.parent
            for pattern in (RAW, f"*/{RAW}", f"*/*/{RAW}")
            for raw in self.path.glob(pattern)
            if self.models_dir not in raw.parents and not _is_hidden(raw, self.path)
        ]
        return sorted(found, key=_recorded, reverse=True)

    def models(self) -> list[Path]:
        """Return the bundles in `models_dir`, oldest name first; not those on their way."""
        found = (manifest.parent for manifest in self.models_dir.glob(f"*/{MANIFEST}"))
        return sorted(bundle for bundle in found if not bundle.name.startswith("."))

    def current(self) -> Path | None:
        """Return the bundle that came into use last, or None if there is none yet.

        Raises
        ------
        BundleError
            If `current.json` is damaged or names a bundle that is not there.
        """
        model = self._pointer().model
        return None if model is None else self.bundle(model)

    def in_use(self) -> tuple[InUse, ...]:
        """Return which model is in use for which channel and camera, in the order of channels.

        Raises
        ------
        BundleError
            If `current.json` is damaged or names a bundle that is not there.
        """
        pointer = self._pointer()
        if pointer.schema_version == 1 and pointer.model is not None:
            return (self._as_in_use(read_manifest(self.bundle(pointer.model)), pointer.model),)
        return tuple(sorted(pointer.in_use, key=lambda one: one.channel or ""))

    def serving(
        self, camera: CameraFingerprint, channels: Sequence[str] | None = None
    ) -> dict[str, Path]:
        """Return the models in use for a camera, by the channels that they serve.

        Parameters
        ----------
        camera
            What is known of it; a property that is not known fits every model.
        channels
            That there will be; None where that is not known.
        """
        return {
            one.channel or EVERY_CHANNEL: self.bundle(one.model)
            for one in self.in_use()
            if not one.camera.differences(camera)
            and (channels is None or one.channel is None or one.channel in channels)
        }

    def history(self) -> tuple[LibraryEntry, ...]:
        """Return every decision that was recorded, oldest first."""
        return self._pointer().history

    def promote(
        self,
        bundle: Path,
        reason: str,
        figures: Mapping[str, float | None] | None = None,
        *,
        accept: bool = False,
    ) -> None:
        """Put `bundle` in use: in one step, after it was verified.

        With `accept` also one that is no better than a blur.

        Raises
        ------
        BundleError
            If the bundle is incomplete or altered, or no better than a blur and not accepted; what
            was in use stays in use.
        """
        manifest = open_bundle(bundle).manifest
        if manifest.accepted is False and not accept:
            raise BundleError(
                f"{bundle}: is no better than its input or a blur of it; train it for longer or "
                "on more frames, or take it all the same with --accept"
            )
        self._decide("promoted", bundle, reason, figures, manifest)

    def keep(
        self,
        candidate: Path | None,
        reason: str,
        figures: Mapping[str, float | None] | None = None,
        *,
        decision: Decision = "kept",
    ) -> None:
        """Record that the model in use stays, and why."""
        self._decide(decision, candidate, reason, figures, None)

    def rollback(self, channel: str | None = None) -> Bundle:
        """Put the model back in use that was in use before, and return it.

        Parameters
        ----------
        channel
            Of the model that goes; None takes the only one there is.

        Raises
        ------
        InferenceError
            If it is not clear which model is to go, or none was in use before it.
        """
        going = self._one_in_use(channel)
        for name in reversed(self._came_into_use(going)[:-1]):
            if name == going.model or not (self.path / name / MANIFEST).is_file():
                continue
            bundle = open_bundle(self.path / name)
            reason = f"{going.model} was taken out of use"
            self._decide("rolled back", bundle.path, reason, None, bundle.manifest)
            return bundle
        raise InferenceError(
            f"{self.path}: no model was in use before {going.model} for this camera and channel; "
            "put one in use with `quietscope models use`"
        )

    def rename(self, model: Path, name: str) -> Path:
        """Give a bundle in `models_dir` another name, also where it is in use; return its place.

        Raises
        ------
        InferenceError
            If it lies elsewhere, or the name is taken or no plain name.
        """
        target = self.models_dir / name
        if Path(name).name != name or name.startswith("."):
            raise InferenceError(f"{name!r} is no plain name; give one without a slash")
        if model.parent.absolute() != self.models_dir.absolute():
            raise InferenceError(f"{model}: does not lie in {self.models_dir}; rename it there")
        if target.exists():
            raise InferenceError(f"{target}: is there already; choose another name")
        with owned(self.path / CURRENT, wait_s=LOCK_WAIT_S):
            old, new = self.name_of(model), f"{MODELS}/{name}"
            pointer = self._pointer()
            try:
                model.rename(target)
            except OSError as error:
                raise InferenceError(
                    f"{model}: cannot be renamed to {name!r} ({error.strerror}); close the "
                    "programs that use it, or choose another name"
                ) from error
            try:
                self._write(_renamed(pointer, old, new))
            except BaseException:
                target.rename(model)  # what is in use must be where it is said to be
                raise
        return target

    def unused(self) -> list[Path]:
        """Return the bundles that were never in use and that nobody gave a name of their own.

        Names are a person's unless they are the time at which a training began.
        """
        pointer = self._pointer()
        kept = {one.model for one in pointer.in_use} | {pointer.model}
        kept |= {e.model for e in pointer.history}
        return [
            bundle
            for bundle in self.models()
            if self.name_of(bundle) not in kept and NIGHTS_NAME.fullmatch(bundle.name)
        ]

    def prune(self) -> list[Path]:
        """Delete the bundles that are `unused`, and return where they lay.

        Raises
        ------
        InferenceError
            If one is open in another program that does not let it go (Windows); it stays whole.
        OutputError
            If the models are being trained: a night may be about to judge one of them.
        """
        # Both locks: nothing may come into use between the look and the deletion.
        with owned(self.models_dir), owned(self.path / CURRENT, wait_s=LOCK_WAIT_S):
            unused = self.unused()
            for bundle in unused:
                going = bundle.with_name(f".{bundle.name}.pruned")
                try:
                    bundle.rename(going)  # gone as a whole, or not at all
                except OSError as error:
                    raise InferenceError(
                        f"{bundle}: cannot be deleted ({error.strerror}); close the programs that "
                        "use it and prune again"
                    ) from error
                shutil.rmtree(going, ignore_errors=True)
            for rest in self.models_dir.glob(".*.pruned"):
                shutil.rmtree(rest, ignore_errors=True)
        return unused

    def _came_into_use(self, going: InUse) -> list[str]:
        """Return the models that were in use in its place, without those that were taken out."""
        models: list[str] = []
        for entry in self.history():
            name = entry.model
            if name is None or not self._served_as(name, going):
                continue
            if entry.decision == "promoted":
                models.append(name)
            elif entry.decision == "rolled back" and name in models:
                del models[models.index(name) + 1 :]
        return models

    def _served_as(self, name: str, one: InUse) -> bool:
        try:
            manifest = read_manifest(self.path / name)
        except BundleError:
            return False
        return one.serves_as(manifest.channel, manifest.camera)

    def _one_in_use(self, channel: str | None) -> InUse:
        found = [one for one in self.in_use() if channel is None or one.channel == channel]
        if len(found) == 1:
            return found[0]
        what = "no model is in use" if not found else "several models are in use"
        of = "" if channel is None else f" for channel {channel}"
        known = ", ".join(one.channel or "every channel" for one in self.in_use())
        raise InferenceError(
            f"{self.path}: {what}{of}{f' ({known})' if known else ''}; name the channel with "
            "--channel, or put a model in use with `quietscope models use`"
        )

    def _decide(
        self,
        decision: Decision,
        candidate: Path | None,
        reason: str,
        figures: Mapping[str, float | None] | None,
        promoted: Manifest | None,
    ) -> None:
        name = None if candidate is None else self.name_of(candidate)
        with owned(self.path / CURRENT, wait_s=LOCK_WAIT_S):
            pointer = self._pointer()
            in_use = self.in_use() if pointer.model is not None else ()
            model = pointer.model
            if promoted is not None and name is not None:
                one = self._as_in_use(promoted, name, since=_now())
                in_use = (
                    *(old for old in in_use if not old.serves_as(one.channel, one.camera)),
                    one,
                )
                model = name
            entry = LibraryEntry(
                time=_now(),
                decision=decision,
                model=model,
                candidate=name,
                reason=reason,
                figures=dict(figures or {}),
            )
            history = (*pointer.history, entry)
            self._write(_Pointer(model=model, in_use=in_use, history=history))

    @staticmethod
    def _as_in_use(manifest: Manifest, name: str, *, since: str | None = None) -> InUse:
        return InUse(channel=manifest.channel, camera=manifest.camera, model=name, since=since)

    def _write(self, pointer: _Pointer) -> None:
        write_json(self.path / CURRENT, pointer.model_dump())

    def bundle(self, model: str) -> Path:
        """Return where a bundle lies that the library names.

        Raises
        ------
        BundleError
            If it is not there.
        """
        bundle = self.path / model  # an absolute path stays what it is
        if not (bundle / MANIFEST).is_file():
            raise BundleError(
                f"{self.path / CURRENT}: names {model}, which is not there; restore the bundle or "
                f"delete {CURRENT} to start anew"
            )
        return bundle

    def name_of(self, bundle: Path) -> str:
        """Return what the library calls a bundle: its place, relative where it lies inside."""
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


def models_in_use(
    camera: CameraFingerprint,
    channels: Sequence[str] | None,
    *,
    library: Path | None,
    near: Iterable[Path],
) -> tuple[dict[str | int, Path], str]:
    """Return the models that serve a camera where none was named, and words for which they are.

    Parameters
    ----------
    camera, channels
        See `Library.serving`.
    library
        Where to look; None takes the nearest library around one of the places `near`: what is
        read, and what is written.

    Raises
    ------
    InferenceError
        If there is no library, or nothing in it serves this camera.
    """
    near = list(near)
    shelf = Library(library) if library else library_near(near)
    if shelf is None:
        places = ", ".join(str(place) for place in near)
        raise InferenceError(
            f"no --model was given, and no library with a model in use lies around {places}; give "
            "--model BUNDLE, or --library DIR"
        )
    found = shelf.serving(camera, channels)
    if not found:
        known = "; ".join(_for_what(one) for one in shelf.in_use()) or "none at all"
        wanted = ", ".join(channels) if channels else "these frames"
        raise InferenceError(
            f"{shelf.path}: no model is in use for {camera.camera or 'this camera'} in its "
            f"present setting and {wanted} (in use: {known}); give --model BUNDLE, or "
            "put one in use with `quietscope models use`"
        )
    words = ", ".join(
        (bundle.name if name == EVERY_CHANNEL else f"{name} by {bundle.name}")
        for name, bundle in found.items()
    )
    chosen: dict[str | int, Path] = dict(found.items())
    return chosen, f"model in use in {shelf.path}: {words}"


def library_near(places: Iterable[Path]) -> Library | None:
    """Return the nearest library around one of these places, None if there is none."""
    return next(filter(None, map(library_around, places)), None)


def library_around(place: Path) -> Library | None:
    """Return the nearest library that a place lies in; None if it lies in none."""
    for folder in (place, *place.absolute().parents):
        if (folder / CURRENT).is_file():
            return Library(folder)
    return None


def _for_what(one: InUse) -> str:
    return (
        f"{one.model} for {one.channel or 'every channel'} of {one.camera.camera or 'any camera'}"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _renamed(pointer: _Pointer, old: str, new: str) -> _Pointer:
    def one(name: str | None) -> str | None:
        return new if name == old else name

    return pointer.model_copy(
        update={
            "model": one(pointer.model),
            "in_use": tuple(
                use.model_copy(update={"model": one(use.model)}) for use in pointer.in_use
            ),
            "history": tuple(
                entry.model_copy(
                    update={"model": one(entry.model), "candidate": one(entry.candidate)}
                )
                for entry in pointer.history
            ),
        }
    )


def _is_hidden(raw: Path, library: Path) -> bool:
    """Whether it is on its way: a run that another one is just replacing, for one."""
    return any(part.startswith(".") for part in raw.relative_to(library).parts)


def _recorded(run: Path) -> tuple[float, str]:
    # The report is written once, at the end; the store's own time moves when it is copied.
    report = run / "report.json"
    try:
        return ((report if report.is_file() else run / RAW).stat().st_mtime, run.name)
    except OSError:  # it was moved or replaced at this moment
        return (0.0, run.name)
