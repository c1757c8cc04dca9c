"""Networks whose own output is the estimate, learned from clean frames: what they state with it.

Owns the estimate without an uncertainty, and the one with a Laplace scale. Network units
throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .noise_likelihood import TabulatedNoise
from .posterior import CorrectedPosterior, Posterior

LEAST_SCALE = 1e-3
"""Of a Laplace law, in network units: the authors' of CARE."""


class PlainEstimate(Posterior):
    """The network's output is the estimate; of its uncertainty nothing is known, and 0 stated."""

    def __init__(self, noise: TabulatedNoise) -> None:
        super().__init__()
        self.noise = noise

    def forward(
        self, observation: Tensor, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance, (N, 1, Y, X) each."""
        mean = predicted[:, :1]
        # Not zeros_like: in the exported graph every output must come from the frame.
        return mean, 0.0 * mean

    def correct(self, gain: Tensor) -> None:
        """Nothing is stated that could be corrected."""

    def prior(
        self, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, no variance, and the noise's variance."""
        mean = predicted[:, :1]
        return mean, torch.zeros_like(mean), self.noise.variance(mean, excess)


class LaplaceEstimate(CorrectedPosterior):
    """The network's outputs are the middle of a Laplace law and its scale b; its variance is 2b².

    Weigert et al. 2018, doi:10.1038/s41592-018-0216-7.
    """

    def forward(
        self, observation: Tensor, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance, (N, 1, Y, X) each."""
        mean, scale = self.law(predicted)
        return mean, 2 * scale**2 * self.noise.interpolated(self.stated_gain, mean)

    def law(self, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Return middle and scale for outputs (N, 2, …), (N, 1, …) each."""
        return predicted[:, :1], functional.softplus(predicted[:, 1:]) + LEAST_SCALE

    def prior(
        self, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, the ratio of its variance to the noise's, and the noise's variance."""
        mean, scale = self.law(predicted)
        own = self.noise.variance(mean, excess)
        return mean, 2 * scale**2 / own, own


def laplace_nll(truth: Tensor, median: Tensor, scale: Tensor) -> Tensor:
    """Return −log of the Laplace density, elementwise."""
    return (truth - median).abs() / scale + torch.log(2 * scale)
