"""The commands of `acquisition`, as plain functions that return an Outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import Outcome, progress, stderr
from .light_ladder import calibrate
from .microscope import MicroscopeSettings
from .microscope_options import takes_microscope

OutOption = Annotated[Path, typer.Option(help="Run directory to create.")]
FramesOption = Annotated[int, typer.Option(min=1, help="Time points to acquire.")]
OverwriteOption = Annotated[bool, typer.Option(help="Replace an earlier run in --out.")]


@takes_microscope
def record(
    *,
    out: OutOption,
    microscope: MicroscopeSettings,
    frames: FramesOption = 100,
    overwrite: OverwriteOption = False,
) -> Outcome:
    """Record frames to OME-Zarr, every one of them counted."""
    report = _acquire(microscope, out, frames, overwrite=overwrite)
    return Outcome(result=report, summary=_summary(report))


@takes_microscope
def live(
    *,
    model: Annotated[
        list[str],
        typer.Option(metavar="BUNDLE", help="Model bundle; CHANNEL=BUNDLE gives one a channel."),
    ],
    out: OutOption,
    microscope: MicroscopeSettings,
    frames: FramesOption = 100,
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
        overwrite=overwrite,
        model=_models(model),
        provider=provider,
        preview=preview,
        force=force,
    )
    return Outcome(result=report, summary=_summary(report))


def _models(options: list[str]) -> str | dict[str, str]:
    """Read `BUNDLE` or several `CHANNEL=BUNDLE`."""
    if len(options) == 1 and (Path(options[0]).exists() or "=" not in options[0]):
        return options[0]
    pairs = [option.partition("=") for option in options]
    if not all(channel and path for channel, _, path in pairs):
        raise typer.BadParameter(
            f"--model {' '.join(options)}: give one bundle, or CHANNEL=BUNDLE for each channel"
        )
    return {channel: path for channel, _, path in pairs}


def _acquire(
    settings: MicroscopeSettings, out: Path, frames: int, **options: Any
) -> dict[str, Any]:
    from .follow import follow, is_running
    from .live import LiveDenoiser
    from .microscope import open_microscope
    from .planned_events import planned_events
    from .run_acquisition import run_acquisition

    with open_microscope(settings) as microscope, progress() as bar:
        following = settings.attach and is_running(microscope)
        # Counted before they are made: a run that does not fit on the disk is refused at once.
        per_time_point = 1 if following else len(planned_events(microscope, 1))
        expected = frames * per_time_point
        recording = bar.add_task("recording", total=expected, note="")

        def show(done: int) -> None:
            bar.update(recording, completed=done)

        def show_completion(done: int, to_do: int) -> None:
            bar.update(recording, description="denoising skipped frames", total=to_do)
            bar.update(recording, completed=done)

        with LiveDenoiser(
            output=out,
            mode="sink",
            camera=microscope.fingerprint(),
            pixel_size_um=microscope.pixel_size_um,
            simulated=microscope.has_demo_camera,
            expected_frames=None if following else expected,
            raise_on_gap=not following,
            on_progress=show_completion,
            **options,
        ) as stream:
            if following:
                stderr.print("the camera is running: following it, its images are not all seen")
                follow(microscope, stream, frames, on_frames=show)
            else:
                events = planned_events(microscope, frames)
                run_acquisition(stream, events, port=settings.port, on_frames=show)
        report = stream.report
    if report["preview"] not in (None, "shown"):
        stderr.print(f"no preview: {report['preview']}")
    return report


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
    if report["simulated"]:
        lines.append("the camera is Micro-Manager's demo camera: these are simulated images")
    return lines


COMMANDS: dict[str, Callable[..., Outcome]] = {
    "calibrate": takes_microscope(calibrate),
    "record": record,
    "live": live,
}
