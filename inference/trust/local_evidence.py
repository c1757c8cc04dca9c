"""Where in a frame something was lost, or invented: residuals filtered at the sizes of structure.

Owns the filters, their normalisation, the sum over frames at the same place, and the places that
stand out. What counts as standing out is told by `null`: a scan statistic, the largest of many
filtered residuals, has to be judged by the number of places looked at (Siegmund & Worsley 1995,
doi:10.1214/aos/1176324529).

A loss in a frame is a positive residual as wide as what was lost; an average over the frame does
not see it, a filter of its width does. The filters are Gaussians of 1.2, 2.4 and 4.8 pixels: the
width of a point spread sampled by the camera, and twice and four times of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .residuals import Image, halved

FILTER_PX = 1.2
"""On each grid; the coarser grids are halved ones."""
SCALES = 3
MARGIN = 4
"""Pixels of each grid along the border that are not judged: a filter that reaches beyond it sees
less, and so does the model."""
TILE_PX = 64
"""Extremes are gathered by squares of this edge, so that frames of any size can be compared."""
MEMORY = 0.93
"""What the sum over frames keeps of itself: it looks back over about twenty-five frames."""
MOST_PLACES = 60
PLACE_RADIUS_PX = 5


def _white_spread() -> float:
    """Return the standard deviation that the filter leaves of white noise of 1."""
    point = np.zeros((31, 31))
    point[15, 15] = 1.0
    return float(np.sqrt((smooth(point) ** 2).sum()))


def smooth(image: NDArray[Any]) -> NDArray[Any]:
    """Blur by a Gaussian of `FILTER_PX`."""
    smoothed: NDArray[Any] = gaussian_filter(image, FILTER_PX, mode="nearest", truncate=2.5)
    return smoothed


_WHITE = _white_spread()


def filtered(standard: Image) -> list[Image]:
    """Return the standardised residual at every scale, in units of what white noise would leave.

    Grids of full, half and a quarter of the resolution; those without a pixel are left out.
    """
    maps, grid, spread = [], standard, _WHITE
    for _ in range(SCALES):
        if min(grid.shape) < 4 * MARGIN:
            break
        smoothed = np.asarray(smooth(grid), np.float32) / np.float32(spread)
        inner = np.zeros_like(smoothed)
        inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = smoothed[MARGIN:-MARGIN, MARGIN:-MARGIN]
        maps.append(inner)
        grid, spread = halved(grid), spread / 2
    return maps


def tile_extremes(image: Image, scale: int) -> NDArray[np.float64]:
    """Return the largest values of `image` and of its negative in every tile, (2, tiles).

    What is left beyond whole tiles is left out, of a frame smaller than a tile nothing.
    """
    edge = TILE_PX >> scale
    rows, columns = (max(1, size // edge) for size in image.shape)
    part = image[: rows * edge, : columns * edge]
    if part.shape != (rows * edge, columns * edge):
        return np.array([[image.max()], [-image.min()]], np.float64)
    tiles = part.reshape(rows, edge, columns, edge)
    return np.stack([tiles.max(axis=(1, 3)).ravel(), -tiles.min(axis=(1, 3)).ravel()]).astype(
        np.float64
    )


class Standing:
    """The same places over the last frames: an exponentially weighted sum, in units of its noise.

    The noise of one frame says nothing of the next one's, so that it grows by the root of the
    number of frames while a standing loss grows with the number. What moves is not at one place,
    and does not add up.
    """

    def __init__(self) -> None:
        self._sums: list[Image] = []
        self._variance = 0.0
        self._weight = 0.0
        self.frames = 0

    def add(self, maps: Sequence[Image]) -> list[Image]:
        """Take the maps of the next frame, each of unit noise; return the sums, of unit noise."""
        if [m.shape for m in maps] != [s.shape for s in self._sums]:
            self._sums = [np.zeros_like(m) for m in maps]
            self._variance, self._weight, self.frames = 0.0, 0.0, 0
        for total, now in zip(self._sums, maps, strict=True):
            total *= np.float32(MEMORY)
            total += now
        self._variance = MEMORY**2 * self._variance + 1
        self._weight = MEMORY * self._weight + 1
        self.frames += 1
        return [total / np.float32(np.sqrt(self._variance)) for total in self._sums]

    @property
    def gain(self) -> float:
        """By how much a standing loss stands out more than in a single frame."""
        return self._weight / np.sqrt(self._variance) if self._variance else 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere that the picture and the camera's image do not agree.

    Attributes
    ----------
    y, x
        Pixel of the frame.
    radius_px
        How wide the filter is that found it.
    strength
        In standard deviations of what camera noise leaves there; positive where something was
        removed, negative where the picture says more than the data.
    """

    y: int
    x: int
    radius_px: float
    strength: float

    def result(self) -> list[float]:
        """Return it as reports and the preview take it: y, x, radius, strength."""
        return [self.y, self.x, round(self.radius_px, 1), round(self.strength, 1)]


def places_beyond(maps: Sequence[Image], limits: NDArray[np.float64], *, sign: int) -> list[Place]:
    """Return the places at which a map goes beyond its limit, the strongest first.

    Of several within a few pixels, in the same or another map, the strongest stands for all.
    `limits` is (SCALES,) of one sign.
    """
    found: list[tuple[float, int, int, int]] = []
    for scale, (image, limit) in enumerate(zip(maps, limits, strict=False)):
        rows, columns = np.nonzero(sign * image > limit)
        values = sign * image[rows, columns]
        strongest = np.argsort(values)[::-1][: 40 * MOST_PLACES]
        middle = (1 << scale) // 2
        found += [
            (
                float(values[i]),
                (int(rows[i]) << scale) + middle,
                (int(columns[i]) << scale) + middle,
                scale,
            )
            for i in strongest
        ]
    found.sort(reverse=True)
    taken: list[Place] = []
    for value, y, x, scale in found:
        apart = PLACE_RADIUS_PX * (1 << scale)
        if all(abs(p.y - y) + abs(p.x - x) > apart for p in taken):
            taken.append(Place(y, x, 2 * FILTER_PX * (1 << scale), sign * value))
            if len(taken) == MOST_PLACES:
                break
    return taken
