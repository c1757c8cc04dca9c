"""How much more wrong an estimate is where it changes from pixel to pixel.

Owns the factor of the stated variance by local contrast, inside the exported graph. By how much is
fitted by `methods.uncertainty_calibration`: at edges and points a network is more wrong than it
says, in flat parts less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .noise_likelihood import TabulatedNoise

CONTRASTS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Of 3×3 pixels of an estimate, their range in standard deviations of the noise: the knots."""


class ContrastCorrection(nn.Module):
    """A factor of the variance, a table over the logarithm of the local contrast.

    Parameters
    ----------
    noise
        The camera's, in network units.
    gains
        At `CONTRASTS`; 1 leaves the variance as it is.
    """

    gains: Tensor

    def __init__(self, noise: TabulatedNoise, gains: Sequence[float]) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("gains", torch.tensor([*gains, gains[-1]]).to(noise.variances))

    def contrast(self, mean: Tensor) -> Tensor:
        """Return the local contrast of an estimate, (N, 1, Y, X) in network units."""
        return local_contrast(mean, self.noise)

    def forward(self, mean: Tensor) -> Tensor:
        """Return the factor for every pixel of an estimate, (N, 1, Y, X)."""
        place = knot_of(self.contrast(mean))
        index = place.to(torch.int64)
        below = self.gains[index]
        return below + (self.gains[index + 1] - below) * (place - index)


def local_contrast(mean: Tensor, noise: TabulatedNoise) -> Tensor:
    """Return largest less smallest of 3×3 pixels over the noise's standard deviation."""
    largest = functional.max_pool2d(mean, 3, stride=1, padding=1)
    smallest = -functional.max_pool2d(-mean, 3, stride=1, padding=1)
    return (largest - smallest) / noise.variance(mean).sqrt()


def knot_of(contrast: Tensor) -> Tensor:
    """Return the place of contrasts among `CONTRASTS`, 0 to the last."""
    last = len(CONTRASTS) - 1
    octaves = torch.log(contrast.clamp_min(CONTRASTS[0])) - math.log(CONTRASTS[0])
    return (octaves / math.log(2)).clamp(0.0, float(last))
