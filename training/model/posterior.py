"""From what the network says and what the camera saw to the estimate and its uncertainty.

Owns Bayes' rule in two forms: a Gaussian prior with a closed-form posterior, and a prior given by
samples (PN2V). Network units throughout.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .contrast_correction import ContrastCorrection
from .noise_likelihood import TabulatedNoise

LEAST_RATIO = 5e-3
"""Of prior to noise variance. No prediction rests on more than a few hundred pixels' worth of
light, so none is more certain than that while it is trained; and where the spread changes sign it
is no certainty. Afterwards the floor is fitted, see `variance`."""
UNTRAINED_SHARE = 0.05
"""Of what a prediction lies above the brightest trained pixel: how wrong it is, as a standard
deviation. At three times the light errors are least with it, and as large as is said."""
START_SPREAD = 0.7
"""What the network's second output should be before training: half the noise's variance."""


class Posterior(nn.Module, ABC):
    """Turns the observation and the network's outputs into the signal's mean and variance.

    Attributes
    ----------
    noise
        The camera.
    contrast
        A factor of the variance for whoever has the whole picture; None if there is none.
    uses_observation
        Whether the pixel itself, which the network has not seen, adds to what that says.
    """

    noise: TabulatedNoise
    uses_observation: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.contrast: ContrastCorrection | None = None

    @abstractmethod
    def correct(self, gain: Tensor) -> None:
        """State variances larger by `gain`, (G,) over the noise table; estimates stay."""

    @abstractmethod
    def prior(
        self, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the outputs say alone: mean, ratio of its variance to the noise's, noise."""

    def figures(self) -> dict[str, float | None]:
        """Return what a manifest keeps of it."""
        return {}


