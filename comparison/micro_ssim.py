"""Structural similarity for microscopy, by its authors' library where it is installed.

Owns the call. SSIM was made for photographs: the offset of a camera and the few bright pixels of
a fluorescent image make it insensitive. MicroSSIM and its form on several scales take the offset
away and scale the estimate so that it serves the measure best (Ashesh et al. 2024,
arXiv:2408.08747).
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtraError, require_extra

EXTRA = "microssim"
LEAST_EDGE_PX = 176
"""Of a frame: smaller ones have no room for five scales of eleven pixels."""


def micro_ssim(image: NDArray[Any], truth: NDArray[Any]) -> dict[str, float | None]:
    """Return `micro_ssim` and `micro_ms3im` of an image (Y, X), each None where there is none."""
    nothing: dict[str, float | None] = {"micro_ssim": None, "micro_ms3im": None}
    if min(truth.shape) < LEAST_EDGE_PX:
        return nothing
    try:
        require_extra(EXTRA, "MicroSSIM")
    except MissingExtraError:
        return nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchmetrics, on packages that are not needed here
        library = importlib.import_module("microssim")
        pair = truth.astype(np.float64), image.astype(np.float64)
        return {
            "micro_ssim": float(library.micro_structural_similarity(*pair)),
            "micro_ms3im": float(library.micro_multiscale_structural_similarity(*pair)),
        }
