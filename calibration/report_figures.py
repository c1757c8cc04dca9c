"""The figures of a calibration's page.

Owns how they are drawn; what is said about them is in `report`. Needs matplotlib, which is loaded
when this module is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from .pixel_maps import PixelMaps
from .result import Calibration
from .sensor_figures import Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL, MEASURED, LAW = "#0b6bcb", "#d9480f", "#9aa3b2"


def photon_transfer_figure(calibration: Calibration) -> Figure:
    """Draw temporal variance against mean, and the deviation of model and law."""
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


def shapes_figure(calibration: Calibration) -> Figure:
    """Draw the form of the noise at three signals."""
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


def maps_figure(maps: PixelMaps) -> Figure:
    """Draw offset, noise and response of every pixel."""
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


def signal_to_noise_figure(calibration: Calibration, offset_adu: float) -> Figure:
    """Draw what a single pixel is worth at every light, beside an ideal camera."""
    law = calibration.photon_transfer
    gain = law.photoelectron_gain_adu_per_e
    full = (law.saturation_adu - offset_adu) / gain
    light = np.geomspace(0.3, full, 300)
    deviation = np.sqrt(calibration.noise_model.variance(offset_adu + gain * light)) / gain
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panel = figure.subplots()
    panel.plot(light, np.sqrt(light), "--", color=LAW, label="an ideal camera (photon noise)")
    panel.plot(light, light / deviation, color=MODEL, label="this camera")
    measured = (calibration.noise_model.signal_range_adu[1] - offset_adu) / gain
    if measured < full:
        panel.axvspan(measured, full, color=LAW, alpha=0.15, lw=0, label="not measured: the law")
    panel.axhline(1, color="k", lw=0.6)
    panel.set(xscale="log", yscale="log", xlabel="light on a pixel (photoelectrons)")
    panel.set(ylabel="signal over noise", xlim=(light[0], light[-1]))
    panel.legend(frameon=False, loc="upper left")
    _quiet(panel)
    return figure


def spectra_figure(dark: Spectrum | None, light: Spectrum | None) -> Figure:
    """Draw the spectra of what stands still: a comb of peaks is a pattern of lines."""
    shown = [
        (spectrum, title)
        for spectrum, title in (
            (dark, "mean picture without light (e⁻)"),
            (light, "response to light (%)"),
        )
        if spectrum is not None
    ]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(shown)))
    for panel, (spectrum, title) in zip(panels, shown, strict=True):
        unit = 100 if spectrum is light else 1
        along_x, along_y = unit * spectrum.along_x, unit * spectrum.along_y
        panel.plot(spectrum.cycles_per_pixel_x, along_x, color=MODEL, lw=1, label="along rows")
        panel.plot(
            spectrum.cycles_per_pixel_y, along_y, color=MEASURED, lw=1, label="along columns"
        )
        panel.set(title=title, xlabel="cycles per pixel", ylim=(0, None))
        panel.legend(frameon=False)
    panels[0].set_ylabel("standard deviation")
    _quiet(*panels)
    return figure


def _quiet(*panels: Axes) -> None:
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
