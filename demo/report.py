"""The demo's page: what a biologist would want to see of the run.

Owns the figures of `report.html`. The truth that it shows exists only because the specimen is a
simulation; the page says so.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..inference.bundle import LOSSES
from ..reporting.html_report import Light, Page
from ..storage.atomic_output import new_file
from ..storage.stack import open_stack

if TYPE_CHECKING:
    from ..acquisition.microscope.specimen import Specimen
    from ..calibration.checks import Check
    from ..calibration.fit_camera import Calibration

RAW, DENOISED, TRUE = "#9aa3b2", "#0b6bcb", "#d9480f"


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
    frame = _last_frame(run, specimen, first_index)
    page = Page(
        "What quietscope saw",
        "One run of the demo: Micro-Manager's demo camera, calibrated for real; in front of it a "
        "simulated specimen, because the demo camera has none that is noisy. Only a simulation "
        "has a true image to compare with.",
    )
    page.tiles(_headline(report))
    page.heading("The last frame")
    page.figure(
        _images(frame),
        "Raw, denoised and true image at the same contrast; below, the marked square enlarged.",
    )
    page.figure(
        _profile(frame),
        "Intensity along the dashed line. The denoised line should follow the true one, not the "
        "raw dots.",
    )
    page.heading("The camera")
    page.figure(
        _photon_transfer(calibration),
        "Photon transfer: how the camera's noise grows with light. The line is the model that "
        "denoising uses; its slope is the gain.",
    )
    page.checks([_check_line(check) for check in calibration.checks])
    page.heading("The training")
    page.figure(_losses(bundle / LOSSES), "Loss during training; lower is better.")
    page.heading("The live view")
    page.text(_accounting(report))
    page.figure(
        _latencies(report),
        "Time from the camera's hook to the denoised image, for the frames that were shown live.",
    )
    _add_window(page, path, frame, report)
    page.heading("The retraining")
    page.text(f"{report['retrain']['decision'].capitalize()}: {report['retrain']['reason']}.")
    page.write(path)


def write_demo_picture(path: Path, run: Path, specimen: Specimen, first_index: int) -> None:
    """Write one raw frame beside its denoised form as a PNG, at the same contrast."""
    frame = _last_frame(run, specimen, first_index)
    low, high = frame.limits
    figure = Figure(figsize=(10, 5.05), facecolor="#111418")
    axes = figure.subplots(
        1, 2, gridspec_kw={"wspace": 0.015, "left": 0, "right": 1, "top": 0.99, "bottom": 0}
    )
    for panel, name in zip(axes, ("raw", "denoised"), strict=True):
        panel.imshow(frame.views[name], cmap="gray", vmin=low, vmax=high, interpolation="lanczos")
        panel.axis("off")
        panel.text(
            0.02, 0.97, name, color="white", fontsize=15, va="top", transform=panel.transAxes
        )
    with new_file(path) as staging:
        figure.savefig(staging, format="png", dpi=110, facecolor=figure.get_facecolor())


def _last_frame(run: Path, specimen: Specimen, first_index: int) -> _Frame:
    raw = open_stack(run / "raw.ome.zarr")
    denoised = open_stack(run / "denoised.ome.zarr").channel(0)
    last = len(raw) - 1
    return _Frame(
        raw.frame(last),
        denoised.frame(last).astype(np.float64),
        specimen.truth(first_index + last).astype(np.float64),
    )


class _Frame:
    """Three views of one frame, and where to look."""

    def __init__(
        self, raw: NDArray[Any], denoised: NDArray[np.float64], true: NDArray[np.float64]
    ) -> None:
        self.raw_pixels = raw
        self.views = {"raw": raw.astype(np.float64), "denoised": denoised, "true": true}
        self.limits = (float(np.percentile(true, 1)) - 4, float(np.percentile(true, 99.8)) + 2)
        size = min(64, *true.shape)
        self.square = _busiest_square(true, size)

    @property
    def row(self) -> int:
        """The row of the profile: through the middle of the marked square."""
        top, _, size = self.square
        return top + size // 2


def _busiest_square(image: NDArray[np.float64], size: int) -> tuple[int, int, int]:
    from scipy.ndimage import uniform_filter

    activity = uniform_filter(np.hypot(*np.gradient(image)), size)
    half = size // 2
    inner = activity[half : activity.shape[0] - half + 1, half : activity.shape[1] - half + 1]
    top, left = np.unravel_index(int(np.argmax(inner)), inner.shape)
    return int(top), int(left), size


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


def _add_window(page: Page, path: Path, frame: _Frame, report: Mapping[str, Any]) -> None:
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


def _images(frame: _Frame) -> Figure:
    figure = Figure(figsize=(12, 8.2), layout="constrained")
    axes = figure.subplots(2, 3)
    top, left, size = frame.square
    low, high = frame.limits
    for column, (name, image) in enumerate(frame.views.items()):
        whole, detail = axes[:, column]
        whole.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        whole.set_title(name, fontsize=14)
        whole.add_patch(_square_patch(left, top, size))
        whole.axhline(frame.row, color="#ffd43b", lw=0.7, ls="--", alpha=0.7)
        part = image[top : top + size, left : left + size]
        detail.imshow(part, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        for panel in (whole, detail):
            panel.set_xticks([])
            panel.set_yticks([])
    return figure


def _square_patch(left: int, top: int, size: int) -> Any:
    from matplotlib.patches import Rectangle

    corner = (left - 0.5, top - 0.5)
    return Rectangle(corner, size, size, fill=False, edgecolor="#ffd43b", lw=1.2)


def _profile(frame: _Frame) -> Figure:
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    panel = figure.subplots()
    lines = {name: image[frame.row] for name, image in frame.views.items()}
    panel.plot(lines["raw"], ".", color=RAW, ms=4, label="raw")
    panel.plot(lines["true"], color=TRUE, lw=1.6, label="true")
    panel.plot(lines["denoised"], color=DENOISED, lw=1.6, label="denoised")
    panel.set(xlabel="x (pixels)", ylabel="signal (ADU)", xlim=(0, len(lines["raw"]) - 1))
    panel.legend(frameon=False, ncols=3, loc="upper right")
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def _photon_transfer(calibration: Calibration) -> Figure:
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    panel = figure.subplots()
    means = np.array([level.mean_adu for level in calibration.levels])
    variances = np.array([level.variance_adu2 for level in calibration.levels])
    signal = np.linspace(means.min(), means.max() * 1.02, 300)
    panel.plot(signal, calibration.noise_model.variance(signal), color=DENOISED, label="model")
    panel.plot(means, variances, "o", color=TRUE, label="measured light levels")
    panel.set(xlabel="mean signal (ADU)", ylabel="variance (ADU²)")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def _check_line(check: Check) -> tuple[Light, str, str]:
    light: Light = check.colour
    remark = "" if check.passed else f"; {check.advice}"
    name = check.name.replace("_", " ")
    return light, name, f"{check.value:.3g}, limit {check.limit:.3g}{remark}"


def _losses(path: Path) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panel = figure.subplots()
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for column, colour in (("loss", RAW), ("validation_loss", DENOISED)):
        points = [(float(r["step"]), float(r[column])) for r in rows if r.get(column)]
        if points:
            panel.plot(*zip(*points, strict=True), color=colour, label=column.replace("_", " "))
    panel.set(xlabel="step", ylabel="loss (nats per pixel)")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


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


def _latencies(report: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panel = figure.subplots()
    limits, counts = zip(*report["latency_histogram_ms"], strict=True)
    panel.hist(limits, bins=40, weights=counts, color=DENOISED)
    for name in ("p50", "p99"):
        panel.axvline(report["latency_ms"][name], color=TRUE, lw=1, ls="--")
        panel.annotate(
            name,
            (report["latency_ms"][name], 1),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(3, -12),
            color=TRUE,
        )
    panel.set(xlabel="latency (ms)", ylabel="frames")
    panel.spines[["top", "right"]].set_visible(False)
    return figure
