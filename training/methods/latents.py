"""What `divnoising` and `hdn` share: the evidence bound under the camera's noise.

Owns the loss, how its two parts are brought together, and the test for latents that say nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.latent import LatentNetwork
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import DrawnPosterior
from ..options import InputPlanes, TrainingOptions
from .learner import Learner

ANNEALED_SHARE = 0.1
"""Of a run, in which the weight of the divergence rises from nothing to one: at its full weight
from the start, latents that say nothing are the nearest way down."""
ACTIVE_NATS = 0.01
"""Of divergence on average, from which on a latent says anything (Burda et al. 2016,
arXiv:1509.00519, have the same for its variance)."""


class LatentLearner(Learner):
    """A learner that explains the frame by latents: misfit of their signal + their divergence."""

    network: LatentNetwork
    posterior: DrawnPosterior
    learning_rate = 6e-3
    draws_samples = True
    free_nats = 0.0
    """Of a layer's divergence in a patch, that cost nothing."""

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = self.network_of(options, 1 + inputs.further)
        self.outputs = options.posterior_samples
        self.posterior = DrawnPosterior(noise)

    @classmethod
    @abstractmethod
    def network_of(cls, options: TrainingOptions, inputs: int) -> LatentNetwork:
        """Return the method's network."""

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return misfit and divergence a pixel, the divergence weighted less at first."""
        return self._bound(frames, rng, min(1.0, self.progress / ANNEALED_SHARE), self.free_nats)

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return misfit and divergence a pixel: the negative evidence bound but for a constant."""
        return self._bound(frames, rng, 1.0, 0.0)

    def calibrate_prior(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Fit nothing: how far samples lie apart is what they were trained for."""

    @torch.no_grad()
    def findings(self, frames: Sequence[Tensor], rng: torch.Generator) -> Sequence[str]:
        """Say which layers of latents say nothing (posterior collapse)."""
        shares = self.active_shares(frames, rng)
        silent = [layer for layer, share in enumerate(shares, start=1) if share == 0]
        if len(silent) == len(shares):
            return [
                "posterior collapse: the latents say nothing of the frames, every sample is the "
                "same picture; train for longer, on frames with more structure, or without "
                "latents (--algorithm lattice)"
            ]
        return [
            f"posterior collapse of a layer: of {len(shares)} layers of latents, coarsest first, "
            f"layer {layer} says nothing and is not needed here"
            for layer in silent
        ]

    @torch.no_grad()
    def active_shares(self, frames: Sequence[Tensor], rng: torch.Generator) -> list[float]:
        """Return the share of each layer's latents that say anything, the coarsest first."""
        nats: list[list[Tensor]] = []
        for frame in frames:
            _, divergences = self.network.inferred(frame, self.network.noise_for(frame, rng))
            nats.append([layer.mean(dim=(0, 2, 3)) for layer in divergences])
        layers = (torch.stack(layer).mean(dim=0) for layer in zip(*nats, strict=True))
        return [float((layer > ACTIVE_NATS).float().mean()) for layer in layers]

    def _bound(
        self, frames: Tensor, rng: torch.Generator, weight: float, free_nats: float
    ) -> Tensor:
        noise = self.network.noise_for(frames, rng)
        signal, divergences = self.network.inferred(frames, noise)
        # The camera enters by its variance at the signal, which is held fixed (quasi-likelihood,
        # as in `lattice`): under the mixture's own form, which is not quite the camera's, the
        # decoder learns more slowly and is drawn to where that form has its mode.
        variance = self.posterior.noise.variance(signal.detach(), self.excess(frames))
        # Its logarithm has no gradient; without it a brighter picture would score better.
        misfit = 0.5 * ((frames[:, :1] - signal) ** 2 / variance + variance.log())
        pixels = frames.shape[2] * frames.shape[3]
        nats = sum(layer.sum(dim=(1, 2, 3)).clamp_min(free_nats).mean() for layer in divergences)
        return weight * nats / pixels + misfit.mean()
