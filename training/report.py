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
from numpy.typing import NDArray

PREVIEW_EDGE = 256


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
    raw: NDArray[Any],
    denoised: NDArray[np.float32],
    uncertainty: NDArray[np.float32],
) -> None:
    """Write one HTML page with the facts, the losses and a preview (Y, X) of each image."""
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    preview = _preview(raw, denoised, uncertainty)
    path.write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Training report</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}}
th{{text-align:left;padding-right:2rem;font-weight:600}}img{{max-width:100%}}</style>
<h1>Training report</h1><table>{rows}</table>
<h2>A held-out frame</h2>{_image(preview, "raw, denoised, uncertainty")}
<h2>Losses</h2>{_image(_curves(losses), "training and validation loss")}
</html>
""",
        encoding="utf-8",
    )


def _image(png: bytes, title: str) -> str:
    return f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _preview(
    raw: NDArray[Any], denoised: NDArray[np.float32], uncertainty: NDArray[np.float32]
) -> bytes:
    from matplotlib.figure import Figure

    middle = tuple(
        slice(max(0, edge // 2 - PREVIEW_EDGE // 2), edge // 2 + PREVIEW_EDGE // 2)
        for edge in raw.shape
    )
    low, high = np.percentile(denoised[middle], (0.5, 99.8))
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    panels = (
        ("raw", raw, low, high, "gray"),
        ("denoised", denoised, low, high, "gray"),
        ("uncertainty (ADU)", uncertainty, 0, None, "magma"),
    )
    for axes, (title, image, least, most, colours) in zip(
        figure.subplots(1, 3), panels, strict=True
    ):
        shown = axes.imshow(image[middle], vmin=least, vmax=most, cmap=colours)
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
    axes.legend()
    return _png(figure)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
