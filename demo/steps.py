"""The seven steps of the demo, in their order.

Each step is the same function that the command of that name calls; it shows its progress and says
what it measured in one line. Owns what the steps hand on to each other, and the folder they fill::

    out/
        camera.npz, camera.html     the calibrated noise model, and its figure page
        library/
            runs/specimen, runs/live    raw.ome.zarr, denoised.ome.zarr, report.json, events.log
            models/, current.json       bundles, and the pointer to the one in use
        report.json, report.html, picture.png
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from rich.markup import escape

from ..inference.runtime.providers import Provider
from ..reporting.console import progress, say, stderr
from ..storage.atomic_output import write_json
from .scoring import GivenFrames, score_run

if TYPE_CHECKING:
    from ..acquisition.microscope.core import Microscope
    from ..acquisition.microscope.specimen import Specimen
    from ..calibration.result import Calibration
    from ..training.progress import TrainingProgress
    from ..training.run import TrainingResult

SIDE = 256
"""Pixels; the demo camera computes its pictures, and a smaller region leaves it time."""
EXPOSURE_MS = 50.0
LIVE_FIRST_INDEX = 1000
"""The live run looks at the specimen long after the recording that the model learned from."""


@dataclass
class DemoState:
    """What the steps hand on to each other."""

    out: Path
    frames: int
    train_seconds: float
    preview: bool
    seed: int
    provider: Provider
    microscope: Microscope = field(init=False)
    calibration: Calibration = field(init=False)
    specimen: Specimen = field(init=False)
    training: TrainingResult = field(init=False)
    live: Mapping[str, Any] = field(init=False)
    decision: Mapping[str, Any] = field(init=False)
    scores: Mapping[str, Any] = field(init=False)

    @property
    def library(self) -> Path:
        """The library that the demo fills."""
        return self.out / "library"


def bytes_needed(frames: int) -> int:
    """Return what a demo of `frames` frames takes on the disk."""
    # Raw uint16 and denoised float32 of two runs, the calibration, two bundles.
    return frames * SIDE * SIDE * (2 + 4) * 2 + 200 * 2**20


def run_steps(state: DemoState, began: float) -> dict[str, Any]:
    """Do all steps and return the report; `began` is the command's start by `perf_counter`."""
    _at_the_microscope(state)
    _retrain(state)
    return _report(state, seconds=time.perf_counter() - began)


Tell = Callable[[float, str], None]
"""A step says how far it is (0 to 1) and what it is doing."""


def _step(number: int, name: str, work: Callable[[Tell], str]) -> None:
    """Run one step with a progress bar and print its measured result in one line."""
    began = time.perf_counter()
    with progress() as bar:
        task = bar.add_task(f"{number}/7 {name}", total=100, note="")

        def tell(share: float, note: str) -> None:
            bar.update(task, completed=round(100 * share), note=note)

        result = work(tell)
    seconds = time.perf_counter() - began
    line = f"[bold]{number}/7[/] {name:<10} {escape(result)} [dim]({seconds:.1f} s)[/]"
    stderr.print(line, soft_wrap=True)


# ------------------------------------------------------------------ 1 to 5, at the microscope


def _at_the_microscope(state: DemoState) -> None:
    from ..acquisition.microscope.core import MicroscopeSettings, open_microscope

    x = (512 - SIDE) // 2
    settings = MicroscopeSettings(exposure_ms=EXPOSURE_MS, roi=(x, x, SIDE, SIDE))
    with ExitStack() as held:

        def start(tell: Tell) -> str:
            tell(0.0, "starting Micro-Manager's core")
            state.microscope = held.enter_context(open_microscope(settings))
            return _introduce(state.microscope)

        _step(1, "microscope", start)
        _step(2, "calibrate", lambda tell: _calibrate(state, tell))
        _step(3, "record", lambda tell: _record(state, tell))
        _step(4, "train", lambda tell: _train(state, tell))
        _step(5, "live", lambda tell: _live(state, tell))


def _introduce(microscope: Microscope) -> str:
    height, width = microscope.frame_shape
    return (
        f"Micro-Manager's core ({microscope.core.get_version_info()}) with its demo camera "
        f"{microscope.fingerprint().camera}, {width}×{height} pixels, {microscope.pixel_type}"
    )


def _calibrate(state: DemoState, tell: Tell) -> str:
    from ..acquisition.light_ladder import record_ladder
    from ..calibration.fit_camera import fit_camera
    from ..calibration.noise_files import save_noise_model
    from ..calibration.report import write_report

    def show(line: str, done: int, total: int) -> None:
        tell(0.7 * done / total, line)

    with record_ladder(state.microscope, on_progress=show) as ladder:
        state.calibration = fit_camera(
            ladder.levels,
            dark=ladder.dark,
            fingerprint=state.microscope.fingerprint(),
            seed=state.seed,
            on_progress=lambda step, share: tell(0.7 + 0.3 * share, step),
        )
    save_noise_model(state.calibration.noise_model, state.out / "camera.npz")
    write_report(state.calibration, state.out / "camera.html")
    law = state.calibration.photon_transfer
    checks = state.calibration.checks
    passed = sum(check.passed for check in checks)
    return (
        f"gain {law.gain_adu_per_e:.3f} ADU/e⁻, offset {law.offset_adu:.2f} ADU, read noise "
        f"{law.read_noise_e:.2f} e⁻ from {len(state.calibration.levels)} light levels; "
        f"{passed} of {len(checks)} checks good"
    )


