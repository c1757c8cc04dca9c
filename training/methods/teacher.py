"""What `student` trains first: predict a frame from those before and after it, without itself.

Owns its loss, which is the lattice's: the frame is an observation that the network has not seen.
What it is given is in `teaching.surroundings`, the network in `model.surroundings`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import START_SPREAD, GaussianPosterior
from ..model.surroundings import SurroundingsPrior
from ..options import InputPlanes, TrainingOptions
from ..teaching.surroundings import COUNTS
from .gaussian import GaussianLearner


class Teacher(GaussianLearner):
    """The learner of `teacher`."""

    network: SurroundingsPrior
    learning_rate = 3e-3
    sees_its_pixel = False
    takes_noise_for_independent = False
    noise_shares = (1.0, *(1 / count for count in COUNTS))

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        further = inputs.further - len(COUNTS)
        self.network = SurroundingsPrior(COUNTS, further, options.plan)
        self.posterior = GaussianPosterior(noise, uses_observation=True)
        self.network.start_with_spread(START_SPREAD)

    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the frame, what its surroundings say of it, and its excess."""
        return frames[:, :1], self.network(frames), self.excess(frames)

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return quasi-likelihood loss of the mean plus likelihood loss of the variance."""
        return self.quasi_likelihood(*self.predict_hidden(frames, rng))