def marginal_nll(observation: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return −log N(observation; mean, variance), elementwise.

    `variance` is the sum of the prior's and the noise's: the observation's distribution once the
    unknown signal is integrated out (Laine et al. 2019, arXiv:1901.10277).
    """
    return 0.5 * ((observation - mean) ** 2 / variance + torch.log(2 * math.pi * variance))


class GaussianPosterior(Posterior):
    """A network output of (mean, spread) as a Gaussian prior.

    The prior's variance is spread² times the noise's. A logarithm of the variance would do as
    well, until a step too far brings it where its gradient vanishes: there the network stays sure
    of itself, and wrong. The square has no such place.

    Parameters
    ----------
    noise
        The camera.
    uses_observation
        True if the network has not seen the pixel itself, so that the observation adds to what it
        says. A masked network has seen it at inference and must not count it twice: then the
        estimate is the network's mean, and its uncertainty the network's own.
    """

    ratio_gain: Tensor
    ratio_floor: Tensor
    stated: Tensor

    def __init__(self, noise: TabulatedNoise, *, uses_observation: bool) -> None:
        super().__init__()
        self.noise = noise
        self.uses_observation = uses_observation
        # Fitted on held-out frames after training: the network's own variance is overconfident.
        self.register_buffer("ratio_gain", torch.ones(()))
        self.register_buffer("ratio_floor", torch.tensor(LEAST_RATIO))
        self.register_buffer("stated", noise.variances.clone())

    def forward(
        self, observation: Tensor, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the signal's mean and variance, (N, 1, Y, X) each.

        `excess` is what `TabulatedNoise` takes, (N, 1, Y, X), where pixels differ.

        For Poisson noise, whose variance is the signal, the mean is exact under a gamma prior as
        well: few photons do not break it.
        """
        mean, ratio, own = self.prior(predicted, excess)
        unit = self.noise.interpolated(self.stated, mean)
        if excess is not None:
            unit = unit * own / self.noise.variance(mean)
        if not self.uses_observation:
            return mean, ratio * unit
        share = ratio / (ratio + 1)
        return mean + (observation - mean) * share, share * unit

    def correct(self, gain: Tensor) -> None:
        """State variances larger by `gain`, (G,) over the noise table; estimates stay."""
        self.stated.copy_(self.noise.variances * gain)

    def prior(
        self, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, ratio of prior to noise variance, and noise variance at the mean.

        For network outputs (N, 2, …), (N, 1, …) each. The network's spread is in units of the
        law's noise: what is known of a pixel from around it does not depend on its own amplifier.
        """
        mean = predicted[:, :1]
        ratio = self.ratio_gain * predicted[:, 1:] ** 2 + self.ratio_floor
        law = self.noise.variance(mean)
        # Of light beyond what was trained on the network knows nothing but how it went on there.
        beyond = (mean - self.noise.last_trained).clamp_min(0.0)
        ratio = ratio + (UNTRAINED_SHARE * beyond) ** 2 / law
        if excess is None:
            return mean, ratio, law
        own = self.noise.variance(mean, excess)
        return mean, ratio * law / own, own

    def figures(self) -> dict[str, float | None]:
        """Return what was fitted on held-out frames."""
        return {
            "variance_ratio_gain": float(self.ratio_gain),
            "variance_ratio_floor": float(self.ratio_floor),
        }


class CorrectedPosterior(Posterior):
    """A posterior whose stated variance is multiplied by a factor that was fitted by brightness.

    Attributes
    ----------
    stated_gain
        The factor over the noise table, (G,); fitted on held-out frames after training.
    """

    stated_gain: Tensor

    def __init__(self, noise: TabulatedNoise) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("stated_gain", torch.ones_like(noise.variances))

    def correct(self, gain: Tensor) -> None:
        """State variances larger by `gain`, (G,) over the noise table; estimates stay."""
        self.stated_gain.copy_(gain)


class SampledPosterior(CorrectedPosterior):
    """A network output of K samples of the signal, weighted by the observation (PN2V).

    Krull et al. 2020, doi:10.3389/fcomp.2020.00005. The mean of the outputs is that of the
    samples; how far each lies from it is in units of the law's noise there, so that dim and bright
    pixels begin alike.
    """

    spread: Tensor
    ratio_floor: Tensor
    uses_observation = True

    def __init__(self, noise: TabulatedNoise) -> None:
        super().__init__(noise)
        # Fitted on held-out frames after training: where the noise's form is not quite that of the
        # mixture, samples that lie too far apart explain what was observed better.
        self.register_buffer("spread", torch.ones_like(noise.variances))
        self.register_buffer("ratio_floor", torch.tensor(LEAST_RATIO))

    def forward(
        self, observation: Tensor, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the signal's mean and variance, (N, 1, Y, X), for outputs (N, K, Y, X)."""
        prior_mean, samples = self.samples(predicted)
        weights = torch.softmax(self.noise.log_likelihood(observation, samples, excess), dim=1)
        mean = (weights * samples).sum(dim=1, keepdim=True)
        # A few samples may agree by chance: the floor is what none of them knows.
        variance = (weights * (samples - mean) ** 2).sum(dim=1, keepdim=True)
        variance = variance + self.ratio_floor * self.noise.variance(prior_mean)
        return mean, variance * self.noise.interpolated(self.stated_gain, prior_mean)

    def samples(self, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples' mean (N, 1, …) and the samples (N, K, …).

        Only the first carries a gradient into the mean: it must not buy likelihood.
        """
        mean = predicted.mean(dim=1, keepdim=True)
        still = mean.detach()
        unit = self.noise.interpolated(self.noise.variances.sqrt() * self.spread, still)
        return mean, still + (predicted - mean) * unit

    def prior(
        self, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, ratio of the samples' variance to the noise's, and the noise's variance."""
        mean, samples = self.samples(predicted)
        own = self.noise.variance(mean, excess)
        return mean, samples.var(1, keepdim=True) / own, own

    def figures(self) -> dict[str, float | None]:
        """Return what was fitted on held-out frames."""
        return {
            "least_sample_spread": float(self.spread.min()),
            "variance_ratio_floor": float(self.ratio_floor),
        }


class DrawnPosterior(CorrectedPosterior):
    """A network output of S samples from the posterior itself: what they agree on is the estimate.

    They have seen the observation, so that nothing is weighed again. Their mean is the MMSE
    estimate of Prakash et al. 2021, arXiv:2006.06072, and their scatter its uncertainty.
    """

    def forward(
        self, observation: Tensor, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance, (N, 1, Y, X) each, for samples (N, S, Y, X)."""
        mean, variance = self._moments(predicted)
        return mean, variance * self.noise.interpolated(self.stated_gain, mean)

    def prior(
        self, predicted: Tensor, excess: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, ratio of the samples' variance to the noise's, the noise's variance."""
        mean, variance = self._moments(predicted)
        own = self.noise.variance(mean, excess)
        return mean, variance / own, own

    @staticmethod
    def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
        mean = samples.mean(dim=1, keepdim=True)
        count = samples.shape[1]
        # Of a mean of few samples, the error that more of them would take away comes on top.
        share = (1 + 1 / count) / (count - 1)
        return mean, ((samples - mean) ** 2).sum(dim=1, keepdim=True) * share
