"""The commands `models …`: what models a library holds, which are in use, how that came about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..calibration.fingerprint import CameraFingerprint
from ..reporting.console import Outcome
from ..storage.open_stack import open_stack
from ..storage.stack import StackError
from .bundle import MANIFEST, Bundle, open_bundle, read_manifest
from .errors import BundleError, InferenceError
from .library import InUse, Library, require_folder
from .provenance import recorded_camera
from .running_sessions import have_used, sessions_for

LibraryOption = Annotated[
    Path, typer.Option(help="The folder that holds the recorded runs and `models`.")
]
ModelArgument = Annotated[
    str, typer.Argument(help="A bundle: its name in the library's `models`, or its path.")
]
RunningOption = Annotated[
    bool,
    typer.Option(
        "--running", help="Also in live sessions that run now, from their next frame on."
    ),
]
ChannelOption = Annotated[str | None, typer.Option(help="Of the model, where several are in use.")]


def list_models(library: LibraryOption) -> Outcome:
    """List the models of a library, and which are in use for what."""
    shelf = _library(library)
    in_use = shelf.in_use()
    rows = [_row(shelf, bundle, in_use) for bundle in shelf.models()]
    elsewhere = [one for one in in_use if Path(one.model).is_absolute()]
    rows += [_row(shelf, Path(one.model), in_use) for one in elsewhere]
    lines = [_line(row) for row in rows] or [
        f"no model in {shelf.models_dir}; train one with `quietscope train … --out "
        f"{shelf.models_dir / 'NAME'}`, or by `quietscope retrain --library {library}`"
    ]
    page = shelf.last_page
    if page is not None:
        lines.append(f"how they came about: {page}")
    last_page = None if page is None else str(page)
    return Outcome({"library": str(library), "models": rows, "last_page": last_page}, lines)


def show_model(model: ModelArgument, library: LibraryOption) -> Outcome:
    """Show what a model is, what it was trained on, its figures and its history."""
    shelf = _library(library)
    bundle = open_bundle(place_of_model(shelf, model))
    manifest = bundle.manifest
    row = _row(shelf, bundle.path, shelf.in_use())
    name = row["model"]
    history = [e for e in shelf.history() if name in (e.model, e.candidate)]
    lines = [
        _line(row),
        f"trained on {manifest.created[:16].replace('T', ' ')}, "
        f"{manifest.training.steps} steps in {manifest.training.seconds:.0f} s, from "
        + ", ".join(stack.path for stack in manifest.training.stacks),
        f"camera: {_camera(manifest.camera)}; noise model {manifest.noise_model}",
        *(f"{key.replace('_', ' ')}: {_number(value)}" for key, value in manifest.figures.items()),
        *(f"{e.time[:16].replace('T', ' ')}  {e.decision}: {e.reason}" for e in history),
    ]
    result = {
        **row,
        "figures": manifest.figures,
        "training": manifest.training.model_dump(),
        "history": [entry.model_dump() for entry in history],
    }
    return Outcome(result, lines)


def use_model(
    model: ModelArgument,
    library: LibraryOption,
    force: Annotated[
        bool, typer.Option("--force", help="Though no recording here is of its camera.")
    ] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Though it was found no better than a blur.")
    ] = False,
    running: RunningOption = False,
) -> Outcome:
    """Put a model in use for its camera and channel, in one step."""
    shelf = _library(library)
    bundle = open_bundle(place_of_model(shelf, model))
    if not force:
        _require_known_camera(shelf, bundle)
    shelf.promote(bundle.path, "put in use by hand", accept=accept)
    return _now_in_use(shelf, bundle, running=running)


def roll_back(
    library: LibraryOption, channel: ChannelOption = None, running: RunningOption = False
) -> Outcome:
    """Put the model back in use that was in use before."""
    shelf = _library(library)
    return _now_in_use(shelf, shelf.rollback(channel), running=running)


def rename_model(
    model: ModelArgument,
    name: Annotated[str, typer.Argument(help="The new name, without a slash.")],
    library: LibraryOption,
) -> Outcome:
    """Give a model another name. What has a name of its own is never pruned."""
    shelf = _library(library)
    target = shelf.rename(place_of_model(shelf, model), name)
    return Outcome({"model": str(target)}, [str(target)])


def prune_models(
    library: LibraryOption,
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; without, only say so.")] = False,
) -> Outcome:
    """Delete candidates that were never in use and that nobody gave a name."""
    shelf = _library(library)
    sizes = {bundle: _bytes(bundle) for bundle in shelf.unused()}
    unused = shelf.prune() if yes else list(sizes)
    sizes = {bundle: sizes.get(bundle, 0) for bundle in unused}
    megabytes = sum(sizes.values()) / 1e6
    what = "freed" if yes else "would be freed; pass --yes to delete them"
    lines = [f"{bundle.name}  {sizes[bundle] / 1e6:.1f} MB" for bundle in unused]
    summary = f"{len(unused)} models never in use, {megabytes:.1f} MB {what}"
    result = {"pruned": yes, "models": [str(b) for b in unused], "bytes": sum(sizes.values())}
    return Outcome(
        result, [*lines, summary if unused else "nothing to prune: every model is kept"]
    )


def _library(path: Path) -> Library:
    require_folder(path)
    return Library(path)


def place_of_model(shelf: Library, model: str) -> Path:
    """Return where a bundle lies that is named by its name in a library or by its path.

    Raises
    ------
    InferenceError
        If there is none.
    """
    inside = shelf.models_dir / model
    if (inside / MANIFEST).is_file():
        return inside
    if not (Path(model) / MANIFEST).is_file():
        names = ", ".join(bundle.name for bundle in shelf.models()) or "none"
        raise InferenceError(f"{model}: no model of that name; the library holds {names}")
    return Path(model)


def _row(shelf: Library, bundle: Path, in_use: tuple[InUse, ...]) -> dict[str, Any]:
    name = shelf.name_of(bundle)
    used = [one for one in in_use if one.model == name]
    row: dict[str, Any] = {"model": name, "in_use": bool(used)}
    row["since"] = used[0].since if used else None
    try:
        manifest = read_manifest(bundle)
    except BundleError as error:
        return {**row, "damaged": str(error)}
    return {
        **row,
        "channel": manifest.channel,
        "camera": manifest.camera.model_dump(exclude_none=True),
        "algorithm": manifest.algorithm,
        "preset": manifest.preset,
        "context_frames": manifest.context_frames,
        "planes": manifest.planes,
        "created": manifest.created,
    }


def _line(row: dict[str, Any]) -> str:
    mark = "in use" if row["in_use"] else "      "
    if "damaged" in row:
        return f"{mark}  {row['model']}  cannot be used: {row['damaged']}"
    since = f", since {row['since'][:16].replace('T', ' ')}" if row["since"] else ""
    channel = row["channel"] or "every channel"
    camera = _camera(CameraFingerprint(**row["camera"]))
    return (
        f"{mark}  {row['model']}  {channel}, {camera}, {row['algorithm']} {row['preset']}{since}"
    )


def _camera(camera: CameraFingerprint) -> str:
    said = (camera.camera, camera.serial, camera.readout_mode, camera.gain_setting, camera.binning)
    return " ".join(value for value in said if value) or "any camera"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _require_known_camera(shelf: Library, bundle: Bundle) -> None:
    """Refuse a model of a camera, or a setting, of which nothing was recorded here."""
    reasons = []
    for run in shelf.runs():
        try:
            stack = open_stack(run)
        except StackError:
            continue
        channel = bundle.manifest.channel
        differs = bundle.manifest.camera.differences(recorded_camera(stack))
        if not differs and (channel is None or channel in stack.channel_labels):
            return
        reasons.append(
            "; ".join(differs)
            or f"{run.name} has the channels {', '.join(stack.channel_labels)}, not {channel}"
        )
    if reasons:
        raise InferenceError(
            f"{bundle.path}: fits no recording of this library ({reasons[0]}); use a model of "
            "this camera and setting, or pass --force"
        )


def _now_in_use(shelf: Library, bundle: Bundle, *, running: bool) -> Outcome:
    name, channel = shelf.name_of(bundle.path), bundle.manifest.channel
    what = "every channel" if channel is None else f"channel {channel}"
    asked = have_used(bundle) if running else []
    lines = [
        f"{name} is in use for {what} of {_camera(bundle.manifest.camera)}",
        *(f"{one.run}: {one.words}" for one in asked),
    ]
    if not running:
        lines += [
            f"a live session keeps its model ({session.about.run}); --running has it change over"
            for session in sessions_for(bundle)
        ]
    result = {
        "model": name,
        "channel": channel,
        "model_sha256": bundle.model_sha256,
        "running": [asdict(one) for one in asked],
    }
    return Outcome(result, lines, failed=not all(one.granted for one in asked))


def _bytes(bundle: Path) -> int:
    return sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())


COMMANDS: dict[str, Callable[..., Outcome]] = {
    "models list": list_models,
    "models show": show_model,
    "models use": use_model,
    "models rollback": roll_back,
    "models rename": rename_model,
    "models prune": prune_models,
}
