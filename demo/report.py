"""The demo's page: what a biologist would want to see of the run.

Owns what the page says and in which order. The truth that it shows exists only because the
specimen is a simulation; the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inference.bundle import LOSSES
from ..reporting.html_report import Light, Page
from .figures import FrameViews, images, last_frame, latencies, losses, photon_transfer, profile

if TYPE_CHECKING:
    from ..acquisition.microscope.specimen import Specimen
    from ..calibration.checks import Check
    from ..calibration.result import Calibration


def write_demo_report(
    path: Path,
    report: Mapping[str, Any],
    run: Path,
    specimen: Specimen,
    first_index: int,
    *,
    bundle: Path,
    calibration: Calibration,
) -> None:
    """Write the page to `path`."""
    frame = last_frame(run, specimen, first_index)
    page = Page(
        "What quietscope saw",
        "One run of the demo: Micro-Manager's demo camera, calibrated for real; in front of it a "
        "simulated specimen, because the demo camera has none that is noisy. Only a simulation "
        "has a true image to compare with.",
    )
    page.tiles(_headline(report))
    page.heading("The last frame")
    page.figure(
        images(frame),
        "Raw, denoised and true image at the same contrast; below, the marked square enlarged.",
    )
    page.figure(
        profile(frame),
        "Intensity along the dashed line. The denoised line should follow the true one, not the "
        "raw dots.",
    )
    page.heading("The camera")
    page.figure(
        photon_transfer(calibration),
        "Photon transfer: how the camera's noise grows with light, from nearly none to nearly "
        "saturation. The line is the model that denoising uses: flat where reading the camera "
        "makes the noise, rising where the photons do.",
    )
    page.checks([_check_line(check) for check in calibration.checks])
    page.heading("The training")
    page.figure(
        losses(bundle / LOSSES),
        "Loss during training, on frames that are trained on and on frames held out; lower is "
        "better. The first steps lie above the axis.",
    )
    page.heading("The live view")
    page.text(_accounting(report))
    page.figure(
        latencies(report),
        "Time from the camera's hook to the denoised image, for the frames that were shown live.",
    )
    _add_window(page, path, frame, report)
    page.heading("The retraining")
    page.text(f"{report['retrain']['decision'].capitalize()}: {report['retrain']['reason']}.")
    page.write(path)


def _headline(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            f"{report['psnr_raw_db']:.1f} → {report['psnr_denoised_db']:.1f} dB",
            "PSNR, raw to live",
        ),
        (f"{report['frames_recorded']} of {report['frames_delivered']}", "raw frames recorded"),
        (f"{report['frames_denoised']}", "frames denoised"),
        (f"{report['latency_ms']['p50']:.0f} ms", "camera to clean image, median"),
        (f"{report['calibration']['gain_adu_per_e']:.3f} ADU/e⁻", "camera gain, measured"),
    ]


def _add_window(page: Page, path: Path, frame: FrameViews, report: Mapping[str, Any]) -> None:
    """Show the live window as it looked at the last frame, drawn without a screen."""
    from ..acquisition.preview.link import render_snapshot

    figures = {
        **(report["trust"] or {}),
        "frame_index": report["frames_recorded"] - 1,
        "frame_rate_hz": report["frame_rate_hz"],
        "latency_ms": report["latency_ms"]["p50"],
        "frames_recorded": report["frames_recorded"],
        "frames_denoised": report["frames_denoised"],
        "frames_skipped_live": report["frames_skipped_live"],
        "provider": report["provider"],
        "model": report["model_sha256"][:8],
        "simulated": True,
    }
    picture = path.with_name("window.png")
    snapshot = render_snapshot(
        frame.raw_pixels, frame.views["denoised"].astype(np.float32), figures, picture
    )
    if snapshot.path is None:
        page.text(f"The live window could not be drawn on this machine: {snapshot.reason}.")
        return
    page.picture(snapshot.path.read_bytes(), "The live window at the last frame.")


def _check_line(check: Check) -> tuple[Light, str, str]:
    return check.colour, check.name.replace("_", " "), check.says


def _accounting(report: Mapping[str, Any]) -> str:
    skipped = report["frames_skipped_live"]
    shown = report["frames_recorded"] - skipped
    later = (
        "None was skipped."
        if not skipped
        else f"{skipped} came too fast for the live view and were denoised from the raw recording "
        "afterwards."
    )
    return (
        f"The camera delivered {report['frames_delivered']} frames; every one is in "
        f"raw.ome.zarr. {shown} were denoised as they came, on {report['provider']}. {later}"
    )
