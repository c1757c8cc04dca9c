"""Along which axis noise is correlated, and how far: the mask that structN2V needs.

Owns the measurement on ordinary recordings. Nothing is masked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .footage import Footage
from .options import MaskAxis

LAGS = 8
FRAMES = 24
LEAST_CORRELATION = 0.02


@dataclass(frozen=True, slots=True)
class NoiseCorrelation:
    """The autocorrelation of the noise.

    Attributes
    ----------
    y, x
        Correlation at lags 1 to LAGS along each axis.
    """

    y: tuple[float, ...]
    x: tuple[float, ...]

    def axis(self) -> MaskAxis:
        """Return the axis along which noise is correlated more."""
        return "y" if abs(self.y[0]) > abs(self.x[0]) else "x"

    def span(self) -> int:
        """Return the last lag up to which the correlation matters; 0 for white noise."""
        values = np.abs(self.y if self.axis() == "y" else self.x)
        below = np.flatnonzero(values < LEAST_CORRELATION)
        return int(below[0]) if below.size else LAGS


def noise_correlation(footage: Sequence[Footage]) -> NoiseCorrelation:
    """Measure the correlation on what differs from frame to frame, or from pixel to pixel.

    Differences of successive frames hold noise and what moves; of what moves, the median over
    frames keeps little. A single frame is compared with its own local mean, across the other axis,
    so that a smooth scene cancels.
    """
    along_y, along_x = [], []
    for part in footage:
        rows = np.linspace(0, len(part.pixels) - 1, min(FRAMES, len(part.pixels))).astype(int)
        for row in rows:
            frame = part.pixels[row].astype(np.float64)
            if row > 0:
                noise = frame - part.pixels[row - 1]
                along_y.append(_autocorrelation(noise))
                along_x.append(_autocorrelation(noise.T))
            elif len(part.pixels) == 1:
                along_y.append(_autocorrelation(np.diff(frame, axis=1)))
                along_x.append(_autocorrelation(np.diff(frame, axis=0).T))
    return NoiseCorrelation(
        y=tuple(np.median(along_y, axis=0).tolist()), x=tuple(np.median(along_x, axis=0).tolist())
    )


def _autocorrelation(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    noise = noise - noise.mean()
    power = (noise**2).mean()
    if power == 0:
        return np.zeros(LAGS)
    return np.array([(noise[lag:] * noise[:-lag]).mean() / power for lag in range(1, LAGS + 1)])
