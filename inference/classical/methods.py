"""The filters by their names: what their strength means, and in which units they work.

Owns the list. Each filter lies in a module of its own; a new one is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InferenceError
from . import block_matching, wavelet
from .bilateral import bilateral
from .block_matching import bm3d
from .local_statistics import lee, lee_sigma, wiener
from .non_local_means import non_local_means
from .smoothing import gaussian, identity, mean, median
from .total_variation import total_variation

Filter = Callable[[NDArray[np.float32], float], NDArray[Any]]
Units = Literal["ADU", "stable", "noise"]


@dataclass(frozen=True, slots=True)
class Method:
    """A filter and how it is used.

    Attributes
    ----------
    filter
        Takes (Y, X) and the strength. One that works with the camera's `noise` takes its variance
        as well.
    strengths
        Those among which one is chosen from a noisy frame, in rising order; a single one is taken.
    strength_is
        What the strength means.
    units
        `ADU`: linear, so that it is unbiased as it is. `stable`: the noise is 1 everywhere.
        `noise`: in ADU, told the noise's variance at every signal.
    require
        Raises if the filter's library is not installed.
    """

    filter: Callable[..., NDArray[Any]]
    strengths: tuple[float, ...]
    strength_is: str
    units: Units = "stable"
    require: Callable[[], None] = lambda: None


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "identity": Method(identity, (0.0,), "without meaning", "ADU"),
        "mean": Method(mean, (2.0, 2.5, 3.0, 4.0, 5.0, 7.0), "edge of the square, px", "ADU"),
        "gaussian": Method(
            gaussian, (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.7), "σ of the Gaussian, px", "ADU"
        ),
        "median": Method(median, (1.0, 1.5, 2.0, 2.5, 3.0), "radius of the disc, px"),
        "bilateral": Method(bilateral, (2.0, 3.0, 4.0, 6.0, 9.0), "likeness, σ of the noise"),
        "wiener": Method(wiener, (3.0, 5.0, 7.0, 9.0, 13.0), "edge of the window, px"),
        "lee": Method(lee, (3.0, 5.0, 7.0, 9.0, 13.0), "edge of the window, px", "noise"),
        "lee-sigma": Method(lee_sigma, (1.5, 2.0, 2.5, 3.0, 4.0), "likeness, σ of the noise"),
        "wavelet": Method(
            wavelet.wavelet,
            (0.7, 0.85, 1.0, 1.2, 1.5),
            "σ of the noise that is taken away",
            require=wavelet.require_library,
        ),
        "non-local-means": Method(
            non_local_means, (0.4, 0.55, 0.7, 0.85, 1.0, 1.2), "likeness, σ of the noise"
        ),
        "total-variation": Method(
            total_variation, (0.6, 0.9, 1.2, 1.5, 2.0, 2.7), "weight of the variation"
        ),
        # The noise is known here, and one run takes seconds: nothing is tried.
        "bm3d": Method(
            bm3d,
            (1.0,),
            "σ of the noise that is taken away",
            require=block_matching.require_library,
        ),
    }
)


def method_named(name: str) -> Method:
    """Return a method.

    Raises
    ------
    InferenceError
        If there is none of this name.
    MissingExtraError
        If its library is not installed.
    """
    if name not in METHODS:
        raise InferenceError(f"method is {name!r}, expected one of {', '.join(METHODS)}")
    METHODS[name].require()
    return METHODS[name]
