"""From a finished run to its bundle: whole or not at all.

Owns what a bundle says about the run that made it. The graph is written by `export_onnx`, the
page by `report`; the bundle's form belongs to `inference.bundle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...calibration.fingerprint import CameraFingerprint
from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_files import load_noise_model, save_noise_model
from ...errors import QuietscopeError
from ...inference.bundle import (
    CHECKPOINT,
    LOSSES,
    MODEL,
    NOISE_MODEL,
    REPORT,
    SAMPLER,
    TRUST_REFERENCE,
    Bundle,
    Manifest,
    PixelType,
    TrainingRecord,
    new_bundle,
    open_bundle,
    seal,
)
from ...inference.runtime.benchmark import peak_rss_mb
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ...reporting.html_report import Light
from ..data.recordings import Recordings
from ..data.side_inputs import Sample
from ..errors import ExportError
from ..method_choice import judged
from ..model.estimator import Estimator
from ..model.unet import parameter_count
from ..options import TrainingOptions
from ..run import OVERFITTED_NATS, Run, TrainingResult
from .export_onnx import export_graph, export_sampler
from .preview import Preview, PreviewTile
from .report import write_losses, write_report
from .trust_record import write_trust_record
from .untrained_general import UntrainedGeneral
from .usefulness import Usefulness, usefulness_of


def write_bundle(
    out: Path,
    estimator: Estimator,
    run: Run,
    recordings: Recordings,
    noise_model: GaussianMixtureNoiseModel,
    *,
    camera: CameraFingerprint | None = None,
    channel: str | None = None,
    pixel_maps: NDArray[np.float32] | None = None,
    accept: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Export the estimator and write the bundle at `out`.

    Parameters
    ----------
    out
        The bundle's directory.
    estimator
        Trained.
    run, recordings, noise_model
        How, on what and by what it was trained.
    camera, channel
        To which the model belongs; None takes the noise model's camera.
    pixel_maps
        (3, Y, X) of the whole camera region, where the model takes each pixel as its own.
    accept
        Let the model be put in use even if it is no better than its input or a blur.
    overwrite
        Replace what stands at `out`.

    Raises
    ------
    ExportError
        If the graph does not do what PyTorch does, or the bundle cannot be used.
    OutputError
        If `out` exists or cannot be written.
    """
    seconds = run.schedule.elapsed
    usefulness = usefulness_of(
        estimator,
        recordings.held_out,
        noise_model,
        context_frames=run.options.context_frames,
        seed=run.options.seed,
        correlation=run.noise_correlation,
        general=UntrainedGeneral.beside(run, recordings),
    )
    noise_is_removed, noise = _noise(run)
    belongs_to = _camera_of(camera or noise_model.fingerprint, noise_model, pixel_maps)
    with new_bundle(out, overwrite=overwrite) as staging:
        parity = export_graph(estimator, staging / MODEL, recordings.samples, pixel_maps)
        if run.learner.draws_samples and pixel_maps is None:
            export_sampler(estimator, staging / SAMPLER, recordings.samples[0])
        save_noise_model(noise_model, staging / NOISE_MODEL)
        _save_weights(staging / CHECKPOINT, estimator, run.options)
        write_losses(staging / LOSSES, [asdict(row) for row in run.losses])
        record = _record(run, recordings, parameter_count(estimator.network), seconds)
        facts = _facts(run, recordings, noise_model, record, parity)
        coverage = write_trust_record(
            staging / TRUST_REFERENCE,
            estimator,
            recordings.held_out,
            noise_model,
            context_frames=run.options.context_frames,
            seed=run.options.seed,
        )
        if run.noise_correlation is not None and run.noise_correlation.is_correlated:
            coverage = None  # its repeats have independent noise, which is not this camera's
        _write_report(staging / REPORT, estimator, recordings, facts, run, usefulness, coverage)
        manifest = seal(
            staging,
            Manifest(
                algorithm=run.options.algorithm,
                preset=run.options.preset,
                context_frames=run.options.context_frames,
                planes=run.options.planes,
                other_channels=run.options.other_channels,
                channel=channel,
                pixel_type=cast(PixelType, recordings.pixel_type),
                camera=belongs_to,
                noise_model=noise_model.source,
                training=record,
                better_than_trivial=usefulness.better_than_trivial,
                accepted=usefulness.better_than_trivial or accept,
                noise=noise,
                noise_is_removed=noise_is_removed,
                figures={
                    "parity_max_relative_error": parity,
                    "resident_frames": float(recordings.resident_frames),
                    "peak_rss_mb": peak_rss_mb(),
                    **usefulness.figures(),
                    **run.learner.posterior.figures(),
                    **({} if run.teacher is None else {"teacher_steps": run.teacher["steps"]}),
                },
            ),
        )
        _require_usable(staging, recordings.samples[0])
    return TrainingResult(
        bundle=Bundle(out, manifest),
        steps=run.step,
        seconds=run.schedule.elapsed,
        parameters=record.parameters,
        parity_max_relative_error=parity,
        validation_loss=record.validation_loss,
        frames=recordings.frames_read,
        resident_frames=recordings.resident_frames,
        peak_rss_mb=peak_rss_mb(),
        verdict=usefulness.sentence(),
    )


def _noise(run: Run) -> tuple[bool | None, str | None]:
    """Return whether the model can tell the noise from signal, and why, in a sentence."""
    if run.noise_correlation is None:
        return None, None
    blind = run.learner.target == "pixel"
    return judged(run.options.algorithm, run.noise_correlation, blind=blind)


