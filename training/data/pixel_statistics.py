"""What a recording's pixels are like, learned frame by frame: nothing but sums is kept.

Owns the running extremes, moments and hash of one stack. What they have to be is decided in
`recordings`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PixelStatistics:
    """Extremes, mean, variance and hash of the frames that were added, in their order.

    Attributes
    ----------
    frames, pixels
        How many there were.
    low_adu, high_adu
        Extremes.
    at_high
        How many pixels are as bright as the brightest.
    mean_adu
        Mean.
    """

    def __init__(self) -> None:
        self.frames = self.pixels = self.at_high = 0
        self.low_adu, self.high_adu, self.mean_adu = np.inf, -np.inf, 0.0
        self._squares = 0.0
        self._hash = hashlib.sha256()

    @property
    def variance_adu2(self) -> float:
        """Variance, ADU²."""
        return self._squares / self.pixels

    @property
    def sha256(self) -> str:
        """Hash of all pixels."""
        return self._hash.hexdigest()

    def add(self, frame: NDArray[Any]) -> None:
        """Take in a frame (Y, X)."""
        self.frames += 1
        self._hash.update(np.ascontiguousarray(frame).data)
        low, high = float(frame.min()), float(frame.max())
        values = frame.astype(np.float64).ravel()
        mean = float(values.mean())
        values -= mean
        self._pool(low, high, values.size, mean, float(values @ values))
        if high == self.high_adu:
            self.at_high += int((frame == frame.max()).sum())

    def pooled_with(self, other: PixelStatistics) -> PixelStatistics:
        """Return extremes and moments of both; their hashes stay their own."""
        both = PixelStatistics()
        for part in (self, other):
            if part.pixels:
                both._pool(part.low_adu, part.high_adu, part.pixels, part.mean_adu, part._squares)
                both.at_high += part.at_high if part.high_adu == both.high_adu else 0
                both.frames += part.frames
        return both

    def _pool(self, low: float, high: float, count: int, mean: float, squares: float) -> None:
        # Sums of squared deviations, each about its own mean (Chan et al. 1979): squares of
        # absolute values would lose the digits that a dim image on a high offset lives on.
        self.low_adu = min(self.low_adu, low)
        if high > self.high_adu:
            self.high_adu, self.at_high = high, 0
        total = self.pixels + count
        apart = mean - self.mean_adu
        self._squares += squares + apart**2 * self.pixels * count / total
        self.mean_adu += apart * count / total
        self.pixels = total
