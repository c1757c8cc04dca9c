"""Where a denoised frame is wrong, as microscopists look at it.

Owns one figure: the images, the map of structural similarity and the map of root-squared error
side by side, on scales that are the same for raw and denoised, and what was removed. Computes no
score of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.atomic_output import new_file
from ...storage.output_kinds import Kind
from ..trust.local_evidence import Place
from .metrics import psnr_db, ssim_gaussian_map

SHOWN_PX = 512
"""Edge of the largest part that is drawn."""


def draw_error_maps(
    path: Path,
    *,
    raw: NDArray[np.float64],
    denoised: NDArray[np.float64],
    truth: NDArray[np.float64],
    title: str,
    places: Sequence[Place] = (),
) -> None:
    """Write the figure of one frame to `path` (PNG).

    Parameters
    ----------
    path
        Replaced if it exists.
    raw, denoised, truth
        (Y, X) ADU.
    title
        Above the figure.
    places
        Circled in the denoised image: orange where something was removed, blue where it says more
        than the camera's.

    Notes
    -----
    SSIM (Gaussian window of 11 pixels) shows lost or invented structure, the root-squared error
    |image − truth| also errors of intensity; neither shows what the other does. What was removed
    has to look like noise: structure in it was lost. Of frames larger than `SHOWN_PX` only the
    part with the largest error is drawn: made smaller, every image would look less noisy than it
    is.
    """
    from matplotlib.figure import Figure

    part = worst_part(np.abs(denoised - truth))
    figure = Figure(figsize=(15, 7.6), layout="constrained")
    axes = figure.subplots(2, 4)
    grey = ("gray", *np.percentile(truth[part], (0.5, 99.5)))
    worst = float(np.percentile(np.abs(raw - truth)[part], 99))
    removed = float(np.percentile(np.abs(raw - denoised)[part], 99))
    _image(figure, axes[0, 0], truth[part], "truth, ADU", *grey)
    _image(
        figure,
        axes[1, 0],
        (raw - denoised)[part],
        "removed: raw − denoised, ADU",
        "RdBu_r",
        -removed,
        removed,
    )
    for row, (name, image) in enumerate((("raw", raw), ("denoised", denoised))):
        similarity, local = ssim_gaussian_map(image, truth)
        scored = f"{name}, ADU (PSNR {psnr_db(image, truth):.2f} dB)"
        _image(figure, axes[row, 1], image[part], scored, *grey)
        if name == "denoised":
            _circle(axes[row, 1], places, part)
        _image(
            figure, axes[row, 2], local[part], f"SSIM of {name}: {similarity:.3f}", "viridis", 0, 1
        )
        error = np.abs(image - truth)[part]
        title_of_error = f"root-squared error of {name}, ADU"
        _image(figure, axes[row, 3], error, title_of_error, "magma", 0, worst)
    figure.suptitle(title + _place(part, truth.shape))
    with new_file(path, kind=Kind.FIGURE) as staging:
        figure.savefig(staging, format="png", dpi=110)


def _circle(axes: Any, places: Sequence[Place], part: tuple[slice, slice]) -> None:
    """Circle places within a part of the frame."""
    inside = [p for p in places if _within(p.y, part[0]) and _within(p.x, part[1])]
    for place in inside:
        axes.plot(
            place.x - part[1].start,
            place.y - part[0].start,
            "o" if place.strength > 0 else "s",
            mec="tab:orange" if place.strength > 0 else "tab:blue",
            mfc="none",
            ms=9,
        )


def _within(value: int, part: slice) -> bool:
    return bool(part.start <= value < part.stop)


def worst_part(error: NDArray[np.float64]) -> tuple[slice, slice]:
    """Return the part of a frame, `SHOWN_PX` at most, in which the mean error is largest."""
    last = [max(0, size - SHOWN_PX) for size in error.shape]
    starts = [[*range(0, end, SHOWN_PX // 2), end] for end in last]
    parts = [
        (slice(row, row + SHOWN_PX), slice(column, column + SHOWN_PX))
        for row in starts[0]
        for column in starts[1]
    ]
    return max(parts, key=lambda part: float(error[part].mean()))


def _place(part: tuple[slice, slice], shape: tuple[int, ...]) -> str:
    if max(shape) <= SHOWN_PX:
        return ""
    return (
        f": the part with the largest error, x = {part[1].start}, y = {part[0].start} "
        "(scores of the whole frame)"
    )


def _image(
    figure: Any, axes: Any, image: NDArray[Any], title: str, colours: str, low: float, high: float
) -> None:
    shown = axes.imshow(
        image, cmap=colours, vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest"
    )
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, fraction=0.046)
