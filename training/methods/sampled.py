"""`pn2v`: K samples of the signal per pixel, −log (1/K) Σ p(x | s_k) at hidden pixels.

Owns its loss. Samples and their weights are in `model.posterior`, with the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.lattice import LatticePrior
from ..model.masking import MaskedPrior, MaskPlan, hidden_pixels
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import START_SPREAD, SampledPosterior
from ..options import InputPlanes, TrainingOptions
from .learner import LATTICE_PATCH, MASKED_PATCH, PredictingLearner
from .uncertainty_calibration import calibrate_spread

SAMPLED_PIXELS = 2_048
"""Of a batch, whose likelihood under the samples is taken: that of all of them, under each of K
samples, would cost far more than the network."""
NLL_SHARE = 0.1
"""Of the likelihood in pn2v's loss: what it weighs in the layers that mean and samples share. At
few pixels and under a mixture with narrow parts its gradient is noisy: the mean would suffer."""


class ProbabilisticNoise2Void(PredictingLearner):
    """The learner of `pn2v`.

    On the lattice the samples know nothing of the pixel's own noise, so that weighing them by the
    observation is sound. PN2V's authors sample with a masked network, which sees the pixel when it
    is used: the observation then counts twice.
    """

    network: LatticePrior | MaskedPrior
    posterior: SampledPosterior
    learning_rate = 4e-3

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        if options.samples_from == "lattice":
            self.network = LatticePrior(
                inputs.further, options.lattice_plan, outputs=options.samples
            )
        else:
            self.network = MaskedPrior(
                inputs.further,
                options.plan,
                artefact_free=options.samples_from == "n2v2",
                outputs=options.samples,
            )
            self.mask = MaskPlan(options.masked_pixel_fraction)
        self.sees_its_pixel = self.mask is not None
        self.posterior = SampledPosterior(noise)
        self.outputs = options.samples
        # Apart from the start: samples that agree learn the same and stay together.
        with torch.no_grad():
            rank = (torch.arange(options.samples) + 0.5) / options.samples
            self.network.network.head.bias[:] = START_SPREAD * torch.special.ndtri(rank)  # type: ignore[index]

    @classmethod
    def patch_edge(cls, options: TrainingOptions) -> int:
        """Return the edge of the patches in pixels."""
        return LATTICE_PATCH if options.samples_from == "lattice" else MASKED_PATCH

    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return hidden observations, the samples there, and their excess."""
        if self.mask is not None:
            planes, predicted = hidden_pixels(self.network, frames, self.mask, rng)  # type: ignore[arg-type]
            return planes[:, :1], predicted, self.excess(planes)
        target, predicted = self.network.predict_target(frames)  # type: ignore[operator]
        return target, predicted, self.excess(self.network.middle(frames))  # type: ignore[operator]

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the quasi-likelihood loss of the samples' mean, and a share of their likelihood.

        The likelihood alone moves only the samples that already explain what was observed, and
        takes very long to bring the others there.
        """
        target, predicted, excess = self.hidden(frames, rng)
        mean = predicted.mean(dim=1, keepdim=True)
        with torch.no_grad():
            _, ratio, noise_variance = self.posterior.prior(predicted, excess)
            variance = (1 + ratio) * noise_variance
        fit = 0.5 * (target - mean) ** 2 / variance
        return fit.mean() + NLL_SHARE * self._nll(target, predicted, excess, rng)

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the mean negative log-likelihood of the hidden pixels under the samples."""
        return self._nll(*self.hidden(frames, rng), rng)

    def calibrate_prior(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Fit how far the samples lie apart."""
        calibrate_spread(self, frames, rng)

    def _nll(
        self, target: Tensor, predicted: Tensor, excess: Tensor | None, rng: torch.Generator
    ) -> Tensor:
        count = target.numel()
        chosen = torch.randperm(count, generator=rng)[:SAMPLED_PIXELS].to(target.device)
        _, samples = self.posterior.samples(predicted.movedim(1, -1).reshape(count, -1)[chosen])
        likelihood = self.posterior.noise.log_likelihood(
            target.flatten()[chosen][:, None],
            samples,
            None if excess is None else excess.flatten()[chosen][:, None],
        )
        return -(torch.logsumexp(likelihood, dim=1) - math.log(samples.shape[1])).mean()
