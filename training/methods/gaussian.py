"""What the methods share whose network predicts mean and spread of the signal.

Owns the two losses of mean and spread, the score by the marginal likelihood, and where the spread
begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..model.posterior import START_SPREAD, GaussianPosterior, marginal_nll
from .learner import PredictingLearner
from .uncertainty_calibration import calibrate_variance


class GaussianLearner(PredictingLearner):
    """A learner with a Gaussian prior."""

    posterior: GaussianPosterior

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the mean negative marginal log-likelihood of the hidden observations."""
        target, mean, ratio, noise_variance = self.predict_hidden(frames, rng)
        return marginal_nll(target, mean, (1 + ratio) * noise_variance).mean()

    def quasi_likelihood(
        self, target: Tensor, mean: Tensor, ratio: Tensor, noise_variance: Tensor
    ) -> Tensor:
        """Return quasi-likelihood loss of the mean plus likelihood loss of the variance.

        The mean is not allowed to buy likelihood with the variance that belongs to it. For Poisson
        counts its gradient is then the exact likelihood's (Wedderburn 1974,
        doi:10.1093/biomet/61.3.439), which that of a normal law is not.
        """
        variance = (1 + ratio) * noise_variance.detach()
        fit = 0.5 * (target - mean) ** 2 / variance.detach()
        return (fit + marginal_nll(target, mean.detach(), variance)).mean()

    def squared_error(
        self, target: Tensor, mean: Tensor, ratio: Tensor, noise_variance: Tensor
    ) -> Tensor:
        """Return squared error of the mean plus weighted likelihood loss of the variance."""
        spread = self.spread_loss(target, mean, ratio, noise_variance)
        return functional.mse_loss(mean, target) + spread

    def spread_loss(
        self, target: Tensor, mean: Tensor, ratio: Tensor, noise_variance: Tensor
    ) -> Tensor:
        """Return the likelihood loss of the variance alone, weighted by the variance itself.

        Seitzer et al. 2022, arXiv:2203.09168: where hardly any noise is expected the bare
        likelihood would drown the squared error of the mean.
        """
        variance = (1 + ratio) * noise_variance.detach()
        return (marginal_nll(target, mean.detach(), variance) * variance.detach()).mean()

    def calibrate_prior(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Fit gain and floor of the prior's variance."""
        calibrate_variance(self, frames, rng)

    def _start(self) -> None:
        with torch.no_grad():
            self.network.get_submodule("network.head").get_parameter("bias")[1] = START_SPREAD
