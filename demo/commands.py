"""`quietscope demo`: the whole job on the demo camera, from its noise to a clean live image.

The one place that knows every room. Owns the command and what it says at the end; the steps stand
in `steps`, the page in `report`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import require_extra
from ..inference.runtime.providers import Provider
from ..reporting.console import Outcome
from ..storage.atomic_output import clear_directory, require_space
from ..storage.directory_lock import owned
from ..storage.output_kinds import Kind


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path(
        "quietscope-demo"
    ),
    frames: Annotated[int, typer.Option(min=20, help="Frames of the live acquisition.")] = 200,
    train_seconds: Annotated[
        float, typer.Option(min=5, help="Time for the first training; retraining takes half.")
    ] = 90.0,
    preview: Annotated[
        bool, typer.Option(help="Show the live window (where there is a screen).")
    ] = True,
    provider: Annotated[Provider, typer.Option(help="What runs the model.")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier demo in --out.")] = False,
    seed: Annotated[int, typer.Option(help="Of the simulated specimen and of training.")] = 0,
) -> Outcome:
    """Do the whole job on Micro-Manager's demo camera: calibrate, record, train, denoise live."""
    from .steps import DemoState, bytes_needed, run_steps

    require_extra("train", "demo")
    began = time.perf_counter()
    out = out.absolute()
    require_space(out, bytes_needed(frames))
    with owned(out):
        clear_directory(out, Kind.DEMO, overwrite=overwrite)
        state = DemoState(out, frames, train_seconds, preview, seed, provider)
        report = run_steps(state, began)
    return Outcome(result=report, summary=_summary(out, report))


def _summary(out: Path, report: Mapping[str, Any]) -> list[str]:
    gain = report["psnr_denoised_db"] - report["psnr_raw_db"]
    return [
        f"{report['frames_delivered']} frames delivered, {report['frames_recorded']} recorded, "
        f"{report['frames_denoised']} denoised, {report['frames_skipped_live']} skipped in the "
        "live view.",
        f"PSNR of the simulated specimen: {report['psnr_raw_db']:.1f} dB raw, "
        f"{report['psnr_denoised_db']:.1f} dB denoised ({gain:+.1f} dB).",
        f"Retraining: {report['retrain']['decision']}, {report['retrain']['reason']}.",
        f"Done in {report['seconds']:.0f} s. Open {out / 'report.html'} to see it.",
    ]