def _save_weights(path: Path, estimator: Estimator, options: TrainingOptions) -> None:
    torch.save({"network": estimator.network.state_dict(), "options": options.record()}, path)


def _record(run: Run, recordings: Recordings, parameters: int, seconds: float) -> TrainingRecord:
    return TrainingRecord(
        stacks=recordings.provenance(),
        steps=run.step,
        seconds=seconds,
        seed=run.options.seed,
        parameters=parameters,
        validation_loss=run.losses[-1].validation_loss if run.losses else None,
        options={**run.options.record(), **_truths(recordings)},
    )


def _truths(recordings: Recordings) -> dict[str, str]:
    """Return from which clean frames the model has learned, if from any."""
    paths = ", ".join(str(truth.path) for truth in recordings.truths)
    return {"truths": paths} if paths else {}


def _facts(
    run: Run,
    recordings: Recordings,
    noise_model: GaussianMixtureNoiseModel,
    record: TrainingRecord,
    parity: float,
) -> dict[str, Any]:
    """Return what the report says of the run, name to value."""
    return {
        "algorithm": run.options.algorithm,
        "preset": run.options.preset,
        "context frames": run.options.context_frames,
        "planes on either side": run.options.planes,
        "noise model": noise_model.source,
        "steps": record.steps,
        "seconds": f"{record.seconds:.1f}",
        "parameters": record.parameters,
        "loss on held-out frames": record.validation_loss,
        "frames used": recordings.frames_read,
        "frames in memory at a time": recordings.resident_frames,
        "peak memory": f"{peak_rss_mb():.0f} MB",
        "difference of ONNX and PyTorch": f"{parity:.1e}",
        "trained on": ", ".join(str(stack.path) for stack in recordings.stacks),
        **_truths(recordings),
        **({} if run.teacher is None else {"steps of the teacher": run.teacher["steps"]}),
    }


def _require_usable(staging: Path, sample: Sample) -> None:
    """Open the bundle as whoever uses it will, and let it denoise one frame.

    Raises
    ------
    ExportError
        If it cannot be opened, or does not denoise.
    """
    try:
        bundle = open_bundle(staging)
        load_noise_model(staging / NOISE_MODEL)
        shape = sample.observations.shape[1:]
        maps = None if sample.pixel_maps is None else sample.pixel_maps[np.newaxis]
        out = np.empty((2, *shape), dtype=np.float32)
        with OnnxDenoiser(bundle, shape, provider="cpu", pixel_maps=maps) as denoiser:
            denoiser.denoise(sample.observations, out)
    except QuietscopeError as error:
        raise ExportError(
            f"the bundle was written and cannot be used: {error} (the checkpoint is kept, "
            "continue with --resume)"
        ) from error
    if not np.isfinite(out).all():
        raise ExportError(
            "the bundle was written and denoises a held-out frame to NaN or infinity; train "
            "again with a lower --learning-rate (the checkpoint is kept)"
        )


def _write_report(
    path: Path,
    estimator: Estimator,
    recordings: Recordings,
    facts: dict[str, Any],
    run: Run,
    usefulness: Usefulness,
    coverage: Mapping[str, float] | None,
) -> None:
    sample = recordings.samples[0]
    planes = sample.crop(*sample.observations.shape[1:])
    with torch.no_grad():
        denoised, uncertainty = (
            image[0, 0].numpy() for image in estimator(*map(torch.from_numpy, planes))
        )
    tile = PreviewTile(recordings.held_out)
    write_report(
        path,
        title=f"A {run.options.algorithm} model, trained",
        facts=facts,
        checks=_checks(usefulness, run, facts["noise model"]),
        usefulness=usefulness,
        losses=[asdict(row) for row in run.losses],
        frame=Preview(sample.observations[0], denoised, uncertainty),
        tile=tile.denoised_by(estimator, torch.device("cpu")),
        coverage=coverage,
    )


def _checks(usefulness: Usefulness, run: Run, noise_model: str) -> list[tuple[Light, str, str]]:
    """Return the verdict point by point."""
    useful: Light = "green" if usefulness.better_than_trivial else "red"
    known: Light = "green" if noise_model == "calibrated" else "amber"
    last = run.losses[-1].validation_loss if run.losses else float("nan")
    settled: Light = "green" if last <= run.best_score + OVERFITTED_NATS else "amber"
    clean, noise = _noise(run)
    shared: list[tuple[Light, str, str]] = (
        [] if noise is None else [("green" if clean else "red", "noise of neighbours", noise)]
    )
    return [
        (useful, "worth using", usefulness.sentence()),
        *shared,
        (
            known,
            "noise model",
            "calibrated with this camera"
            if noise_model == "calibrated"
            else "estimated from these recordings: calibrate the camera to be surer",
        ),
        (
            settled,
            "learning",
            "held-out frames were predicted best at the end"
            if settled == "green"
            else "held-out frames were predicted best before the end, and those weights were "
            "taken: more time brings nothing, more recordings may",
        ),
    ]


def _camera_of(
    camera: CameraFingerprint,
    noise_model: GaussianMixtureNoiseModel,
    pixel_maps: NDArray[np.float32] | None,
) -> CameraFingerprint:
    """Return the camera that the model belongs to, with the region whose pixels it knows."""
    if pixel_maps is None:
        return camera
    return camera.model_copy(update={"roi": noise_model.fingerprint.roi})
