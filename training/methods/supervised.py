"""What the methods share that learn from clean frames.

Owns how truth and inputs are told apart, and that noise which neighbours share does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .learner import Learner


class SupervisedLearner(Learner):
    """A learner that is given the truth; its network sees every pixel."""

    target = "truth"
    takes_noise_for_independent = False

    def outputs_and_truth(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's outputs and the truth, (B, C, P, P) and (B, 1, P, P)."""
        return self.network(self.seen(frames)), frames[:, -1:]

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the loss."""
        return self.loss(frames, rng)

    def calibrate_prior(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Fit nothing: what is stated is compared with the truth as a whole."""
