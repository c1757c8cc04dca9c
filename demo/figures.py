"""The figures of the demo's page, each drawn from what the run left on disk.

Owns how a frame, the camera, the training and the latencies are drawn. What stands around them on
the page is written in `report`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ..storage.atomic_output import new_file
from ..storage.open_stack import open_stack

if TYPE_CHECKING:
    from ..acquisition.microscope.specimen import Specimen
    from ..calibration.result import Calibration

RAW, DENOISED, TRUE = "#9aa3b2", "#0b6bcb", "#d9480f"


class FrameViews:
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


def last_frame(run: Path, specimen: Specimen, first_index: int) -> FrameViews:
    """Return the last frame of a run: raw, denoised and true."""
    raw = open_stack(run / "raw.ome.zarr")
    denoised = open_stack(run / "denoised.ome.zarr").channel(0)
    last = len(raw) - 1
    return FrameViews(
        raw.frame(last),
        denoised.frame(last).astype(np.float64),
        specimen.truth(first_index + last).astype(np.float64),
    )


def write_demo_picture(path: Path, run: Path, specimen: Specimen, first_index: int) -> None:
    """Write one raw frame beside its denoised form as a PNG, at the same contrast."""
    frame = last_frame(run, specimen, first_index)
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


def images(frame: FrameViews) -> Figure:
    """Draw the three views at one contrast, and the busiest square of each enlarged."""
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
    corner = (left - 0.5, top - 0.5)
    return Rectangle(corner, size, size, fill=False, edgecolor="#ffd43b", lw=1.2)


def profile(frame: FrameViews) -> Figure:
    """Draw the intensities along the row through the busiest square."""
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


def photon_transfer(calibration: Calibration) -> Figure:
    """Draw temporal variance against mean signal, measured and as the model has it."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    panel = figure.subplots()
    offset = calibration.photon_transfer.offset_adu or 0.0
    light = np.array([level.mean_adu for level in calibration.levels]) - offset
    variances = np.array([level.variance_adu2 for level in calibration.levels])
    shown = np.geomspace(max(light.min(), 1.0), light.max() * 1.1, 300)
    variance = calibration.noise_model.variance(shown + offset)
    panel.plot(shown, variance, color=DENOISED, label="model")
    panel.plot(light, variances, "o", color=TRUE, label="measured light levels")
    panel.set(xscale="log", yscale="log")
    panel.set(xlabel="light: mean signal above the offset (ADU)", ylabel="variance (ADU²)")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def losses(path: Path) -> Figure:
    """Draw the losses of a bundle's `losses.csv`."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panel = figure.subplots()
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    settled = []
    for column, colour in (("loss", RAW), ("validation_loss", DENOISED)):
        points = [(float(r["step"]), float(r[column])) for r in rows if r.get(column)]
        if points:
            panel.plot(*zip(*points, strict=True), color=colour, label=column.replace("_", " "))
            settled += [loss for _, loss in points[len(points) // 10 :]]
    if settled and min(settled) < max(settled):
        # The first steps start far above, and would press all that follows into one line.
        room = 0.1 * (max(settled) - min(settled))
        panel.set_ylim(min(settled) - room, max(settled) + room)
    panel.set(xlabel="step", ylabel="loss (nats per pixel)")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def latencies(report: Mapping[str, Any]) -> Figure:
    """Draw the histogram of the time from the hook to the denoised image, ms."""
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