def _record(state: DemoState, tell: Tell) -> str:
    run = state.library / "runs" / "specimen"
    report = _acquire(state, run, tell, first_index=0, frames=_recording_length(state))
    return (
        f"{report['frames_recorded']} of {report['frames_delivered']} frames of a simulated "
        f"specimen in {run.name}/raw.ome.zarr, verified bit for bit"
    )


def _recording_length(state: DemoState) -> int:
    return max(60, state.frames // 2)


def _train(state: DemoState, tell: Tell) -> str:
    from ..inference.library import Library
    from ..storage.open_stack import open_stack
    from ..training.method_choice import INDEPENDENT
    from ..training.options import TrainingOptions
    from ..training.run import in_one_process
    from ..training.train import train

    tell(0.0, "reading the recording")
    library = Library(state.library)
    state.training = in_one_process(
        train(
            [open_stack(state.library / "runs" / "specimen")],
            library.models_dir / "first",
            # By name: in so short a time it gets further than the general model's larger network.
            TrainingOptions(algorithm=INDEPENDENT, seconds=state.train_seconds, seed=state.seed),
            noise_model=state.calibration.noise_model,
            camera=state.microscope.fingerprint(),
            accept=True,  # the demo shows what it got, and says what that is worth
            on_progress=_training_progress(tell),
            on_remark=say,
        )
    )
    library.promote(state.training.bundle.path, "the first model of this library")
    result = state.training.result()
    return (
        f"{result['algorithm']} network of {result['parameters']} parameters, "
        f"{result['steps']} steps; ONNX equals PyTorch within "
        f"{result['parity_max_relative_error']:.1e}; {result['verdict']}"
    )


def _training_progress(tell: Tell) -> Callable[[TrainingProgress], None]:
    def on_progress(now: TrainingProgress) -> None:
        tell(now.progress, f"step {now.step}, {now.seconds_left:.0f} s left")

    return on_progress


def _live(state: DemoState, tell: Tell) -> str:
    run = state.library / "runs" / "live"
    state.live = _acquire(
        state,
        run,
        tell,
        first_index=LIVE_FIRST_INDEX,
        frames=state.frames,
        model=state.training.bundle.path,
        preview=state.preview,
    )
    state.scores = score_run(run, state.specimen, LIVE_FIRST_INDEX)
    return (
        f"{state.live['frames_denoised']} of {state.live['frames_recorded']} frames denoised on "
        f"{state.live['provider']}, latency {state.live['latency_ms']['p50']:.0f} ms, "
        f"{state.live['frames_skipped_live']} skipped in the live view; PSNR "
        f"{state.scores['psnr_raw_db']:.1f} → {state.scores['psnr_denoised_db']:.1f} dB"
    )


def _acquire(
    state: DemoState,
    run: Path,
    tell: Tell,
    *,
    first_index: int,
    frames: int,
    model: Path | None = None,
    preview: bool = False,
) -> Mapping[str, Any]:
    """Record `frames` of the specimen through the hook and verify every raw frame."""
    from ..acquisition import LiveDenoiser
    from ..acquisition.microscope.demo_camera import SpecimenBeforeCamera
    from ..acquisition.microscope.planned_events import planned_events
    from ..acquisition.run_acquisition import run_acquisition

    microscope, given = state.microscope, GivenFrames()
    camera = SpecimenBeforeCamera(microscope, seed=state.seed, first_index=first_index)
    state.specimen = camera.specimen

    def observe(metadata: Mapping[str, Any]) -> NDArray[Any]:
        return given.note(metadata["Axes"]["time"], camera.observe(metadata))

    with LiveDenoiser(
        model=model,
        output=run,
        mode="sink",
        preview=preview,
        provider=state.provider,
        microscope=microscope,
    ) as live:
        run_acquisition(
            live,
            planned_events(microscope, frames),
            observe=observe,
            on_frames=lambda done: tell(done / frames, f"{done} of {frames} frames"),
        )
    given.verify(run)
    return dict(live.report)


# ------------------------------------------------------------------------ 6 and 7, afterwards


def _retrain(state: DemoState) -> None:
    from ..training.retraining.retrain import retrain_once

    def work(tell: Tell) -> str:
        decision = retrain_once(
            state.library,
            seconds=state.train_seconds / 2,
            on_progress=_training_progress(tell),
            on_remark=say,
        )
        state.decision = decision.result()
        return f"{state.decision['decision']}: {state.decision['reason']}"

    _step(6, "retrain", work)


def _report(state: DemoState, *, seconds: float) -> dict[str, Any]:
    from .figures import write_demo_picture
    from .report import write_demo_report

    report = {
        **state.live,
        **state.scores,
        "simulated": True,
        "calibration": state.calibration.result(),
        "training": state.training.result(),
        "retrain": state.decision,
        "seconds": seconds,
        "out": str(state.out),
    }
    write_json(state.out / "report.json", report)

    def work(tell: Tell) -> str:
        tell(0.0, "drawing")
        live_run = state.library / "runs" / "live"
        write_demo_picture(state.out / "picture.png", live_run, state.specimen, LIVE_FIRST_INDEX)
        write_demo_report(
            state.out / "report.html",
            report,
            live_run,
            state.specimen,
            LIVE_FIRST_INDEX,
            bundle=state.training.bundle.path,
            calibration=state.calibration,
        )
        return str(state.out / "report.html")

    _step(7, "report", work)
    return report
