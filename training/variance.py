"""Makes the network's own uncertainty honest.

Owns two fits on held-out frames. The first is of the prior's variance, by a gain and a floor:
where photons are few the network's own collapses, and the residual of what it predicted without
seeing it tells the truth, E[(x − μ)²] = prior variance + noise variance. The second is of the
variance that is stated with the final estimate, by brightness: its squared error is known without
the truth from Stein's unbiased risk estimate, taken by random probes (Ramani et al. 2008,
doi:10.1109/TIP.2008.2001404), also for a network that sees the pixel when it is used.
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
PROBE = 0.1
"""Size of the probes in standard deviations of the noise."""
KNOTS = 6
"""Brightnesses, equally spaced in the noise's standard deviation, whose correction is fitted."""
FEWEST_PIXELS = 2_000
LARGEST_CORRECTION = 5.0
LEAST_CORRECTION_SEEN = 0.3
"""Where the network sees the pixel when it is used: hidden, it was wrong by more. Elsewhere
nothing is made less: some percent of error in the noise's variance would be enough for that."""


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


@torch.no_grad()
def correct_uncertainty(
    learner: GaussianLearner, frames: Sequence[Tensor], chance: torch.Generator
) -> NDArray[np.float64]:
    """Fit by brightness what the stated variance is multiplied by; set it in the posterior.

    `frames` are as in `calibrate_variance`. Returns the corrections, (KNOTS,).
    """
    posterior, noise = learner.posterior, learner.posterior.noise
    posterior.correct(torch.ones_like(noise.variances))
    spreads = noise.variances.sqrt().double().cpu().numpy()
    knots = np.linspace(spreads.min(), spreads.max() + 1e-12, KNOTS)
    wrong, stated, weight = np.zeros((3, KNOTS))
    pixels = 0
    for frame in frames:
        sigma, error, variance = (
            part.flatten().double().cpu().numpy() for part in _risk(learner, frame, chance)
        )
        # Each pixel counts for the two knots around it, relative to its noise.
        share = np.stack([np.interp(sigma, knots, row) for row in np.eye(KNOTS)])
        wrong += share @ (error / sigma**2)
        stated += share @ (variance / sigma**2)
        weight += share.sum(axis=1)
        pixels += sigma.size
        if pixels > MOST_PIXELS:
            break
    known = (weight > FEWEST_PIXELS) & (stated > 0)
    if not known.any():
        return np.ones(KNOTS)
    least = 1.0 if posterior.uses_observation else LEAST_CORRECTION_SEEN
    found = np.clip(wrong[known] / stated[known], least, LARGEST_CORRECTION)
    gains = np.interp(knots, knots[known], found)
    posterior.correct(torch.from_numpy(np.interp(spreads, knots, gains)).to(noise.variances))
    return gains


def _risk(
    learner: GaussianLearner, frames: Tensor, chance: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the noise's standard deviation, the squared error by Stein, the stated variance."""
    excess = learner.excess(frames)
    observation = frames[:, :1]
    predicted = learner.network(frames)
    estimate, variance = learner.posterior(observation, predicted, excess)
    sigma = learner.posterior.noise.variance(predicted[:, :1], excess).sqrt()
    signs = torch.randint(2, observation.shape, generator=chance).to(sigma) * 2 - 1
    probed = observation + PROBE * sigma * signs
    moved, _ = learner.posterior(
        probed, learner.network(torch.cat([probed, frames[:, 1:]], dim=1)), excess
    )
    error = (estimate - observation) ** 2 - sigma**2
    return sigma, error + 2 * sigma * signs * (moved - estimate) / PROBE, variance


def _fit(squared: NDArray[np.float64], ratio: NDArray[np.float64]) -> tuple[float, float]:
    """Maximise the likelihood of squared residuals, in units of the noise variance."""

    def nll(logs: NDArray[np.float64]) -> float:
        variance = 1 + math.exp(logs[0]) * ratio + LEAST_RATIO + math.exp(logs[1])
        return float((squared / variance + np.log(variance)).mean())

    best = minimize(nll, x0=np.array([0.0, -5.0]), method="Nelder-Mead", options={"maxiter": 80})
    return math.exp(best.x[0]), LEAST_RATIO + math.exp(best.x[1])
