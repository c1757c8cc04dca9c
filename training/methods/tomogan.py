"""`tomogan`: a U-Net trained on clean frames, against a critic that tells them from estimates.

Owns the three terms of its loss and the warning that comes with them. The critic and the features
are in `model.critic`. Source: Liu et al. 2020, doi:10.1364/JOSAA.375595 (arXiv:1902.07582). Its
three adjacent slices are `--planes 1`, or `--context 2` in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ...inference.bundle import Preset
from ..model.critic import Critic, VGGFeatures, gradient_penalty
from ..model.direct import PlainEstimate
from ..model.masking import MaskedPrior
from ..model.noise_likelihood import TabulatedNoise
from ..options import InputPlanes, TrainingOptions
from .learner import Player
from .supervised import SupervisedLearner

ADVERSARIAL, PERCEPTUAL = 2e-3, 0.05
"""Weights beside the squared error, in network units; the authors' are for their pictures'."""
PENALTY = 10.0
"""Of the critic's gradient, the authors'."""
CRITIC_TURNS = 2
"""Steps of the critic for one of the network, the authors'."""
BETAS = (0.5, 0.9)
"""Of Adam for both: an opponent that moves should not be remembered for long."""
CRITIC_WIDTHS: dict[Preset, int] = {"fast": 8, "live": 16, "best": 32}


class TomoGAN(SupervisedLearner):
    """The learner of `tomogan`: squared error, the critic's opinion, and features compared."""

    learning_rate = 1e-3
    compares_features = True
    outputs = 1

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = MaskedPrior(inputs.further, options.plan, artefact_free=False, outputs=1)
        self.critic = Critic(CRITIC_WIDTHS[options.preset])
        given = options.perceptual_weights
        self.vgg = None if given is None else VGGFeatures(Path(given))
        self.posterior = PlainEstimate(noise)

    @classmethod
    def remarks(cls, options: TrainingOptions) -> Sequence[str]:
        """Warn of what an adversarial training does, and say what features are compared."""
        warning = (
            "tomogan is trained to look like clean frames and may draw structure that is not "
            "there; it states no uncertainty: look at the residuals (evaluate --figures) before "
            "anything is measured on its pictures"
        )
        if options.perceptual_weights is not None:
            return (warning,)
        return (
            warning,
            "the perceptual term compares features of the critic, which is trained here; for "
            "the authors' VGG-19 give its weights with --perceptual-weights FILE",
        )

    def players(self) -> Sequence[Player]:
        """Return the critic, then the network."""
        return (
            Player(self.critic, self.critic_loss, betas=BETAS, turns=CRITIC_TURNS),
            Player(self.network, self.loss, betas=BETAS),
        )

    def critic_loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the negative Wasserstein distance and the price of its gradient."""
        with torch.no_grad():
            made, truth = self.outputs_and_truth(frames)
        noisy = frames[:, :1]
        # In full precision: the penalty is the gradient of a gradient.
        with torch.autocast(frames.device.type, enabled=False):
            distance = self.critic(truth, noisy).mean() - self.critic(made, noisy).mean()
            penalty = gradient_penalty(
                lambda pictures: self.critic(pictures, noisy), truth, made, rng
            )
            loss: Tensor = PENALTY * penalty - distance
            return loss

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return squared error, the critic's opinion and the difference of features."""
        made, truth = self.outputs_and_truth(frames)
        noisy = frames[:, :1]
        score: Tensor = self.critic(made, noisy).mean()
        error = functional.mse_loss(made, truth)
        return error - ADVERSARIAL * score + PERCEPTUAL * self._perceived(made, truth, noisy)

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the squared error alone: of the rest there is no measure."""
        return functional.mse_loss(*self.outputs_and_truth(frames))

    def _perceived(self, made: Tensor, truth: Tensor, noisy: Tensor) -> Tensor:
        """Return how far estimate and truth are apart in features."""
        if self.vgg is not None:
            vgg = self.vgg.to(made.device)
            with torch.no_grad():
                wanted = vgg(truth)
            return functional.mse_loss(vgg(made), wanted)
        with torch.no_grad():
            clean = self.critic.features(truth, noisy)
        differences = [
            functional.l1_loss(own, other)
            for own, other in zip(self.critic.features(made, noisy), clean, strict=True)
        ]
        return torch.stack(differences).mean()
