"""Whether the stated uncertainty is right where it matters: error over what was stated, by place.

Owns the classes of pixels, by the truth: quarters of the brightness, the steepest percent, the
brightest thousandth. The mean over all pixels is that of the many dim and flat ones, and says
nothing of those that a person looks at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

STEEPEST, BRIGHTEST = 0.99, 0.999


@dataclass(eq=False)
class ConditionalZ:
    """Sums over frames of squared errors in units of what was stated, by class."""

    squares: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(
        self, error: NDArray[np.float64], variance: NDArray[np.float64], truth: NDArray[np.float64]
    ) -> None:
        """Take a frame: error, variance stated (and of the truth itself), truth, (Y, X) each."""
        usable = variance > 0
        squared = np.where(usable, error**2 / np.where(usable, variance, 1.0), 0.0)
        for name, where in _classes(truth).items():
            among = where & usable
            self.squares[name] = self.squares.get(name, 0.0) + float(squared[among].sum())
            self.counts[name] = self.counts.get(name, 0) + int(among.sum())

    def result(self) -> dict[str, float]:
        """Return the standard deviation by class; classes without a pixel are left out."""
        return {
            name: sqrt(self.squares[name] / count) for name, count in self.counts.items() if count
        }


def _classes(truth: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    quarters = np.quantile(truth, (0.25, 0.5, 0.75))
    quarter = np.searchsorted(quarters, truth)
    found = {f"brightness_quarter_{k + 1}": quarter == k for k in range(4)}
    if min(truth.shape) > 1:
        down, across = np.gradient(truth)
        slope = np.hypot(down, across)
        found["steepest_percent"] = (slope >= np.quantile(slope, STEEPEST)) & (slope > 0)
    found["brightest_thousandth"] = truth >= np.quantile(truth, BRIGHTEST)
    return found
