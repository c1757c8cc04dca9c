"""The commands of `acquisition`, as plain functions that return an Outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..calibration.fingerprint import CameraFingerprint
from ..inference.general.choice import Wanted, chosen_models
from ..inference.model_choice import LibraryOption, ModelOption, Models
from ..reporting.console import Outcome, command_line, progress, say
from ..reporting.told import is_told, tell
from ..storage.atomic_output import require_apart
from .calibrate import calibrate
from .microscope.bridge import is_acquiring, running_acquisition
from .microscope.core import MicroscopeSettings
from .microscope.introduction import description, introduction
from .microscope.options import takes_microscope

if TYPE_CHECKING:
    from .live import LiveDenoiser
    from .microscope.core import Microscope
    from .microscope.planned_events import Event

DEFAULT_FRAMES = 100
FOLLOW_PAUSE_S = 0.2
TOLD = (
    "frames_delivered",
    "frames_recorded",
    "frames_denoised",
    "frames_skipped_live",
    "frames_missing",
    "frame_rate_hz",
)
"""Counts of a run that are told while it lasts."""

OutOption = Annotated[Path, typer.Option(help="Run directory to create.")]
FramesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"Time points to acquire ({DEFAULT_FRAMES} if not given), or images to follow (all).",
        show_default=False,
    ),
]
FollowOption = Annotated[
    bool,
    typer.Option(
        "--follow",
        help="With --attach: wait for Micro-Manager's own live mode or acquisition.",
    ),
]
SavedInOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Follow the acquisition that any program saves there as NDTiff, image by image.",
    ),
]
SequenceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Acquire this useq.MDASequence (.yaml or .json), in place of --frames, --interval-s, "
        "--channel, --z and --positions.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option(help="Replace an earlier run in --out.")]


ChooseModel = Callable[["Microscope | None", Path], Models]


@takes_microscope
def record(
    *,
    out: OutOption,
    microscope: MicroscopeSettings,
    frames: FramesOption = None,
    sequence: SequenceOption = None,
    follow: FollowOption = False,
    saved_in: SavedInOption = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show the live window.")] = False,
    overwrite: OverwriteOption = False,
) -> Outcome:
    """Record frames to OME-Zarr, every one of them counted."""
    report = _acquire(
        microscope,
        out,
        frames,
        sequence=sequence,
        follow=follow,
        saved_in=saved_in,
        preview=preview,
        overwrite=overwrite,
    )
    bundle = Path("models") / out.stem
    following = command_line("train", out, "--out", bundle)
    return Outcome(result=report, summary=[*_summary(report), f"next: {following}"])


@takes_microscope
def live(
    *,
    out: OutOption,
    microscope: MicroscopeSettings,
    model: ModelOption = None,
    library: LibraryOption = None,
    noise_model: Annotated[
        Path | None,
        typer.Option(help="Calibration of the camera (.npz), for the general model."),
    ] = None,
    frames: FramesOption = None,
    sequence: SequenceOption = None,
    follow: FollowOption = False,
    saved_in: SavedInOption = None,
    provider: Annotated[
        str, typer.Option(help="auto, cpu, cuda, tensorrt or directml; what runs is reported.")
    ] = "auto",
    preview: Annotated[bool, typer.Option(help="Show the live window.")] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Use a model of another camera; this is recorded.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> Outcome:
    """Record frames, denoise them as they come, and show both."""
    report = _acquire(
        microscope,
        out,
        frames,
        sequence=sequence,
        follow=follow,
        saved_in=saved_in,
        overwrite=overwrite,
        choose=partial(_chosen_models, model, library, noise_model),
        provider=provider,
        preview=preview,
        force=force,
    )
    return Outcome(result=report, summary=_summary(report))


def _acquire(
    settings: MicroscopeSettings,
    out: Path,
    frames: int | None,
    *,
    sequence: Path | None,
    follow: bool,
    saved_in: Path | None,
    **options: Any,
) -> dict[str, Any]:
    """Run what was asked for, or follow what somebody else runs; return the report."""
    from .microscope.core import open_microscope

    plan = None
    if sequence is not None:
        _require_sequence_alone(settings, frames, follow=follow or saved_in is not None)
        require_apart(out, [sequence])
        plan, settings = _read_plan(sequence, settings)

    if saved_in is not None and saved_in.is_file():
        raise typer.BadParameter(
            f"--saved-in {saved_in}: is a file; give the folder that the acquisition is saved in"
        )
    if follow and not settings.attach:
        raise typer.BadParameter("--follow belongs to --attach; give both, or --saved-in FOLDER")
    if (follow or saved_in is not None) and settings.changed:
        raise typer.BadParameter(
            f"{settings.changed[0]} has no use with --follow and --saved-in: whoever acquires "
            "there has set the microscope"
        )
    if saved_in is not None:
        with open_microscope(settings) if settings.attach else nullcontext() as microscope:
            say(
                introduction(microscope)
                if microscope
                else "camera: that of the program that saves"
            )
            report = _follow_saved(microscope, saved_in, None, out, frames, **options)
    else:
        with open_microscope(settings) as microscope:
            say(introduction(microscope))
            if plan is not None:
                microscope.require_idle("--sequence")
            theirs = _followed(microscope, wait=follow) if plan is None else None
            if plan is not None:
                report = _run_sequence(microscope, out, plan, **options)
            elif theirs is not None:
                report = _follow_saved(microscope, theirs, settings.port, out, frames, **options)
            elif settings.attach and (follow or microscope.is_sequence_running):
                report = _follow_camera(microscope, out, frames, **options)
            else:
                report = _run_own(microscope, out, frames or DEFAULT_FRAMES, **options)
    if report["preview"] not in (None, "shown"):
        say(f"no preview: {report['preview']}")
    return report


def _require_sequence_alone(
    settings: MicroscopeSettings, frames: int | None, *, follow: bool
) -> None:
    """Refuse what a sequence says itself."""
    given = {
        "--frames": frames is not None,
        "--follow and --saved-in": follow,
        "--channel": bool(settings.channels),
        "--interval-s": settings.interval_s > 0,
        "--z": settings.z_um is not None,
        "--positions": settings.positions is not None,
    }
    for option, there in given.items():
        if there:
            raise typer.BadParameter(f"{option} has no use with --sequence; leave one of them out")


def _read_plan(path: Path, settings: MicroscopeSettings) -> tuple[Any, MicroscopeSettings]:
    """Return the sequence, and the settings with its channels: models are chosen for them."""
    from .microscope.useq_sequence import channels_of, read_sequence

    plan = read_sequence(path)
    return plan, replace(settings, channels=channels_of(plan))


def _followed(microscope: Microscope, *, wait: bool) -> Path | None:
    """Return where Micro-Manager's window saves the acquisition that it runs, None without one.

    With `wait` only once there is an acquisition or live mode is on.
    """
    if not microscope.settings.attach:
        return None
    if wait:
        say("waiting for Micro-Manager's live mode or acquisition (Ctrl-C ends)")
    while True:
        folder = running_acquisition(microscope.settings.port)
        if folder is not None or not wait or microscope.is_sequence_running:
            return folder
        time.sleep(FOLLOW_PAUSE_S)


def _run_own(microscope: Microscope, out: Path, frames: int, **options: Any) -> dict[str, Any]:
    from .microscope.planned_events import planned_events

    # Counted before they are made: a run that does not fit on the disk is refused at once.
    expected = frames * len(planned_events(microscope, 1))
    _say_what_moves(microscope)
    plan = partial(planned_events, microscope, frames)
    return _run_planned(microscope, out, plan, expected, **options)


def _run_sequence(
    microscope: Microscope, out: Path, sequence: Any, **options: Any
) -> dict[str, Any]:
    from .microscope.useq_sequence import remarks, sequence_events, spaced

    events = sequence_events(microscope, sequence)
    for line in remarks(microscope, sequence):
        say(line)
    return _run_planned(microscope, out, partial(spaced, events), len(events), **options)


def _run_planned(
    microscope: Microscope,
    out: Path,
    plan: Callable[..., list[Event]],
    expected: int,
    **options: Any,
) -> dict[str, Any]:
    """Acquire `expected` images, with the events that `plan` makes when the stream is ready."""
    from .microscope.demo_camera import SpecimenBeforeCamera
    from .run_acquisition import run_acquisition

    specimen = SpecimenBeforeCamera(microscope) if microscope.settings.specimen else None
    observe, interval_s = None, 0.0
    if specimen is not None:
        observe, interval_s = specimen.observe, specimen.least_interval_s()
    planned: dict[str, Any] = {
        "expected_frames": expected,
        "planned_channels": microscope.settings.channels,
    }
    with _stream(microscope, out, expected, **planned, **options) as (stream, show):
        events = plan(least_interval_s=interval_s)
        port = microscope.settings.port
        run_acquisition(stream, events, observe=observe, port=port, on_frames=show)
    return stream.report


def _say_what_moves(microscope: Microscope) -> None:
    from .microscope.planned_events import planned_planes

    if (planes := planned_planes(microscope)) is not None:
        say(str(planes))
    if microscope.settings.positions is not None and microscope.stage_um is not None:
        x, y = microscope.stage_um
        say(
            f"stage: to the positions of {microscope.settings.positions}, then back to "
            f"{x:g}, {y:g} µm"
        )


def _follow_camera(
    microscope: Microscope, out: Path, frames: int | None, **options: Any
) -> dict[str, Any]:
    from .sources.follow_camera import follow

    say("live mode is on: following it, its images are not all seen")
    with _stream(microscope, out, frames, **options) as (stream, show):
        follow(microscope, stream, frames, on_frames=show)
    return stream.report


def _follow_saved(
    microscope: Microscope | None,
    folder: Path,
    port: int | None,
    out: Path,
    frames: int | None,
    **options: Any,
) -> dict[str, Any]:
    """Follow what is saved in `folder`, by the Micro-Manager behind `port` or by anybody."""
    from .sources.follow_dataset import SavedAcquisitions, await_dataset, follow_dataset

    require_apart(out, [folder])
    acquisitions = SavedAcquisitions(folder)

    def is_running() -> bool:
        return port is None or is_acquiring(port)

    with _stream(microscope, out, frames, **options) as (stream, show):
        say(f"waiting for images in {folder} (NDTiff)")
        dataset = await_dataset(acquisitions, is_running=is_running)
        say(f"following {dataset}")
        follow_dataset(dataset, stream, is_running=is_running, frames=frames, on_frames=show)
    return {**stream.report, "followed": str(dataset)}


@contextmanager
def _stream(
    microscope: Microscope | None,
    out: Path,
    total: int | None,
    *,
    choose: ChooseModel | None = None,
    **options: Any,
) -> Iterator[tuple[LiveDenoiser, Callable[[int], None]]]:
    """Yield the stream and what shows its progress."""
    from .live import LiveDenoiser

    if choose is not None:
        options["model"] = choose(microscope, out)
    with progress() as bar:
        recording = bar.add_task("recording", total=total, note="")

        def show(done: int) -> None:
            bar.update(recording, completed=done)
            _tell_counts(stream)

        def show_completion(done: int, to_do: int) -> None:
            bar.update(recording, description="denoising skipped frames", total=to_do)
            bar.update(recording, completed=done)

        with LiveDenoiser(
            output=out, mode="sink", microscope=microscope, on_progress=show_completion, **options
        ) as stream:
            yield stream, show


def _tell_counts(stream: LiveDenoiser) -> None:
    if is_told():
        report = stream.report
        tell("counts", least_interval_s=0.3, **{name: report[name] for name in TOLD})


def _chosen_models(
    given: list[str] | None,
    library: Path | None,
    noise_model: Path | None,
    microscope: Microscope | None,
    out: Path,
) -> Models:
    """Return the models that were named, or else those that serve the camera that runs."""
    found, words = chosen_models(
        given,
        Wanted(
            camera=CameraFingerprint() if microscope is None else microscope.fingerprint(),
            channels=(None if microscope is None else microscope.settings.channels) or None,
            pixel_type=None if microscope is None else microscope.pixel_type,
            near=[out],
            library=library,
            noise_model=noise_model,
        ),
    )
    for line in words:
        say(line)
    return dict(found) if isinstance(found, dict) else found


def _summary(report: dict[str, Any]) -> list[str]:
    lines = [
        f"{report['frames_recorded']} of {report['frames_delivered']} frames recorded in "
        f"{report['output']}"
        + (f" at {report['frame_rate_hz']:.1f} frames/s" if report["frame_rate_hz"] else "")
    ]
    if report["frames_denoised"]:
        latency = report["latency_ms"]["p50"]
        lines.append(
            f"{report['frames_denoised']} denoised on {report['provider']}"
            + (f", latency {latency:.0f} ms" if latency is not None else "")
            + f"; {report['frames_skipped_live']} skipped in the live view and denoised afterwards"
        )
    if report["frames_without_model"]:
        lines.append(
            f"{report['frames_without_model']} frames of channels without a model, recorded only"
        )
    if report["models_without_frames"]:
        lines.append(
            f"no frame of channel {', '.join(report['models_without_frames'])} came, to which a "
            "model was given: it denoised nothing"
        )
    if report["frames_not_of_the_models_camera"]:
        lines.append(
            f"{report['frames_not_of_the_models_camera']} frames were not denoised: the camera "
            "was set otherwise than for the model"
        )
    lines += [
        f"denoised by {one['after']} from frame {one['from_frame']} on, before by {one['before']}"
        for one in report.get("model_switches", [])
    ]
    lines += [
        f"a newer model came into use meanwhile, which the next run takes: {newer}"
        for newer in report.get("newer_models", {}).values()
    ]
    lines += _bad_verdict(report)
    if report["simulated"]:
        lines.append(
            "these are simulated images of Micro-Manager's demo camera, of no real specimen"
        )
    return lines


def _bad_verdict(report: dict[str, Any]) -> list[str]:
    """Say that the picture is not to be relied on, or was not for a while."""
    for name, when in (("verdict", "since"), ("worst_verdict", "for a while from")):
        found = report[name]
        if found and found["word"] == "bad":
            return [
                f"BAD PICTURE {when} frame {found['since_frame']} ({found['since']}): "
                f"{found['headline']}. {found['sentence']}"
            ]
    return []


@takes_microscope
def camera(*, microscope: MicroscopeSettings) -> Outcome:
    """Say which camera answers, how it is set, and which channels there are."""
    from .microscope.core import open_microscope

    with open_microscope(microscope) as opened:
        result = description(opened)
        return Outcome(result, [introduction(opened)])


COMMANDS: dict[str, Callable[..., Outcome]] = {
    "camera": camera,
    "calibrate": takes_microscope(calibrate),
    "record": record,
    "live": live,
}
