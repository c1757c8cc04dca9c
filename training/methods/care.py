"""`care`: content-aware restoration, learned from pairs of noisy and clean frames.

Owns its losses. Source: Weigert et al. 2018, doi:10.1038/s41592-018-0216-7.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..model.direct import LaplaceEstimate, PlainEstimate, Residual, laplace_nll
from ..model.masking import MaskedPrior
from ..model.noise_likelihood import TabulatedNoise
from ..options import InputPlanes, TrainingOptions
from .supervised import SupervisedLearner

DIFFERENCES = {"plain": functional.l1_loss, "squared": functional.mse_loss}
"""Of losses that state the value alone."""


class ContentAwareRestoration(SupervisedLearner):
    """The learner of `care`: a U-Net that corrects the frame.

    `laplace` (the authors' probabilistic network) states a Laplace law for every pixel, `plain`
    the value alone, by the absolute error; `squared` by the squared error, which gives the mean.
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
        self.network = Residual(
            MaskedPrior(inputs.further, options.plan, artefact_free=False, outputs=self.outputs)
        )
        self.posterior = LaplaceEstimate(noise) if probabilistic else PlainEstimate(noise)

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return −log of the Laplace density of the truth, or the error that was asked for."""
        predicted, truth = self.outputs_and_truth(frames)
        if isinstance(self.posterior, LaplaceEstimate):
            return laplace_nll(truth, *self.posterior.law(predicted)).mean()
        return DIFFERENCES[self.name](predicted, truth)
