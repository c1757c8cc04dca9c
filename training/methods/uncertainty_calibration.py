"""Calibrates the uncertainty that a trained network states.

Owns the fits on held-out frames. The first is of the prior's variance, by a gain and a floor (of
pn2v's samples: how far they lie apart): where photons are few the network's own collapses, and the
residual of what it predicted without seeing it tells the truth, E[(x − μ)²] = prior variance +
noise variance; the floor is what the frames' own noise does to the prediction. The second is of
the variance that is stated with the final estimate, by local contrast and by brightness: its
squared error is known without the truth from Stein's unbiased risk estimate, taken by random
probes (Ramani et al. 2008, doi:10.1109/TIP.2008.2001404), also for a network that sees the pixel
when it is used. Both hold for what held-out frames contain: of small things that no frame of the
training had, no fit on these frames knows the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ..model.contrast_correction import CONTRASTS, ContrastCorrection, LocalContrast
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import GaussianPosterior, Posterior, SampledPosterior
from ..model.unit_noise import UnitNoise
from .learner import Learner, PredictingLearner

WHITE = UnitNoise()
MOST_PIXELS = 500_000
PROBE = 0.1
"""Size of the probes in standard deviations of the noise."""
KNOTS = 6
"""Brightnesses, equally spaced in the noise's standard deviation, whose correction is fitted."""
FEWEST_PIXELS = 500
"""Of a brightness or a contrast. The brightest and the edges are few, and their errors large."""
LEAST_CONTRAST_GAIN = 1.05
LARGEST_CORRECTION = 5.0
LEAST_CORRECTION_SEEN = 0.3
"""Where the network sees the pixel when it is used: hidden, it was wrong by more. Elsewhere
nothing is made less: some percent of error in the noise's variance would be enough for that."""
PROBED_FRAMES = 4
"""Held-out frames to which a little noise is added."""
SUREST_SHARE = 0.25
"""Of the pixels, those of which the network says that it is surest."""
SMALLEST_RATIO = 2e-4
"""Of any prediction's variance to the noise's: that of the mean of 5,000 pixels."""
FLOOR_SHARE = 0.25
"""Of `least_ratio`, what the floor never falls below: single pixels say too little by chance."""
STRIP_VALUES = 2**20
"""Of the network's outputs that go through a posterior at a time."""
SAMPLED_VALUES = 2**24
"""The same for all that is looked at."""
LARGEST_GAIN = 1e3
"""Of the prior's variance. Beyond it what the network says of its error is rounding, multiplied:
where a recording has no noise, PyTorch and ONNX Runtime then differ by it."""
LARGEST_NOISE_ERROR = 0.03
"""Of the noise model's variance."""
LEAST_SPREAD = 0.01
"""Of the variance that pn2v's samples have after training."""


def calibrate_uncertainty(
    learner: Learner, frames: Sequence[Tensor], rng_of: Callable[[int], torch.Generator]
) -> None:
    """Fit on held-out frames what a learner says of its own errors.

    `rng_of` returns a generator of its own for each number.
    """
    learner.calibrate_prior(frames, rng_of(0))
    correct_uncertainty(learner, frames, rng_of(1))


