"""A small piece of a held-out frame, denoised again and again while training goes on.

Owns the choice of the piece and its picture before and after. How it is shown is decided in
`display` and `report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.patches import CELL, information
from ..data.side_inputs import Sample
from ..model.estimator import Estimator

TILE = 64
MARGIN = 32
"""Around the tile, so that its rim is predicted from what is there."""


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """A tile (Y, X) as the camera gave it and as the model sees it now, ADU."""

    raw: NDArray[Any]
    denoised: NDArray[np.float32]
    uncertainty: NDArray[np.float32]

    def range_adu(self) -> tuple[float, float]:
        """Return what is shown as black and as white, the same for raw and denoised."""
        low, high = np.percentile(self.denoised, (0.5, 99.8))
        return float(low), float(max(high, low + 1e-6))


class PreviewTile:
    """The tile with the most structure among held-out frames."""

    def __init__(self, held_out: Sequence[Sample]) -> None:
        places = [(*_most_informative(sample.observations[0]), sample) for sample in held_out]
        _, y, x, sample = max(places, key=lambda place: place[0])
        top, left = max(0, y - MARGIN), max(0, x - MARGIN)
        around = (slice(None), slice(top, y + TILE + MARGIN), slice(left, x + TILE + MARGIN))
        maps = sample.pixel_maps
        self._sample = Sample(sample.observations[around], None if maps is None else maps[around])
        self._tile = (slice(y - top, y - top + TILE), slice(x - left, x - left + TILE))

    @torch.no_grad()
    def denoised_by(self, estimator: Estimator, device: torch.device) -> Preview:
        """Return the tile and what the estimator makes of it."""
        planes = self._sample.crop(*self._sample.observations.shape[1:])
        found = estimator(*(torch.from_numpy(plane).to(device) for plane in planes))
        denoised, uncertainty = (image[0, 0].cpu().numpy()[self._tile] for image in found)
        return Preview(self._sample.observations[0][self._tile], denoised, uncertainty)


def _most_informative(frame: NDArray[Any]) -> tuple[float, int, int]:
    """Return how much structure the best tile of a frame holds, and its upper left pixel."""
    cells = information(frame)
    rows, columns = (min(TILE // CELL, edge) for edge in cells.shape)
    windows = np.lib.stride_tricks.sliding_window_view(cells, (rows, columns)).sum(axis=(2, 3))
    row, column = np.unravel_index(int(windows.argmax()), windows.shape)
    return float(windows.max()), int(row) * CELL, int(column) * CELL
