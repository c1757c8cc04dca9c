"""The `calibrate` command: a ladder of light, the fit, the noise model and its page.

Owns what the person types and reads. The ladder is recorded in `light_ladder`; what its frames say
about the camera is worked out by `calibration`.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..reporting.console import Outcome, command_line, progress, say
from ..reporting.told import tell
from ..storage.atomic_output import require_absent, require_apart, require_writable
from ..storage.live_sessions import live_session
from ..storage.output_kinds import Kind
from .level_recorder import RecordedLevel
from .light_ladder import (
    FRAMES_PER_LEVEL,
    LEVELS,
    LadderRecording,
    Light,
    record_ladder,
    wait_for_enter,
)
from .microscope.core import Microscope, MicroscopeSettings, open_microscope
from .microscope.introduction import introduction

if TYPE_CHECKING:
    from ..calibration.result import Calibration


def calibrate(
    *,
    out: Annotated[Path, typer.Option(help="The noise model to write (npz).")],
    microscope: MicroscopeSettings,
    levels: Annotated[int, typer.Option(min=3, help="Light levels.")] = LEVELS,
    frames_per_level: Annotated[int, typer.Option(min=4, help="Repeats of each level.")] = (
        FRAMES_PER_LEVEL
    ),
    light: Annotated[
        str,
        typer.Option(
            metavar="exposure|hand|DEVICE-PROPERTY",
            help="What varies the light: exposure time, a person, or a property of a device.",
        ),
    ] = "exposure",
    light_range: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Its range (exposure in ms); found by trial."),
    ] = None,
    dark: Annotated[
        bool, typer.Option(help="Record dark frames first, with the shutter closed.")
    ] = True,
    keep_stacks: Annotated[
        Path | None, typer.Option(help="Keep the recorded stacks in this folder (OME-Zarr).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The figure page; next to --out when not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    seed: Annotated[int, typer.Option(help="Of the draw of pixels.")] = 0,
) -> Outcome:
    """Measure the camera: dark frames, a ladder of light levels, noise model, checks."""
    from ..calibration.noise_files import save_noise_model
    from ..calibration.report import write_report

    source = parse_light(light, light_range)
    _refuse_what_has_no_use(microscope)
    page = report or out.with_suffix(".html")
    require_apart(page, [out])
    require_absent(out, overwrite=overwrite, kind=Kind.NOISE_MODEL)
    require_absent(page, overwrite=overwrite, kind=Kind.PAGE)
    if keep_stacks is not None:
        require_apart(keep_stacks, [out, page])
        require_absent(keep_stacks, overwrite=overwrite, kind=Kind.LIGHT_LEVELS)
    for written in (out, page):
        require_writable(written)
    begun = time.perf_counter()
    # An even field is what is needed: the demo camera has one, and no specimen stands before it.
    opening = open_microscope(replace(microscope, specimen=False))
    with live_session(), opening as opened, progress() as bar:
        say(introduction(opened, sees="an even field in its mode Noise"))
        for channel in microscope.channels:
            opened.set_channel(channel)
        task = bar.add_task("recording", total=(levels + 1) * frames_per_level, note="")

        def show(line: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, note=line)

        def ask(sentence: str) -> None:
            bar.stop()
            wait_for_enter(sentence)
            bar.start()

        with record_ladder(
            opened,
            levels=levels,
            frames_per_level=frames_per_level,
            light=source,
            dark=dark,
            keep=keep_stacks,
            overwrite=overwrite,
            prompt=ask,
            on_progress=show,
            on_level=_tell_level,
        ) as ladder:
            bar.update(task, completed=levels * frames_per_level, visible=False)
            calibration = _fit(ladder, opened, seed, bar)
    save_noise_model(calibration.noise_model, out, overwrite=overwrite)
    write_report(calibration, page)
    result = {
        **calibration.result(),
        "seconds": time.perf_counter() - begun,
        "out": str(out),
        "report": str(page),
        "saturated_levels": len(ladder.saturated),
        "stacks": None if keep_stacks is None else str(keep_stacks),
    }
    summary = [*calibration.summary(), f"noise model {out}, figures {page}"]
    return Outcome(result, [*summary, *_next(microscope, out)])


def _tell_level(name: str, level: RecordedLevel) -> None:
    tell("level", name=name, mean_adu=level.mean_adu, variance_adu2=level.variance_adu2)


def _next(microscope: MicroscopeSettings, out: Path) -> list[str]:
    run, bundle = Path("runs") / "first", Path("models") / "first"
    return [
        f"next: {command_line('record', '--out', run, *microscope.as_words())}",
        f"then: {command_line('train', run, '--out', bundle, '--noise-model', out)}",
    ]


def _refuse_what_has_no_use(microscope: MicroscopeSettings) -> None:
    """Refuse what moves or waits: a calibration looks at one still, even field."""
    for option, given in (
        ("--z", microscope.z_um),
        ("--positions", microscope.positions),
        ("--interval-s", microscope.interval_s),
        ("--channel", microscope.channels[1:]),
    ):
        if given:
            raise typer.BadParameter(
                f"{option} has no use here: a calibration looks at one even field"
                + (" in one channel" if option == "--channel" else "")
            )


def _fit(ladder: LadderRecording, microscope: Microscope, seed: int, bar: Any) -> Calibration:
    from ..calibration.fit_camera import fit_camera

    task = bar.add_task("fitting", total=100, note="")
    calibration = fit_camera(
        ladder.levels,
        dark=ladder.dark,
        exposures_ms=ladder.exposures_ms,
        fingerprint=microscope.fingerprint(),
        seed=seed,
        on_progress=lambda step, share: bar.update(
            task, description=step, completed=int(100 * share)
        ),
    )
    bar.update(task, visible=False)
    return calibration


def parse_light(light: str, light_range: str | None) -> Light:
    """Turn --light and --light-range into a `Light`.

    Raises
    ------
    typer.BadParameter
        If they cannot be understood.
    """
    low, high = _range(light_range)
    if light == "hand":
        return Light("hand")
    if light == "exposure":
        return Light("exposure", low=low, high=high)
    device, dash, name = light.partition("-")
    if not (device and dash and name):
        raise typer.BadParameter(
            f"--light {light}: expected exposure, hand, or DEVICE-PROPERTY as Micro-Manager's "
            "device property browser lists it"
        )
    return Light("property", device=device, name=name, low=low, high=high)


def _range(text: str | None) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--light-range {text}: expected LOW,HIGH as numbers") from error
    if not 0 <= low < high < math.inf:
        raise typer.BadParameter(f"--light-range {text}: expected 0 ≤ LOW < HIGH, finite")
    return low, high
