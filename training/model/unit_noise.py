"""Noise of unit variance as a camera correlates it, drawn in torch.

Owns the draw. How noise is correlated is measured in `data.noise_correlation`; how strong it is at
which signal is `noise_likelihood`'s.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


class UnitNoise:
    """Draws noise; white, of two values alone, unless a kernel or lines are given.

    Parameters
    ----------
    kernel
        (K, K) of unit energy, K odd, which white noise is convolved with; None leaves it white.
    row_share, column_share
        Of the variance, which whole rows and whole columns share.
    """

    def __init__(
        self,
        kernel: NDArray[np.float64] | None = None,
        row_share: float = 0.0,
        column_share: float = 0.0,
    ) -> None:
        self._kernel = None if kernel is None else torch.from_numpy(kernel).float()[None, None]
        self._row_share = row_share
        self._column_share = column_share

    @property
    def is_white(self) -> bool:
        """Whether no pixel shares its noise with another."""
        return self._kernel is None

    def like(self, planes: Tensor, rng: torch.Generator) -> Tensor:
        """Return noise of the shape (N, C, Y, X) of `planes`, on their device."""
        if self._kernel is None:
            # Of all white noise the one that wastes least on chance.
            return torch.randint(2, planes.shape, generator=rng).to(planes) * 2 - 1
        count, channels, height, width = planes.shape
        reach = self._kernel.shape[-1] // 2
        white = torch.randn(
            count * channels, 1, height + 2 * reach, width + 2 * reach, generator=rng
        )
        drawn = functional.conv2d(white.to(planes.device), self._kernel.to(planes.device))
        own: float = (1 - self._row_share - self._column_share) ** 0.5
        noise: Tensor = drawn.view(planes.shape) * own
        for share, shape in (
            (self._row_share, (count, channels, height, 1)),
            (self._column_share, (count, channels, 1, width)),
        ):
            if share:
                lines = torch.randn(shape, generator=rng).to(planes.device)
                noise = noise + share**0.5 * lines
        return noise.to(planes.dtype)
