"""The blind-spot methods: which network each trains, on what loss, and how the result is read.

Owns the difference between `lattice`, `n2v`, `n2v2`, `structn2v` and `pn2v`. The loop in `train`
sees only a Learner.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from ..options import InputPlanes, TrainingOptions
from .lattice import LatticePrior
from .masking import MaskedPrior, MaskPlan, hide
from .noise_likelihood import TabulatedNoise
from .posterior import START_SPREAD, GaussianPosterior, SampledPosterior, marginal_nll


class Learner(ABC):
    """A network, its loss, and the posterior that turns its outputs into an estimate."""

    network: LatticePrior | MaskedPrior
    posterior: GaussianPosterior | SampledPosterior
    inputs: InputPlanes
    learning_rate: float
    mask: MaskPlan | None = None
    """How pixels are hidden; None for the lattice, which hides them by what it is."""
    outputs = 2
    """Of the network, per pixel."""
    transpose = True
    """Whether patches may be transposed: not where the noise has a direction."""

    @abstractmethod
    def loss(self, frames: Tensor, chance: torch.Generator) -> Tensor:
        """Return what is minimised, for patches (B, inputs, P, P) in network units."""

    @abstractmethod
    def score(self, frames: Tensor, chance: torch.Generator) -> Tensor:
        """Return the loss on held-out frames; less is better."""

    def hidden(
        self, frames: Tensor, chance: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return hidden observations, the network's outputs there, and their excess.

        Of a lattice (B, 1, P/3, P/3), (B, C, P/3, P/3) and so on; else (M, 1), (M, C).
        """
        if self.mask is None:
            target, predicted = self.network.predict_target(frames)  # type: ignore[operator]
            return target, predicted, self.excess(self.network.middle(frames))  # type: ignore[operator]
        masked, places = hide(frames, self.mask, chance)
        predicted = self.network.at(masked, places)  # type: ignore[operator]
        patch, y, x = places
        return frames[patch, 0, y, x][:, None], predicted, self.excess(frames[patch, :, y, x])

    def predict_hidden(
        self, frames: Tensor, chance: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return hidden observations; mean, variance ratio and noise variance predicted there."""
        target, predicted, excess = self.hidden(frames, chance)
        return target, *self.posterior.prior(predicted, excess)

    def excess(self, frames: Tensor) -> Tensor | None:
        """Return the plane that says how noisy each pixel is, None where all are alike."""
        return frames[:, -1:] if self.inputs.pixel_maps else None


class GaussianLearner(Learner):
    """A learner whose network predicts mean and spread of the signal."""

    posterior: GaussianPosterior

    def score(self, frames: Tensor, chance: torch.Generator) -> Tensor:
        """Return the mean negative marginal log-likelihood of the hidden observations."""
        target, mean, ratio, noise_variance = self.predict_hidden(frames, chance)
        return marginal_nll(target, mean, (1 + ratio) * noise_variance).mean()

    def _start(self) -> None:
        with torch.no_grad():
            self.network.network.head.bias[1] = START_SPREAD  # type: ignore[index]


class LatticeLearner(GaussianLearner):
    """`lattice`: predict one sub-lattice from the other eight, by quasi-likelihood."""

    learning_rate = 4e-3

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network: LatticePrior = LatticePrior(inputs.further, options.plan)
        self.posterior = GaussianPosterior(noise, uses_observation=True)
        self._start()

    def loss(self, frames: Tensor, chance: torch.Generator) -> Tensor:
        """Return quasi-likelihood loss of the mean plus likelihood loss of the variance."""
        target, mean, ratio, noise_variance = self.predict_hidden(frames, chance)
        variance = (1 + ratio) * noise_variance.detach()
        # The mean is not allowed to buy likelihood with the variance that belongs to it. For
        # Poisson counts its gradient is then the exact likelihood's (Wedderburn 1974,
        # doi:10.1093/biomet/61.3.439), which that of a normal law is not.
        fit = 0.5 * (target - mean) ** 2 / variance.detach()
        return (fit + marginal_nll(target, mean.detach(), variance)).mean()


MOST_HIDDEN = 0.12
"""Share of the pixels that structn2v's lines may hide together."""


class MaskedLearner(GaussianLearner):
    """`n2v`, `n2v2`, `structn2v`: squared error of the mean at hidden pixels.

    The variance is trained on the same pixels by the marginal likelihood with the mean held fixed:
    the likelihood alone would slow the mean down.
    """

    learning_rate = 3e-3

    def __init__(
        self,
        options: TrainingOptions,
        noise: TabulatedNoise,
        inputs: InputPlanes,
        mask: MaskPlan,
        *,
        artefact_free: bool,
    ) -> None:
        self.inputs = inputs
        self.network = MaskedPrior(inputs.further, options.plan, artefact_free=artefact_free)
        self.posterior = GaussianPosterior(noise, uses_observation=False)
        self._start()
        self.mask = mask
        self.transpose = mask.span_x == mask.span_y

    def loss(self, frames: Tensor, chance: torch.Generator) -> Tensor:
        """Return squared error plus the weighted likelihood loss of the variance."""
        target, mean, ratio, noise_variance = self.predict_hidden(frames, chance)
        variance = (1 + ratio) * noise_variance.detach()
        # Weighted by the variance itself (Seitzer et al. 2022, arXiv:2203.09168): where hardly any
        # noise is expected the bare likelihood would drown the squared error.
        likelihood = marginal_nll(target, mean.detach(), variance) * variance.detach()
        return functional.mse_loss(mean, target) + likelihood.mean()

    def score(self, frames: Tensor, chance: torch.Generator) -> Tensor:
        """Return the squared error at hidden pixels: what the mean is trained for."""
        target, mean, _, _ = self.predict_hidden(frames, chance)
        return functional.mse_loss(mean, target)


SAMPLED_PIXELS = 2_048
"""Of a batch, whose likelihood under the samples is taken."""
NLL_SHARE = 0.1
"""Of the likelihood in pn2v's loss: what it weighs in the layers that mean and samples share. At
few pixels and under a mixture with narrow parts its gradient is noisy: the mean would suffer."""


class SampledLearner(Learner):
    """`pn2v`: K samples of the signal per pixel, −log (1/K) Σ p(x | s_k) at hidden pixels.

    On the lattice the samples know nothing of the pixel's own noise, so that weighing them by the
    observation is sound. PN2V's authors sample with a masked network, which sees the pixel when it
    is used: the observation then counts twice.
    """

    posterior: SampledPosterior
    learning_rate = 4e-3

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network: LatticePrior | MaskedPrior
        if options.samples_from == "lattice":
            self.network = LatticePrior(inputs.further, options.plan, outputs=options.samples)
        else:
            self.network = MaskedPrior(
                inputs.further,
                options.plan,
                artefact_free=options.samples_from == "n2v2",
                outputs=options.samples,
            )
            self.mask = MaskPlan(options.masked_pixel_fraction)
        self.posterior = SampledPosterior(noise)
        self.outputs = options.samples
        # Apart from the start: samples that agree learn the same and stay together.
        with torch.no_grad():
            rank = (torch.arange(options.samples) + 0.5) / options.samples
            self.network.network.head.bias[:] = START_SPREAD * torch.special.ndtri(rank)  # type: ignore[index]

    def loss(self, frames: Tensor, chance: torch.Generator) -> Tensor:
        """Return the quasi-likelihood loss of the samples' mean, and a share of their likelihood.

        The likelihood alone moves only the samples that already explain what was observed, and
        takes very long to bring the others there.
        """
        target, predicted, excess = self.hidden(frames, chance)
        mean = predicted.mean(dim=1, keepdim=True)
        with torch.no_grad():
            _, ratio, noise_variance = self.posterior.prior(predicted, excess)
            variance = (1 + ratio) * noise_variance
        fit = 0.5 * (target - mean) ** 2 / variance
        return fit.mean() + NLL_SHARE * self._nll(target, predicted, excess, chance)

    def score(self, frames: Tensor, chance: torch.Generator) -> Tensor:
        """Return the mean negative log-likelihood of the hidden pixels under the samples."""
        return self._nll(*self.hidden(frames, chance), chance)

    def _nll(
        self, target: Tensor, predicted: Tensor, excess: Tensor | None, chance: torch.Generator
    ) -> Tensor:
        # The likelihood of K samples at every pixel would cost far more than the network.
        count = target.numel()
        chosen = torch.randperm(count, generator=chance)[:SAMPLED_PIXELS].to(target.device)
        _, samples = self.posterior.samples(predicted.movedim(1, -1).reshape(count, -1)[chosen])
        likelihood = self.posterior.noise.log_likelihood(
            target.flatten()[chosen][:, None],
            samples,
            None if excess is None else excess.flatten()[chosen][:, None],
        )
        return -(torch.logsumexp(likelihood, dim=1) - math.log(samples.shape[1])).mean()


def learner_for(
    options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes | None = None
) -> Learner:
    """Return the learner of `options.algorithm`, its weights drawn from torch's generator.

    `inputs` says what the network is given; by default preceding frames alone.
    """
    inputs = inputs or InputPlanes(options.context_frames)
    fraction = options.masked_pixel_fraction
    match options.algorithm:
        case "lattice":
            return LatticeLearner(options, noise, inputs)
        case "n2v":
            return MaskedLearner(options, noise, inputs, MaskPlan(fraction), artefact_free=False)
        case "n2v2":
            mask = MaskPlan(fraction, replacement="median")
            return MaskedLearner(options, noise, inputs, mask, artefact_free=True)
        case "structn2v":
            span = options.mask_span or 0
            mask = MaskPlan(
                min(fraction, MOST_HIDDEN / (2 * span + 1)),
                span_y=span if options.mask_axis == "y" else 0,
                span_x=span if options.mask_axis == "x" else 0,
            )
            return MaskedLearner(options, noise, inputs, mask, artefact_free=True)
        case "pn2v":
            return SampledLearner(options, noise, inputs)
