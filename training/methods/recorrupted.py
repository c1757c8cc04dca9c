"""`r2r`: noise like the camera's own is added and taken away; one learns from the other.

Owns the loss of Recorrupted-to-Recorrupted (Pang et al. 2021, doi:10.1109/CVPR46437.2021.00208;
with its split of noise, Oliveira et al. 2021, arXiv:2111.09447). With n drawn as the camera's
noise is, in strength and in correlation, x + α·n and x − n/α have independent noise around the
same signal. The network sees the whole of the first, and predicts the second: no pixel has to be
hidden, however far its noise is shared, and neither repeats nor rest are needed.

What is drawn must be like the camera's noise: of a variance that is wrong by a share e, the share
e / (1 + α²) of the noise stays in the estimate.

The estimate is the network's mean. The observation is among what the network saw, and what it
adds under correlated noise cannot be told from the pixel alone: the posterior in closed form holds
for independent noise, and would bring back noise that neighbours share.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...calibration.noise_correlation import NoiseCorrelation
from ..model.block_prior import BlockPrior
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import START_SPREAD, GaussianPosterior
from ..options import InputPlanes, TrainingOptions
from .gaussian import GaussianLearner

ALPHA = 0.5
"""Of the noise that is added: the network learns on frames of a quarter more variance than those
that it is used on, and from targets of five times that of the frames."""
LEAST_DIRECTION = 0.05
"""Between the correlations along rows and columns."""
LEVEL_EDGE = 5
"""Pixels over which the mean says how bright a place is, and so how strong its noise."""


class RecorruptedLearner(GaussianLearner):
    """The learner of `r2r`."""

    network: BlockPrior
    posterior: GaussianPosterior
    learning_rate = 3e-3
    takes_noise_for_independent = False

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = BlockPrior(inputs.further, options.plan)
        self.posterior = GaussianPosterior(noise, uses_observation=False)
        self.network.start_with(1, START_SPREAD)

    def know(self, correlation: NoiseCorrelation) -> None:
        """Take in how the noise is correlated; a direction of it must be kept in the patches."""
        super().know(correlation)
        turned = np.abs(correlation.table - correlation.table.T).max()
        self.transpose = not correlation.lines() and bool(turned < LEAST_DIRECTION)

    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what is predicted, (B, 1, P, P), the network's outputs, and their excess."""
        newest, excess = frames[:, :1], self.excess(frames)
        noise = self._sigma(newest, excess) * self.unit_noise.like(newest, rng)
        seen = torch.cat([newest + ALPHA * noise, frames[:, 1:]], dim=1)
        return newest - noise / ALPHA, self.network(seen), excess

    def predict_hidden(
        self, frames: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return targets; mean, variance ratio and the targets' noise variance predicted there."""
        target, mean, ratio, own = super().predict_hidden(frames, rng)
        more = 1 + ALPHA**-2
        return target, mean, ratio / more, own * more

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return quasi-likelihood loss of the mean plus likelihood loss of the variance."""
        return self.quasi_likelihood(*self.predict_hidden(frames, rng))

    def _sigma(self, newest: Tensor, excess: Tensor | None) -> Tensor:
        """Return the noise's standard deviation by how bright each place is."""
        around = [LEVEL_EDGE // 2] * 4
        level = functional.avg_pool2d(
            functional.pad(newest, around, mode="reflect"), LEVEL_EDGE, 1
        )
        return self.posterior.noise.variance(level, excess).sqrt()
