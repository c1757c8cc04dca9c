"""Bilateral filter: neighbours count by their distance and by their likeness."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW_PX = 7
SPATIAL_PX = 1.5


def bilateral(image: NDArray[np.float32], strength: float) -> NDArray[Any]:
    """Return the weighted mean of neighbours; `strength` is the likeness in units of the noise.

    Tomasi & Manduchi 1998, doi:10.1109/ICCV.1998.710815.
    """
    from skimage.restoration import denoise_bilateral

    floor = np.float32(image.min())
    if image.max() <= floor:
        return image  # the library divides by the range
    smooth = denoise_bilateral(
        image - floor,
        win_size=WINDOW_PX,
        sigma_color=strength,
        sigma_spatial=SPATIAL_PX,
        mode="symmetric",  # else what lies beyond the frame counts as the darkest of its pixels
    )
    return np.asarray(smooth + floor)
