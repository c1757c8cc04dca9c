"""`n2s`: predict the pixels of a grid from all others (Noise2Self).

Owns its loss. The network, which cannot see its target, is in `model.grid`, with the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.grid import PERIOD, GridPrior, of_part
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import GaussianPosterior
from ..options import InputPlanes, TrainingOptions
from .gaussian import GaussianLearner


class Noise2Self(GaussianLearner):
    """The learner of `n2s`.

    A J-invariant estimate has not seen the pixel, so that the pixel's own observation is taken in
    by Bayes' rule afterwards; the authors propose such a mean where the noise is known.
    """

    network: GridPrior
    learning_rate = 3e-3
    sees_its_pixel = False

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = GridPrior(inputs.further, options.plan)
        self.posterior = GaussianPosterior(noise, uses_observation=True)
        self._start()

    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the pixels of a part of the grid, what is predicted of them, and their excess."""
        dy, dx = torch.randint(PERIOD, (2,), generator=rng).tolist()
        target, predicted = self.network.predict_part(frames, (dy, dx))
        excess = self.excess(frames)
        return target, predicted, None if excess is None else of_part(excess, (dy, dx))

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return squared error plus the weighted likelihood loss of the variance."""
        return self.squared_error(*self.predict_hidden(frames, rng))