@torch.no_grad()
def calibrate_variance(
    learner: PredictingLearner, frames: Sequence[Tensor], rng: torch.Generator
) -> tuple[float, float]:
    """Fit gain and floor of the variance ratio on held-out frames; set them in the posterior.

    `frames` are (1, 1 + T, Y, X) in network units, Y and X multiples of the network's stride.
    """
    posterior = learner.posterior
    if not isinstance(posterior, GaussianPosterior):
        raise TypeError(f"{type(posterior).__name__} has no variance ratio to be fitted")
    posterior.ratio_gain.fill_(1.0)
    posterior.ratio_floor.fill_(0.0)
    parts = [_residuals(learner, frame, rng)[1:] for frame in frames]
    squared, ratio, own = (
        torch.cat([part[i].flatten() for part in parts]).double().cpu().numpy() for i in range(3)
    )
    thin = max(1, len(squared) // MOST_PIXELS)
    least = least_ratio(learner, frames, rng)
    gain, floor = _fit(squared[::thin], ratio[::thin], own[::thin], least)
    posterior.ratio_gain.fill_(gain)
    posterior.ratio_floor.fill_(floor)
    return gain, floor


@torch.no_grad()
def calibrate_spread(
    learner: PredictingLearner, frames: Sequence[Tensor], rng: torch.Generator
) -> NDArray[np.float64]:
    """Bring samples as near to their mean as held-out residuals say, by brightness.

    E[(x − mean)²] = variance of the samples + noise variance holds whatever the noise's form.
    `frames` are as in `calibrate_variance`. Returns the factors of the variance, (KNOTS,).
    """
    posterior = learner.posterior
    if not isinstance(posterior, SampledPosterior):
        raise TypeError(f"{type(posterior).__name__} has no samples to be brought together")
    posterior.spread.fill_(1.0)
    least = least_ratio(learner, frames, rng)
    found = _ByBrightness(posterior.noise)
    for frame in _some(frames, learner):
        law, squared, ratio, own = _residuals(learner, frame, rng)
        found.add(law.sqrt(), (squared - own) * law, ratio * law)
    gains = found.gains(LEAST_SPREAD, 1.0, known=least)
    posterior.spread.copy_(found.table(gains).sqrt())
    posterior.ratio_floor.fill_(FLOOR_SHARE * least)
    return gains


@torch.no_grad()
def correct_uncertainty(
    learner: Learner, frames: Sequence[Tensor], rng: torch.Generator
) -> NDArray[np.float64]:
    """Fit what the stated variance is multiplied by; set it in the posterior.

    First by local contrast, then by brightness: an edge is as bright as a flat part, and would
    have its error stated there too.

    `frames` are as in `calibrate_variance`. Returns the corrections, (KNOTS,).
    """
    posterior = learner.posterior
    posterior.correct(torch.ones_like(posterior.noise.variances))
    posterior.contrast = None
    least = LEAST_CORRECTION_SEEN if learner.sees_its_pixel else 1.0
    parts = [_error(learner, frame, rng) for frame in _some(frames, learner)]
    posterior.contrast = _by_contrast(parts, posterior.noise)
    found = _ByBrightness(posterior.noise)
    for estimate, sigma, wrong, stated in parts:
        factor = 1.0 if posterior.contrast is None else posterior.contrast(estimate)
        found.add(sigma, wrong, stated * factor)
    gains = found.gains(least, LARGEST_CORRECTION)
    posterior.correct(found.table(gains))
    return gains


def _some(frames: Sequence[Tensor], learner: Learner) -> Sequence[Tensor]:
    """Return as many frames, evenly spread, as memory and time allow for so many outputs."""
    pixels = frames[0].shape[2] * frames[0].shape[3]
    return _evenly(frames, max(1, min(MOST_PIXELS, SAMPLED_VALUES // learner.outputs) // pixels))


def _evenly(frames: Sequence[Tensor], count: int) -> Sequence[Tensor]:
    """Return at most `count` frames, evenly spread: of every recording some."""
    return frames[:: -(-len(frames) // count)]


def _residuals(
    learner: PredictingLearner, frames: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the law's noise variance at hidden pixels and, in units of it, three things there.

    The squared residual, the prior's variance, and the pixel's own noise variance.
    """
    target, mean, ratio, own = learner.predict_hidden(frames, rng)
    law = learner.posterior.noise.variance(mean)
    return law, (target - mean) ** 2 / law, ratio * own / law, own / law


class _ByBrightness:
    """Squared errors and stated variances, summed over pixels of like noise."""

    def __init__(self, noise: TabulatedNoise) -> None:
        self._like = noise.variances
        self._spreads = noise.variances.sqrt().double().cpu().numpy()
        # Where there was something to fit by; beyond it the last correction holds.
        trained = noise.trained_variances.sqrt().double().cpu().numpy()
        self._knots = np.linspace(trained.min(), trained.max() + 1e-12, KNOTS)
        self._wrong, self._stated, self._weight = np.zeros((3, KNOTS))

    def add(self, sigma: Tensor, squared_error: Tensor, variance: Tensor) -> None:
        """Count pixels of any shape; each for the two knots around it, relative to its noise."""
        deviation, wrong, stated = (
            part.flatten().double().cpu().numpy() for part in (sigma, squared_error, variance)
        )
        share = np.stack([np.interp(deviation, self._knots, row) for row in np.eye(KNOTS)])
        self._wrong += share @ (wrong / deviation**2)
        self._stated += share @ (stated / deviation**2)
        self._weight += share.sum(axis=1)

    def gains(self, least: float, most: float, known: float = 0.0) -> NDArray[np.float64]:
        """Return squared error over stated variance at the knots, 1 where too little was seen.

        `known` is the error, in units of the noise's variance, that there is at least.
        """
        seen = (self._weight > FEWEST_PIXELS) & (self._stated > 0)
        if not seen.any():
            return np.ones(KNOTS)
        wrong = np.maximum(self._wrong, known * self._weight)[seen]
        found = np.clip(wrong / self._stated[seen], least, most)
        gains: NDArray[np.float64] = np.interp(self._knots, self._knots[seen], found)
        return gains

    def table(self, gains: NDArray[np.float64]) -> Tensor:
        """Return gains over the noise table, (G,)."""
        return torch.from_numpy(np.interp(self._spreads, self._knots, gains)).to(self._like)


def _error(
    learner: Learner, frames: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the estimate, the noise's standard deviation, the squared error, the stated variance.

    The error is known where there is a truth, and by Stein elsewhere.
    """
    if learner.target != "truth":
        return _risk(learner, learner.seen(frames), rng)
    seen, truth = learner.seen(frames), frames[:, -1:]
    excess, predicted = learner.excess(seen), learner.network(seen)
    estimate, variance = _by_strips(learner.posterior, seen[:, :1], predicted, excess)
    return (
        estimate,
        learner.posterior.prior(predicted, excess)[2].sqrt(),
        (estimate - truth) ** 2,
        variance,
    )


def _risk(
    learner: Learner, frames: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `_error` does, the squared error by Stein."""
    excess = learner.excess(frames)
    observation = frames[:, :1]
    predicted = learner.network(frames)
    estimate, variance = _by_strips(learner.posterior, observation, predicted, excess)
    sigma = learner.posterior.prior(predicted, excess)[2].sqrt()
    # As the noise is correlated: what neighbours share reaches the estimate through all of them.
    signs = learner.unit_noise.like(observation, rng)
    probed = observation + PROBE * sigma * signs
    predicted = learner.network(torch.cat([probed, frames[:, 1:]], dim=1))
    moved, _ = _by_strips(learner.posterior, probed, predicted, excess)
    error = (estimate - observation) ** 2 - sigma**2
    squared = error + 2 * sigma * signs * (moved - estimate) / PROBE
    return estimate, sigma, squared, variance


def _by_contrast(
    parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], noise: TabulatedNoise
) -> ContrastCorrection | None:
    """Return the factor of the variance by local contrast; None where it would change little.

    It is that beyond what is usual, which the brightness tells. Nothing is made less: in flat
    parts, some percent of error in the noise's variance would be enough for that.
    """
    contrast = LocalContrast(noise)
    wrong, stated, weight = np.zeros((3, len(CONTRASTS)))
    for estimate, sigma, squared, variance in parts:
        place, error, said = (
            part.flatten().double().cpu().numpy()
            for part in (
                contrast(estimate),
                squared / sigma**2,
                variance / sigma**2,
            )
        )
        knots = np.arange(len(CONTRASTS))
        share = np.maximum(1 - np.abs(place - knots[:, None]), 0)
        wrong, stated, weight = (
            total + share @ value
            for total, value in ((wrong, error), (stated, said), (weight, np.ones_like(place)))
        )
    seen = (weight > FEWEST_PIXELS) & (stated > 0)
    if not seen.any():
        return None
    ratio = wrong[seen] / stated[seen]
    usual = max(1.0, float(ratio[weight[seen].argmax()]))
    found = np.clip(ratio / usual, 1.0, LARGEST_CORRECTION)
    gains = np.interp(np.arange(len(CONTRASTS)), np.flatnonzero(seen), found)
    if gains.max() < LEAST_CONTRAST_GAIN:
        return None
    return ContrastCorrection(noise, [float(gain) for gain in gains])


def _by_strips(
    posterior: Posterior,
    observation: Tensor,
    predicted: Tensor,
    excess: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the estimate and its variance; some rows at a time, for the memory's sake.

    The likelihood of K samples under a mixture takes many times K planes.
    """
    rows = max(1, STRIP_VALUES // (predicted.shape[1] * predicted.shape[3]))
    planes = [torch.split(plane, rows, dim=2) for plane in (observation, predicted)]
    own = [None] * len(planes[0]) if excess is None else torch.split(excess, rows, dim=2)
    parts = [posterior(*strip) for strip in zip(*planes, own, strict=True)]
    mean, variance = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    return mean, variance


@torch.no_grad()
def least_ratio(learner: Learner, frames: Sequence[Tensor], rng: torch.Generator) -> float:
    """Return what the frames' own noise makes of the prediction where it is surest.

    The error cannot be less; what the network predicts wrongly by itself comes on top. It is in
    units of the law's noise variance, and of the law's noise alone: a few hot pixels would be all
    that is seen of a mean.
    """
    posterior = learner.posterior
    surest = []
    for frame in map(learner.seen, _evenly(frames, PROBED_FRAMES)):
        excess = learner.excess(frame)
        mean, ratio, noise = posterior.prior(learner.network(frame), excess)
        law = posterior.noise.variance(mean)
        shares = torch.tensor(learner.noise_shares or [1.0] * learner.inputs.own_frames)
        probed = _noisier(frame, law, shares, rng, learner.unit_noise)
        moved, _, _ = posterior.prior(learner.network(probed), excess)
        error = (moved - mean) ** 2 / (PROBE**2 * law)
        said = ratio * noise / law
        count = max(1, int(SUREST_SHARE * said.numel()))
        surest.append(error[said <= said.flatten().kthvalue(count).values].mean())
    return float(torch.stack(surest).mean().clamp_min(SMALLEST_RATIO))


def _noisier(
    frames: Tensor,
    noise: Tensor,
    shares: Tensor,
    rng: torch.Generator,
    unit_noise: UnitNoise = WHITE,
) -> Tensor:
    """Return frames with a little noise added to the newest, those before and those beside it.

    `shares` says for each of these how much, relative to the noise's variance.
    """
    own_frames = len(shares)
    noisy = frames[:, :own_frames]
    signs = unit_noise.like(noisy, rng)
    present = noisy.abs().amax(dim=(2, 3), keepdim=True) > 0
    deviation = (noise * shares.to(noise)[:, None, None]).sqrt()
    probed = noisy + PROBE * deviation * signs * present
    return torch.cat([probed, frames[:, own_frames:]], dim=1)


def _fit(
    squared: NDArray[np.float64],
    ratio: NDArray[np.float64],
    own: NDArray[np.float64],
    least: float,
) -> tuple[float, float]:
    """Return gain and floor by the likelihood of squared residuals.

    All are in units of the law's noise variance; `own` is the pixels' own, and `least` what must
    be said on the whole where the network is surest. That the noise model's variance is wrong by
    some percent is allowed for: it is told from the prior's by being the same where the network is
    more or less sure.
    """
    surest = float(ratio[ratio <= np.quantile(ratio, SUREST_SHARE)].mean())

    def floor(gain: float) -> float:
        return max(least - gain * surest, FLOOR_SHARE * least)

    def nll(free: NDArray[np.float64]) -> float:
        gain, noise = math.exp(free[0]), 1 + LARGEST_NOISE_ERROR * math.tanh(free[1])
        variance = noise * own + gain * ratio + floor(gain)
        return float((squared / variance + np.log(variance)).mean())

    best = minimize(nll, x0=np.zeros(2), method="Nelder-Mead", options={"maxiter": 80})
    gain = math.exp(best.x[0])
    if gain <= LARGEST_GAIN:
        return gain, floor(gain)
    # The network knows nothing of its error; then all pixels are said to be as wrong as they are
    # on average.
    excess = float((squared - own - LARGEST_GAIN * ratio).mean())
    return LARGEST_GAIN, max(excess, floor(LARGEST_GAIN))
