"""Makes the network's own uncertainty honest.

Owns the fit of a gain and a floor of the prior variance on held-out frames. Where photons are few
the network's variance collapses; the residual of what it predicted without seeing it tells the
truth: E[(x − μ)²] = prior variance + noise variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from .algorithms import GaussianLearner

MOST_PIXELS = 500_000


@torch.no_grad()
def calibrate_variance(
    learner: GaussianLearner, frames: Sequence[Tensor], chance: torch.Generator
) -> tuple[float, float]:
    """Fit gain and floor (network units²) on held-out frames and set them in the posterior.

    `frames` are (1, 1 + T, Y, X) in network units, Y and X multiples of the network's stride.
    """
    posterior = learner.posterior
    posterior.variance_gain.fill_(1.0)
    posterior.variance_floor.fill_(0.0)
    parts = [learner.predict_hidden(frame, chance) for frame in frames]
    target, mean, prior = (torch.cat([part[i].flatten() for part in parts]) for i in range(3))
    thin = max(1, len(target) // MOST_PIXELS)
    target, mean, prior = target[::thin], mean[::thin], prior[::thin]
    noise = posterior.noise.variance(mean)
    gain, floor = _fit(
        *(t.double().numpy() for t in ((target - mean) ** 2, prior, noise)),
    )
    posterior.variance_gain.fill_(gain)
    posterior.variance_floor.fill_(floor)
    return gain, floor


def _fit(
    squared: NDArray[np.float64], prior: NDArray[np.float64], noise: NDArray[np.float64]
) -> tuple[float, float]:
    typical = float(prior.mean())

    def nll(logs: NDArray[np.float64]) -> float:
        variance = math.exp(logs[0]) * prior + math.exp(logs[1]) * typical + noise
        return float((squared / variance + np.log(variance)).mean())

    best = minimize(nll, x0=np.array([0.0, -6.0]), method="Nelder-Mead", options={"maxiter": 80})
    return math.exp(best.x[0]), math.exp(best.x[1]) * typical
