"""The brightness of a region over time: the camera's, the denoised one, and how sure that is.

Owns the averaging and its uncertainty. Knows no Qt; how it is drawn is in `plots`.

The uncertainty of a mean over pixels lies between two ends: errors that have nothing to do with
each other shrink with the root of the number of pixels, errors that all pixels share do not shrink
at all. A network's errors are shared among neighbours, by how far nobody measured, so the band is
the wide end: the mean of the pixels' own uncertainties.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mailbox import Picture

MOST_POINTS = 2000


@dataclass(frozen=True, slots=True)
class Region:
    """Rows and columns of the picture that is shown."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the region of `image` (Y, X)."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def within(self, shape: tuple[int, ...]) -> Region:
        """Return the part of it that lies inside an image of this shape; at least a pixel."""
        top = min(max(self.top, 0), shape[0] - 1)
        left = min(max(self.left, 0), shape[1] - 1)
        height = max(1, min(self.top + self.height, shape[0]) - top)
        return Region(top, left, height, max(1, min(self.left + self.width, shape[1]) - left))


@dataclass(frozen=True, slots=True)
class Moment:
    """The region's mean at one moment, ADU; NaN where there is none."""

    time_s: float
    raw: float
    denoised: float
    uncertainty: float


class RegionTrace:
    """The newest moments of one region."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._moments: deque[Moment] = deque(maxlen=MOST_POINTS)

    def add(self, picture: Picture, time_s: float) -> None:
        """Take a picture that was taken at `time_s`."""
        region = self.region.within(picture.raw.shape)

        def mean(image: NDArray[Any] | None) -> float:
            return float("nan") if image is None else float(region.of(image).mean())

        moment = Moment(
            time_s, mean(picture.raw), mean(picture.denoised), mean(picture.uncertainty)
        )
        self._moments.append(moment)

    def curves(self) -> NDArray[np.float64]:
        """Return (moments, 4): time in seconds, raw, denoised, uncertainty in ADU."""
        rows = [(m.time_s, m.raw, m.denoised, m.uncertainty) for m in self._moments]
        return np.array(rows, np.float64).reshape(-1, 4)
