"""From a finished run to its bundle: whole or not at all.

Owns what a bundle says about the run that made it. The graph is written by `export_onnx`, the
page by `report`; the bundle's form belongs to `inference.bundle`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...calibration.fingerprint import CameraFingerprint
from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_files import save_noise_model
from ...inference.bundle import (
    CHECKPOINT,
    LOSSES,
    MODEL,
    NOISE_MODEL,
    REPORT,
    Bundle,
    Manifest,
    PixelType,
    TrainingRecord,
    new_bundle,
    seal,
)
from ...inference.runtime.benchmark import peak_rss_mb
from ..data.recordings import Recordings
from ..model.estimator import Estimator
from ..model.posterior import GaussianPosterior, SampledPosterior
from ..model.unet import parameter_count
from ..run import Run, TrainingResult
from .export_onnx import export_graph
from .preview import Preview, PreviewTile
from .report import write_losses, write_report


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
    overwrite
        Replace what stands at `out`.

    Raises
    ------
    ExportError
        If the graph does not do what PyTorch does.
    OutputError
        If `out` exists or cannot be written.
    """
    options = run.options
    parameters = parameter_count(estimator.network)
    losses = [asdict(row) for row in run.losses]
    validation = run.losses[-1].validation_loss if run.losses else None
    with new_bundle(out, overwrite=overwrite) as staging:
        parity = export_graph(estimator, staging / MODEL, recordings.samples, pixel_maps)
        save_noise_model(noise_model, staging / NOISE_MODEL)
        torch.save(
            {"network": estimator.network.state_dict(), "options": options.record()},
            staging / CHECKPOINT,
        )
        write_losses(staging / LOSSES, losses)
        seconds, peak = run.schedule.elapsed, peak_rss_mb()
        facts = {
            "algorithm": options.algorithm,
            "preset": options.preset,
            "context frames": options.context_frames,
            "noise model": noise_model.source,
            "steps": run.step,
            "seconds": f"{seconds:.1f}",
            "parameters": parameters,
            "loss on held-out frames": validation,
            "frames used": recordings.frames_read,
            "frames in memory at a time": recordings.resident_frames,
            "peak memory": f"{peak:.0f} MB",
            "difference of ONNX and PyTorch": f"{parity:.1e}",
            "trained on": ", ".join(str(stack.path) for stack in recordings.stacks),
        }
        _write_report(staging / REPORT, estimator, recordings, facts, losses)
        manifest = seal(
            staging,
            Manifest(
                algorithm=options.algorithm,
                preset=options.preset,
                context_frames=options.context_frames,
                other_channels=options.other_channels,
                channel=channel,
                pixel_type=cast(PixelType, recordings.pixel_type),
                camera=_camera_of(camera or noise_model.fingerprint, noise_model, pixel_maps),
                noise_model=noise_model.source,
                training=TrainingRecord(
                    stacks=recordings.provenance(),
                    steps=run.step,
                    seconds=seconds,
                    seed=options.seed,
                    parameters=parameters,
                    validation_loss=validation,
                    options=options.record(),
                ),
                figures={
                    "parity_max_relative_error": parity,
                    "resident_frames": float(recordings.resident_frames),
                    "peak_rss_mb": peak,
                    **_variance_figures(run.learner.posterior),
                },
            ),
        )
    return TrainingResult(
        bundle=Bundle(out, manifest),
        steps=run.step,
        seconds=run.schedule.elapsed,
        parameters=parameters,
        parity_max_relative_error=parity,
        validation_loss=validation,
        frames=recordings.frames_read,
        resident_frames=recordings.resident_frames,
        peak_rss_mb=peak_rss_mb(),
    )


def _write_report(
    path: Path,
    estimator: Estimator,
    recordings: Recordings,
    facts: dict[str, Any],
    losses: list[dict[str, Any]],
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
        facts=facts,
        losses=losses,
        frame=Preview(sample.observations[0], denoised, uncertainty),
        tile=tile.denoised_by(estimator, torch.device("cpu")),
    )


def _camera_of(
    camera: CameraFingerprint,
    noise_model: GaussianMixtureNoiseModel,
    pixel_maps: NDArray[np.float32] | None,
) -> CameraFingerprint:
    """Return the camera that the model belongs to, with the region whose pixels it knows."""
    if pixel_maps is None:
        return camera
    return camera.model_copy(update={"roi": noise_model.fingerprint.roi})


def _variance_figures(
    posterior: GaussianPosterior | SampledPosterior,
) -> dict[str, float | None]:
    floor = {"variance_ratio_floor": float(posterior.ratio_floor)}
    if isinstance(posterior, SampledPosterior):
        return {"least_sample_spread": float(posterior.spread.min()), **floor}
    return {"variance_ratio_gain": float(posterior.ratio_gain), **floor}
