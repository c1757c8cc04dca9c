"""What a person looks at after training: losses and what the model makes of a frame.

Owns losses.csv and report.html, which holds its pictures inside.
"""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .preview import Preview

LARGEST_EDGE = 256


def write_losses(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the training curve as CSV: step, seconds, loss, validation_loss."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=("step", "seconds", "loss", "validation_loss"))
        writer.writeheader()
        writer.writerows(rows)


def write_report(
    path: Path,
    *,
    facts: Mapping[str, Any],
    losses: Sequence[Mapping[str, float]],
    frame: Preview,
    tile: Preview,
) -> None:
    """Write one HTML page with the facts, the losses, a held-out frame and a tile of one."""
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    path.write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Training report</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}}
th{{text-align:left;padding-right:2rem;font-weight:600}}img{{max-width:100%}}</style>
<h1>Training report</h1><table>{rows}</table>
<h2>A held-out frame</h2>{_image(_panels(frame), "raw, denoised, uncertainty")}
<h2>Pixel by pixel</h2>{_image(_panels(tile), "the same, a small tile of a held-out frame")}
<h2>Losses</h2>{_image(_curves(losses), "training and validation loss")}
</html>
""",
        encoding="utf-8",
    )


def _image(png: bytes, title: str) -> str:
    return f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _panels(preview: Preview) -> bytes:
    from matplotlib.figure import Figure

    middle = tuple(
        slice(max(0, edge // 2 - LARGEST_EDGE // 2), edge // 2 + LARGEST_EDGE // 2)
        for edge in preview.raw.shape
    )
    low, high = preview.range_adu()
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    panels = (
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
    return _png(figure)


def _curves(losses: Sequence[Mapping[str, float]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    steps = [row["step"] for row in losses]
    for name, label in (("loss", "training"), ("validation_loss", "held-out frames")):
        axes.plot(steps, [row[name] for row in losses], marker=".", label=label)
    axes.set(xlabel="step", ylabel="loss")
    settled = [row[name] for row in losses[1:] for name in ("loss", "validation_loss")]
    if len(settled) > 2 and np.ptp(settled) > 0:
        # The first steps are far above the rest and would press it flat.
        margin = 0.1 * np.ptp(settled)
        axes.set_ylim(min(settled) - margin, max(settled) + margin)
    axes.legend()
    return _png(figure)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
