"""`lattice`: predict one sub-lattice of the image from the other eight, by quasi-likelihood.

Owns its loss. The network, which cannot see its target, is in `model.lattice`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.lattice import LatticePrior
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import GaussianPosterior
from ..options import InputPlanes, TrainingOptions
from .gaussian import GaussianLearner
from .learner import LATTICE_PATCH


class LatticeLearner(GaussianLearner):
    """The learner of `lattice`."""

    network: LatticePrior
    learning_rate = 4e-3
    sees_its_pixel = False

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = LatticePrior(inputs.further, options.lattice_plan)
        self.posterior = GaussianPosterior(noise, uses_observation=True)
        self._start()

    @classmethod
    def patch_edge(cls, options: TrainingOptions) -> int:
        """Return the edge of the patches in pixels."""
        return LATTICE_PATCH

    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the sub-lattice in the middle, the network's outputs there, and their excess."""
        target, predicted = self.network.predict_target(frames)
        return target, predicted, self.excess(self.network.middle(frames))

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return quasi-likelihood loss of the mean plus likelihood loss of the variance."""
        return self.quasi_likelihood(*self.predict_hidden(frames, rng))
