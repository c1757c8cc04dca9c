"""What the methods share that learn from clean frames.

Owns how truth and inputs are told apart, and that noise which neighbours share does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...calibration.noise_correlation import NoiseCorrelation
from ..options import TrainingOptions
from .learner import MASKED_PATCH, Learner


class SupervisedLearner(Learner):
    """A learner that is given the truth; its network sees every pixel."""

    target = "truth"

    @classmethod
    def patch_edge(cls, options: TrainingOptions) -> int:
        """Return the edge of the patches in pixels."""
        return MASKED_PATCH

    @classmethod
    def fitted_to(
        cls,
        options: TrainingOptions,
        correlation: Callable[[], NoiseCorrelation],
        remark: Callable[[str], None],
    ) -> TrainingOptions:
        """Return the options: noise that neighbours share is learned as any other."""
        return options

    def outputs_and_truth(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's outputs and the truth, (B, C, P, P) and (B, 1, P, P)."""
        return self.network(self.seen(frames)), frames[:, -1:]

    def calibrate_prior(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Fit nothing: what is stated is compared with the truth as a whole."""
