"""How much more wrong an estimate is where it changes from pixel to pixel.

Owns the factor of the stated variance by local contrast, inside the exported graph. By how much is
fitted by `methods.uncertainty_calibration`: at edges and points a network is more wrong than it
says, in flat parts less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .noise_likelihood import TabulatedNoise

LEAST_CHANGE = 1e-3
CONTRASTS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Of 3×3 pixels of an estimate, their range in standard deviations of the noise: the knots."""


class ContrastCorrection(nn.Module):
    """A factor of the variance, straight lines over the logarithm of the local contrast.

    Parameters
    ----------
    noise
        The camera's, in network units.
    gains
        At `CONTRASTS`; 1 leaves the variance as it is.
    """

    def __init__(self, noise: TabulatedNoise, gains: Sequence[float]) -> None:
        super().__init__()
        self.contrast = LocalContrast(noise)
        slopes = [after - before for before, after in pairwise(gains)]
        changes = [after - before for before, after in pairwise([0.0, *slopes, 0.0])]
        self.start = gains[0]
        # A sum of hinges: at a tenth of the cost of a table that is looked up.
        self.hinges = [
            (knot, change) for knot, change in enumerate(changes) if abs(change) > LEAST_CHANGE
        ]

    def forward(self, mean: Tensor) -> Tensor:
        """Return the factor for every pixel of an estimate, (N, 1, Y, X)."""
        place = self.contrast(mean)
        factor: Tensor = self.start + 0.0 * place
        for knot, change in self.hinges:
            factor = factor + change * torch.relu(place - knot)
        return factor


class LocalContrast(nn.Module):
    """How much an estimate changes within 3×3 pixels, in octaves of the noise.

    The noise's variance is taken for a straight line in the signal: a few percent more or less are
    no matter here.
    """

    def __init__(self, noise: TabulatedNoise) -> None:
        super().__init__()
        table = noise.trained_variances.double().cpu().numpy()
        signal = noise.first + noise.per_point * np.arange(len(table))
        slope, intercept = np.polyfit(signal, table, 1)
        self.slope, self.intercept = float(slope), float(intercept)
        self.least = float(table.min())

    def forward(self, mean: Tensor) -> Tensor:
        """Return the place of every pixel among `CONTRASTS`, 0 to the last, (N, 1, Y, X)."""
        largest = functional.max_pool2d(mean, 3, stride=1, padding=1)
        smallest = -functional.max_pool2d(-mean, 3, stride=1, padding=1)
        variance = (self.slope * mean + self.intercept).clamp_min(self.least)
        squared = (largest - smallest) ** 2 / variance
        octaves = torch.log(squared.clamp_min(CONTRASTS[0] ** 2)) * (0.5 / math.log(2))
        return (octaves - math.log2(CONTRASTS[0])).clamp(0.0, len(CONTRASTS) - 1.0)
