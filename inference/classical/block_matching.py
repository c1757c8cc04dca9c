"""BM3D: like patches are stacked and shrunk together."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import require_extra


def bm3d(image: NDArray[np.float32], strength: float) -> NDArray[Any]:
    """Filter as if the noise had standard deviation `strength`.

    Dabov et al. 2007, doi:10.1109/TIP.2007.901238; the authors' library, whose licence allows
    academic use only.
    """
    return np.asarray(importlib.import_module("bm3d").bm3d(image, sigma_psd=strength))


def require_library() -> None:
    """Raise MissingExtraError if the authors' library is not installed."""
    require_extra("bm3d", "bm3d")
