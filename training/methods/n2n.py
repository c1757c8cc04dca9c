"""`n2n`: predict one noisy frame from another of the same scene (Noise2Noise).

Owns its losses and what each of them is good for. Which frames show the same is decided in
`data.targets`. Source: Lehtinen et al. 2018, arXiv:1803.04189.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.masking import MaskedPrior
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import GaussianPosterior
from ..options import InputPlanes, TrainingOptions
from .gaussian import GaussianLearner

FIRST_EXPONENT = 2.0
"""Of the annealed loss at the beginning of a run, 0 at its end, as the authors have it."""
SCORED_EXPONENT = 0.5
"""With which held-out frames are scored under it: one measure for the whole run."""
LEAST_DIFFERENCE = 1e-8
"""The authors': keeps the annealed loss's gradient finite."""
SUITS = {
    "l2": "gives the mean: right for noise that is zero on average, as a camera's is; l1 or l0 "
    "where pixels are replaced (--loss)",
    "l1": "gives the median: right where up to half of the pixels are replaced (text, dead or hot "
    "ones); too dark where photons are few",
    "l0": "gives the commonest value: right where more than half of the pixels are replaced by "
    "random ones; too dark where photons are few",
    "hdr": "weighs errors by brightness: right where few very bright pixels would decide all",
}


class Noise2Noise(GaussianLearner):
    """The learner of `n2n`: a U-Net that sees every pixel, since the target's noise is another's.

    The variance is trained as that of the masked networks is.
    """

    network: MaskedPrior
    learning_rate = 3e-3
    target = "repeat"
    takes_noise_for_independent = False
    losses = tuple(SUITS)

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = MaskedPrior(inputs.further, options.plan, artefact_free=False)
        self.posterior = GaussianPosterior(noise, uses_observation=False)
        self.name = options.loss or "l2"
        self._start()

    @classmethod
    def remarks(cls, options: TrainingOptions) -> Sequence[str]:
        """Say what the loss is good for."""
        name = options.loss or "l2"
        return (f"n2n with the loss {name} {SUITS[name]}",)

    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the other frame, the network's outputs, and the excess."""
        seen = self.seen(frames)
        return frames[:, -1:], self.network(seen), self.excess(seen)

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the chosen loss plus the weighted likelihood loss of the variance."""
        target, mean, ratio, noise_variance = self.predict_hidden(frames, rng)
        exponent = FIRST_EXPONENT * (1 - self.progress)
        spread = self.spread_loss(target, mean, ratio, noise_variance)
        return self._difference(mean, target, exponent) + spread

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the chosen loss alone."""
        target, mean, _, _ = self.predict_hidden(frames, rng)
        return self._difference(mean, target, SCORED_EXPONENT)

    def _difference(self, mean: Tensor, target: Tensor, exponent: float) -> Tensor:
        light = None
        if self.name == "hdr":
            # The authors add a hundredth of their images' unit; of a camera, the light that its
            # noise in the dark amounts to is what cannot be told from none.
            noise = self.posterior.noise
            light = (mean.detach() - noise.first).clamp_min(0) + noise.variances[0].sqrt()
        return difference(self.name, mean, target, exponent=exponent, light=light).mean()


def difference(
    loss: str,
    mean: Tensor,
    target: Tensor,
    *,
    exponent: float = FIRST_EXPONENT,
    light: Tensor | None = None,
) -> Tensor:
    """Return what a loss of `SUITS` makes of every pixel.

    `exponent` is the annealed one's, which falls from `FIRST_EXPONENT` to 0; `light` is how bright
    a pixel is, for `hdr`.
    """
    if loss == "l1":
        return (mean - target).abs()
    if loss == "l0":
        return ((mean - target).abs() + LEAST_DIFFERENCE).pow(exponent)
    squared = (mean - target) ** 2
    return squared if light is None else squared / light**2
