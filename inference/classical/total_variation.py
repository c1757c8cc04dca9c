"""Total variation: the image of least variation that is as near to the observation as asked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def total_variation(image: NDArray[np.float32], strength: float) -> NDArray[Any]:
    """Minimise ‖y − x‖² / (2·`strength`) + TV(y) (Rudin, Osher & Fatemi 1992).

    By Chambolle's algorithm (2004, doi:10.1023/B:JMIV.0000011325.36760.1e).
    """
    from skimage.restoration import denoise_tv_chambolle

    return np.asarray(denoise_tv_chambolle(image, weight=strength))
