"""`care`: content-aware restoration, learned from pairs of noisy and clean frames.

Owns its two losses. Source: Weigert et al. 2018, doi:10.1038/s41592-018-0216-7.
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


class ContentAwareRestoration(SupervisedLearner):
    """The learner of `care`: a U-Net that corrects the frame.

    `laplace` (the authors' probabilistic network) states a Laplace law for every pixel, `plain`
    the value alone, by the absolute error.
    """

    learning_rate = 3e-3
    losses = ("laplace", "plain")

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.probabilistic = options.loss != "plain"
        self.outputs = 1 + self.probabilistic
        self.network = Residual(
            MaskedPrior(inputs.further, options.plan, artefact_free=False, outputs=self.outputs)
        )
        self.posterior = LaplaceEstimate(noise) if self.probabilistic else PlainEstimate(noise)

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return −log of the Laplace density of the truth, or the absolute error."""
        predicted, truth = self.outputs_and_truth(frames)
        if isinstance(self.posterior, LaplaceEstimate):
            return laplace_nll(truth, *self.posterior.law(predicted)).mean()
        return functional.l1_loss(predicted[:, :1], truth)
