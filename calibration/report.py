"""The figure page of a calibration: what a person looks at before trusting it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..reporting.html_report import Page
from .straight_line import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .pixel_maps import PixelMaps
    from .result import Calibration

MODEL, MEASURED, LAW = "#0b6bcb", "#d9480f", "#9aa3b2"


def write_report(calibration: Calibration, path: Path) -> None:
    """Write the page to `path`."""
    model = calibration.noise_model
    failed = [check for check in calibration.checks if not check.passed]
    lead = (
        "All checks are good."
        if not failed
        else f"{len(failed)} of {len(calibration.checks)} checks want a look."
    )
    page = Page(f"Camera: {model.fingerprint.camera or 'not named'}", lead)
    page.tiles(_tiles(calibration))
    page.heading("Checks")
    page.checks(
        [(check.colour, check.name.replace("_", " "), check.says) for check in calibration.checks]
    )
    page.heading("Photon transfer")
    page.figure(
        _photon_transfer(calibration),
        "Temporal variance against mean. Dots are measured light levels, the line is the noise "
        "model with its range of ±3 %, dashed is the straight photon-transfer law. Below, the "
        "deviation of both from the measurement: dots should scatter around 0.",
    )
    page.heading("Shape of the noise")
    page.figure(
        _shapes(calibration),
        "Distribution of the observation around its signal, in standard deviations, at a dim, a "
        "middle and a bright level; dashed, a Gaussian of the same variance.",
    )
    page.table(
        ("noise model", "held-out negative log likelihood, nats per observation"),
        [
            (name.replace("_", " "), f"{value:.5f}")
            for name, value in calibration.held_out_nll.items()
        ],
    )
    if model.maps is not None:
        page.heading("Single pixels")
        page.figure(
            _maps(model.maps),
            "Offset and noise of every pixel without light, and its response to light. Columns, "
            "corners and single bright dots are the camera's own pattern.",
        )
    page.heading("Camera and setting")
    page.table(
        ("property", "value"),
        [
            (name.replace("_", " "), str(value))
            for name, value in model.fingerprint.model_dump().items()
            if value is not None
        ],
    )
    page.write(path)


def _tiles(calibration: Calibration) -> list[tuple[str, str]]:
    law = calibration.photon_transfer
    tiles = [(f"{law.gain_adu_per_e:.4g} ADU/e⁻", _with_range("gain", law.gain))]
    if law.excess_noise:
        tiles.append(("F² = 2", "excess noise of an electron-multiplying camera"))
    if law.offset is not None:
        tiles.append((f"{law.offset.value:.2f} ADU", _with_range("offset", law.offset)))
    if law.read_noise is not None:
        tiles.append((f"{law.read_noise.value:.3g} e⁻", _with_range("read noise", law.read_noise)))
    tiles.append((f"{law.saturation_adu:.0f} ADU", "saturation"))
    if law.dynamic_range:
        tiles.append((f"{20 * np.log10(law.dynamic_range):.1f} dB", "dynamic range"))
    return tiles


def _with_range(name: str, interval: Interval) -> str:
    return f"{name}, {interval.low:.4g} to {interval.high:.4g}"


def _photon_transfer(calibration: Calibration) -> Figure:
    from matplotlib.figure import Figure

    law, model = calibration.photon_transfer, calibration.noise_model
    means = np.array([level.mean_adu for level in calibration.levels])
    variances = np.array([level.variance_adu2 for level in calibration.levels])
    # On logarithmic axes the origin is the offset; without one, the dimmest level's neighbourhood.
    base = law.offset_adu if law.offset_adu is not None else min(means.min() - 1, 0.0)
    low = max(min(means.min() - base, 1e9), 0.05)
    light = np.geomspace(low * 0.7, (means.max() - base) * 1.4, 400)
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    found = model.variance(base + light)
    upper.fill_between(light, found * 0.97, found * 1.03, color=MODEL, alpha=0.18, lw=0)
    upper.plot(light, found, color=MODEL, label="noise model")
    upper.plot(light, law.variance(base + light), "--", color=LAW, label="photon-transfer law")
    upper.plot(means - base, variances, "o", ms=5, color=MEASURED, label="measured")
    if law.offset is not None:
        upper.axhline(law.dark_variance_adu2, color=LAW, lw=0.8, ls=":")
        upper.annotate(
            "without light",
            (light[0], law.dark_variance_adu2),
            xytext=(2, 4),
            textcoords="offset points",
            color="#5b6577",
            fontsize=9,
        )
    upper.set(xscale="log", yscale="log", ylabel="temporal variance (ADU²)")
    upper.legend(frameon=False, loc="upper left")
    shown = means - base
    lower.axhspan(-3, 3, color=MODEL, alpha=0.12, lw=0)
    lower.plot(shown, 100 * (model.variance(means) / variances - 1), "o", ms=4, color=MODEL)
    lower.plot(shown, 100 * (law.variance(means) / variances - 1), "x", ms=5, color=LAW)
    lower.axhline(0, color="k", lw=0.6)
    name = "mean above offset (ADU)" if law.offset is not None else "mean (ADU)"
    lower.set(ylabel="model − measured (%)", xlabel=name)
    _quiet(upper, lower)
    return figure


def _shapes(calibration: Calibration) -> Figure:
    from matplotlib.figure import Figure

    model = calibration.noise_model
    low, high = model.signal_range_adu
    chosen = [low + share * (high - low) for share in (0.01, 0.2, 0.9)]
    z = np.linspace(-5, 5, 401)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, signal in zip(panels, chosen, strict=True):
        weights, offsets, variances = model.components(np.array([signal]))
        sigma = float(np.sqrt(model.variance(signal)))
        x = z * sigma
        parts = (
            weights
            * sigma
            / np.sqrt(2 * np.pi * variances)
            * np.exp(-((x - offsets) ** 2) / (2 * variances))
        )
        panel.fill_between(z, parts.sum(axis=0), color=MODEL, alpha=0.25, lw=0)
        panel.plot(z, parts.sum(axis=0), color=MODEL)
        panel.plot(z, np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), "--", color=LAW)
        panel.set(title=f"{signal:.0f} ADU, σ = {sigma:.3g} ADU", xlabel="deviation (σ)")
    panels[0].set_ylabel("probability density")
    _quiet(*panels)
    return figure


def _maps(maps: PixelMaps) -> Figure:
    from matplotlib.figure import Figure

    shown = [("offset (ADU)", maps.offset_adu), ("noise without light (ADU)", maps.noise_adu)]
    if maps.response is not None:
        shown.append(("response to light", maps.response))
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(shown)))
    for panel, (name, values) in zip(panels, shown, strict=True):
        low, high = np.percentile(values, (0.5, 99.5))
        image = panel.imshow(values, vmin=low, vmax=max(high, low + 1e-9), cmap="viridis")
        panel.set(title=name, xticks=[], yticks=[])
        figure.colorbar(image, ax=panel, shrink=0.85)
    return figure


def _quiet(*panels: Axes) -> None:
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
