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
from .posterior import LEAST_RATIO

MOST_PIXELS = 500_000


@torch.no_grad()
def calibrate_variance(
    learner: GaussianLearner, frames: Sequence[Tensor], chance: torch.Generator
) -> tuple[float, float]:
    """Fit gain and floor of the variance ratio on held-out frames; set them in the posterior.

    `frames` are (1, 1 + T, Y, X) in network units, Y and X multiples of the network's stride.
    """
    posterior = learner.posterior
    posterior.ratio_gain.fill_(1.0)
    posterior.ratio_floor.fill_(0.0)
    parts = [learner.predict_hidden(frame, chance) for frame in frames]
    target, mean, ratio, noise = (
        torch.cat([part[i].flatten() for part in parts]).double().cpu().numpy() for i in range(4)
    )
    thin = max(1, len(target) // MOST_PIXELS)
    gain, floor = _fit(((target - mean) ** 2 / noise)[::thin], ratio[::thin])
    posterior.ratio_gain.fill_(gain)
    posterior.ratio_floor.fill_(floor)
    return gain, floor


def _fit(squared: NDArray[np.float64], ratio: NDArray[np.float64]) -> tuple[float, float]:
    """Maximise the likelihood of squared residuals, in units of the noise variance."""

    def nll(logs: NDArray[np.float64]) -> float:
        variance = 1 + math.exp(logs[0]) * ratio + LEAST_RATIO + math.exp(logs[1])
        return float((squared / variance + np.log(variance)).mean())

    best = minimize(nll, x0=np.array([0.0, -5.0]), method="Nelder-Mead", options={"maxiter": 80})
    return math.exp(best.x[0]), LEAST_RATIO + math.exp(best.x[1])
