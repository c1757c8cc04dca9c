"""Where a denoised frame is wrong, as microscopists look at it.

Owns one figure: the images, the map of structural similarity and the map of root-squared error
side by side, on scales that are the same for raw and denoised. Computes no score of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..outputs import new_file
from .scores import psnr_db, ssim_map


def draw_error_maps(
    path: Path,
    *,
    raw: NDArray[np.float64],
    denoised: NDArray[np.float64],
    truth: NDArray[np.float64],
    title: str,
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

    Notes
    -----
    SSIM shows lost or invented structure, the root-squared error |image − truth| also errors of
    intensity; neither shows what the other does.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.2), layout="constrained")
    axes = figure.subplots(2, 4)
    low, high = np.percentile(truth, (0.5, 99.5))
    worst = float(np.percentile(np.abs(raw - truth), 99))
    for row, (name, image) in enumerate((("raw", raw), ("denoised", denoised))):
        similarity, local = ssim_map(image, truth)
        error = np.abs(image - truth)
        _image(figure, axes[row, 0], truth, "truth, ADU", "gray", low, high)
        _image(
            figure,
            axes[row, 1],
            image,
            f"{name}, ADU (PSNR {psnr_db(image, truth):.2f} dB)",
            "gray",
            low,
            high,
        )
        _image(figure, axes[row, 2], local, f"SSIM of {name}: {similarity:.3f}", "viridis", 0, 1)
        _image(figure, axes[row, 3], error, f"|{name} − truth|, ADU", "magma", 0, worst)
    figure.suptitle(title)
    with new_file(path) as staging:
        figure.savefig(staging, format="png", dpi=110)


def _image(
    figure: Any, axes: Any, image: NDArray[Any], title: str, colours: str, low: float, high: float
) -> None:
    shown = axes.imshow(image, cmap=colours, vmin=low, vmax=max(high, low + 1e-9))
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, fraction=0.046)
