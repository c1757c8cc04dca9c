"""Wavelet shrinkage: small coefficients are noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import require_extra


def wavelet(image: NDArray[np.float32], strength: float) -> NDArray[Any]:
    """Shrink the coefficients as if the noise had standard deviation `strength`, with shifts.

    Chang et al. 2000, doi:10.1109/83.862633 (BayesShrink); averaged over shifts, which takes the
    artefacts of the grid away (Coifman & Donoho 1995, doi:10.1007/978-1-4612-2544-7_9).
    """
    from skimage.restoration import cycle_spin, denoise_wavelet

    # The library expects values up to 1.
    floor, span = float(image.min()), max(float(np.ptp(image)), 1.0)
    shrunk = cycle_spin(
        (image - floor) / span,
        func=denoise_wavelet,
        max_shifts=3,
        func_kw={"sigma": strength / span, "rescale_sigma": False, "wavelet": "db2"},
        workers=1,
    )
    return floor + span * np.asarray(shrunk)


def require_library() -> None:
    """Raise MissingExtraError if PyWavelets is not installed."""
    require_extra("classical", "wavelet")
