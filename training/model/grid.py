"""A network made blind to its target by a grid: every fourth pixel is replaced by those around it.

Owns the partition, the replacement, and the estimate that puts all parts together. Source:
Noise2Self, Batson & Royer 2019, arXiv:1901.11365.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..options import NetworkPlan
from .masking import MaskedPrior

PERIOD = 4
"""Pixels along y and x, the authors': a sixteenth of them is replaced at a time, none next to
another."""


class GridPrior(MaskedPrior):
    """The U-Net at full resolution, asked for the pixels of one part of a grid at a time.

    Each part is replaced by an interpolation that leaves the pixels themselves out (the donut), so
    that what is predicted there depends on the others alone: it is J-invariant. `forward` does so
    with all sixteen parts, at the price of as many passes.
    """

    period = PERIOD

    def __init__(self, further: int, plan: NetworkPlan) -> None:
        super().__init__(further, plan, artefact_free=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the head's outputs (N, 2, Y, X), each predicted without its pixel."""
        parts = [(dy, dx) for dy in range(PERIOD) for dx in range(PERIOD)]
        predicted = super().forward(torch.cat([hidden_part(frames, part) for part in parts]))
        by_part = predicted.reshape(len(parts), -1, *predicted.shape[1:])  # (16, N, 2, Y, X)
        woven = by_part[0]
        for part, outputs in zip(parts[1:], by_part[1:], strict=True):
            woven = torch.where(_belongs(frames, part), outputs, woven)
        return woven

    def predict_part(self, frames: Tensor, part: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the newest frame's pixels of a part, and what is predicted of them."""
        predicted = super().forward(hidden_part(frames, part))
        return of_part(frames[:, :1], part), of_part(predicted, part)


def of_part(planes: Tensor, part: tuple[int, int]) -> Tensor:
    """Return the pixels of a part of the grid, of (N, C, Y, X)."""
    return planes[:, :, part[0] :: PERIOD, part[1] :: PERIOD]


def hidden_part(frames: Tensor, part: tuple[int, int]) -> Tensor:
    """Return frames (N, P, Y, X) with a part of the newest replaced by what is around it."""
    newest = frames[:, :1]
    hidden = torch.where(_belongs(frames, part), _around(newest), newest)
    return torch.cat([hidden, frames[:, 1:]], dim=1) if frames.shape[1] > 1 else hidden


def _belongs(frames: Tensor, part: tuple[int, int]) -> Tensor:
    """Return which pixels (Y, X) are of a part."""
    rows, columns = (
        torch.arange(edge, device=frames.device) % PERIOD == place
        for edge, place in zip(frames.shape[2:], part, strict=True)
    )
    return rows[:, None] & columns[None, :]


def _around(newest: Tensor) -> Tensor:
    """Return the weighted mean of the eight pixels around each, of (N, 1, Y, X)."""
    weights = newest.new_tensor([[0.5, 1.0, 0.5], [1.0, 0.0, 1.0], [0.5, 1.0, 0.5]]) / 6
    for axis in (2, 3):
        # A mirror at the border, by indices: it holds for frames of a single row as well.
        last = newest.shape[axis] - 1
        place = torch.arange(-1, newest.shape[axis] + 1, device=newest.device).abs()
        place = torch.where(place > last, 2 * last - place, place).clamp_min(0)
        newest = newest.index_select(axis, place)
    with torch.autocast(newest.device.type, enabled=False):
        return functional.conv2d(newest, weights[None, None])
