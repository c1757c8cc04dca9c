"""What a person looks at after training: a verdict, the picture before and after, the losses.

Owns losses.csv and what report.html says; how pages look is `reporting`'s.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...inference.evaluation.coverage import draw_coverage, in_words
from ...reporting.html_report import Light, Page
from .preview import Preview
from .usefulness import Usefulness, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_EDGE = 256
"""Pixels of a frame that are shown: a larger piece would be shrunk, and shrinking denoises."""
SETTLED_AFTER = 0.2
"""Share of the run after which losses decide the axis: the first would press it flat."""
COLOURS = {"loss": "#7a8699", "validation_loss": "#0b6bcb"}


def write_losses(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the training curve as CSV: step, seconds, loss, validation_loss."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=("step", "seconds", "loss", "validation_loss"))
        writer.writeheader()
        writer.writerows(rows)


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    checks: Sequence[tuple[Light, str, str]],
    usefulness: Usefulness,
    losses: Sequence[Mapping[str, float]],
    frame: Preview,
    tile: Preview,
    coverage: Mapping[str, float] | None = None,
) -> None:
    """Write one HTML page.

    Parameters
    ----------
    path
        Of the page.
    title
        What was trained.
    facts
        Of the run, name to value.
    checks
        The verdict point by point.
    usefulness
        Against the frames as they were and a blur.
    losses
        Rows of losses.csv.
    frame, tile
        A held-out frame, and a small piece of one.
    coverage
        Of its uncertainty, see `Coverage`; None where it is not known.
    """
    page = Page(title, f"In one sentence: {usefulness.sentence()}.")
    page.tiles(_headline(usefulness, facts))
    page.checks(checks)
    page.heading("Before and after")
    page.figure(
        _panels(frame),
        "The middle of a frame that was not trained on: as the camera gave it, as the model sees "
        "it, at the same contrast; and how sure the model says that it is of each pixel.",
    )
    page.figure(
        _panels(tile),
        "The same pixel by pixel, where the frames hold most structure. Nothing may be there on "
        "the right that the left does not at least hint at.",
    )
    page.heading("Against what needs no training")
    page.text(
        "Squared error against the noise-free signal, estimated without knowing it: the noise of "
        "each frame is split in two, all are given one part and compared with the other."
    )
    page.table(("", "squared error", "below the raw frames"), _rows(usefulness))
    if coverage is not None:
        page.heading("How sure it is, stated and found")
        page.figure(
            draw_coverage({"this model": coverage}),
            "Its own pictures of held-out frames, given new noise of this camera and denoised "
            f"again: {in_words(coverage)}. On the line the stated uncertainty is honest; below "
            "it is too small. What a model never shows of real frames is not counted here: "
            "repeats of a scene at rest tell it (quietscope evaluate --static).",
        )
    page.heading("How it learned")
    page.figure(
        _curves(losses),
        "Loss during training; lower is better. The axis leaves out the first fifth of the run. "
        "Where the held-out frames rise while the others fall, the network learns by heart: "
        "record more, or train for a shorter time.",
    )
    page.heading("The run")
    page.table(("", ""), [(name, str(value)) for name, value in facts.items()])
    page.write(path)


def _headline(usefulness: Usefulness, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (_below(usefulness.model, usefulness.input), "squared error below the raw frames"),
        (_below(usefulness.model, usefulness.blur), "below the best Gaussian blur"),
        (f"{facts['steps']}", "steps"),
        (f"{facts['seconds']} s", "until the last step"),
    ]


def _rows(usefulness: Usefulness) -> list[tuple[str, str, str]]:
    named = [
        ("raw frames", usefulness.input),
        (f"Gaussian blur, {usefulness.blur_sigma_px:g} px", usefulness.blur),
        ("this model", usefulness.model),
    ]
    if usefulness.running_mean is not None:
        named.insert(2, ("mean of the same frames, blurred", usefulness.running_mean))
    if usefulness.general is not None:
        named.insert(-1, ("general model, without any training", usefulness.general))
    return [(name, shown(value), _below(value, usefulness.input)) for name, value in named]


def _below(error: float, of: float) -> str:
    # An estimate of a small error can fall below zero by chance.
    if error <= 0 or of <= 0:
        return "less" if error < of else "not less"
    return f"{10 * np.log10(of / error):.1f} dB"


def _panels(preview: Preview) -> Figure:
    from matplotlib.figure import Figure

    middle = tuple(
        slice(max(0, edge // 2 - LARGEST_EDGE // 2), edge // 2 + LARGEST_EDGE // 2)
        for edge in preview.raw.shape
    )
    low, high = preview.range_adu()
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panels: tuple[tuple[str, NDArray[Any], float, float | None, str], ...] = (
        ("raw", preview.raw, low, high, "gray"),
        ("denoised", preview.denoised, low, high, "gray"),
        ("uncertainty (ADU)", preview.uncertainty, 0, None, "magma"),
    )
    for axes, (title, image, least, most, colours) in zip(
        figure.subplots(1, 3), panels, strict=True
    ):
        shown = axes.imshow(
            image[middle], vmin=least, vmax=most, cmap=colours, interpolation="nearest"
        )
        axes.set(title=title, xticks=[], yticks=[])
        figure.colorbar(shown, ax=axes, shrink=0.8)
    return figure


def _curves(losses: Sequence[Mapping[str, float]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    steps = [row["step"] for row in losses]
    for name, label in (("loss", "patches"), ("validation_loss", "held-out frames")):
        axes.plot(
            steps, [row[name] for row in losses], marker=".", label=label, color=COLOURS[name]
        )
    axes.set(xlabel="step", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    _show_settled(axes, losses)
    if losses:
        axes.legend(frameon=False)
    return figure


def _show_settled(axes: Axes, losses: Sequence[Mapping[str, float]]) -> None:
    begun = SETTLED_AFTER * losses[-1]["step"] if losses else 0
    settled = np.array([(r["loss"], r["validation_loss"]) for r in losses if r["step"] > begun])
    settled = settled[np.isfinite(settled)]
    if settled.size > 2 and np.ptp(settled) > 0:
        margin = 0.1 * np.ptp(settled)
        axes.set_ylim(settled.min() - margin, settled.max() + margin)
