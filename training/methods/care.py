"""`care`: content-aware restoration, learned from pairs of noisy and clean frames.

Owns its losses. Source: Weigert et al. 2018, doi:10.1038/s41592-018-0216-7.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..model.direct import LaplaceEstimate, PlainEstimate, laplace_nll
from ..model.masking import MaskedPrior
from ..model.noise_likelihood import TabulatedNoise
from ..options import InputPlanes, TrainingOptions
from .supervised import SupervisedLearner

DIFFERENCES = {"plain": functional.l1_loss, "squared": functional.mse_loss}
"""Of losses that state the value alone."""


class ContentAwareRestoration(SupervisedLearner):
    """The learner of `care`: a U-Net from frames to clean ones.

    `laplace` (the authors' probabilistic network) states a Laplace law for every pixel, `plain`
    the value alone, by the absolute error; `squared` by the squared error, which gives the mean.

    The authors train the law by its likelihood alone, and let the network correct the frame. Both
    cost in a short training: under the likelihood dark pixels, whose scale is small, outweigh all
    others, and what is added to a noisy frame has to take its noise away first. Here the law's
    place is learned by the squared error and its scale by the likelihood, with the place held
    fixed and weighed by the scale.
    """

    learning_rate = 3e-3
    losses = ("laplace", "plain", "squared")

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.name = options.loss or "laplace"
        probabilistic = self.name not in DIFFERENCES
        self.outputs = 1 + probabilistic
        self.network = MaskedPrior(
            inputs.further, options.plan, artefact_free=False, outputs=self.outputs
        )
        self.posterior = LaplaceEstimate(noise) if probabilistic else PlainEstimate(noise)

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the error that was asked for, with a law the likelihood of its scale besides."""
        predicted, truth = self.outputs_and_truth(frames)
        if isinstance(self.posterior, LaplaceEstimate):
            mean, scale = self.posterior.law(predicted)
            said = laplace_nll(truth, mean.detach(), scale) * scale.detach()
            return functional.mse_loss(mean, truth) + said.mean()
        return DIFFERENCES[self.name](predicted, truth)

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the error alone, the squared one for a law."""
        predicted, truth = self.outputs_and_truth(frames)
        return DIFFERENCES.get(self.name, functional.mse_loss)(predicted[:, :1], truth)
