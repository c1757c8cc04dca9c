"""Non-local means: pixels count by the likeness of the patches around them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PATCH_PX = 5
DISTANCE_PX = 6


def non_local_means(image: NDArray[np.float32], strength: float) -> NDArray[Any]:
    """Return the mean of like pixels; `strength` is the likeness in units of the noise.

    Buades et al. 2005, doi:10.1109/CVPR.2005.38.
    """
    from skimage.restoration import denoise_nl_means

    return np.asarray(
        denoise_nl_means(
            image,
            patch_size=PATCH_PX,
            patch_distance=DISTANCE_PX,
            h=strength,
            sigma=1.0,
            fast_mode=True,
        )
    )
