"""`n2v`, `n2v2`, `structn2v`: squared error of the mean at pixels that were hidden.

Owns their loss and how each of them hides. The network and the hiding itself are in
`model.masking`, with the papers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ...calibration.noise_correlation import NoiseCorrelation
from ..mask_kernel import MEASURED, offsets_of, text_of
from ..model.masking import MaskedPrior, MaskPlan, hidden_pixels
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import GaussianPosterior
from ..options import InputPlanes, TrainingOptions
from .gaussian import GaussianLearner

MOST_HIDDEN = 0.12
"""Share of the pixels that structn2v's lines may hide together: with more of them little is left
around a pixel from which it could be predicted."""
MOST_HIDDEN_AROUND = 0.3
"""The same where rows and columns are hidden: else few pixels would be learned from at a time."""
HIDDEN_CORRELATION = 0.05
"""From which on a pixel off the line is hidden with another."""


class MaskedLearner(GaussianLearner):
    """A learner that hides pixels of the newest frame.

    The variance is trained on the same pixels by the marginal likelihood with the mean held fixed:
    the likelihood alone would slow the mean down.
    """

    network: MaskedPrior
    mask: MaskPlan
    learning_rate = 3e-3
    artefact_free = False
    """Whether the network is N2V2's."""

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = MaskedPrior(inputs.further, options.plan, artefact_free=self.artefact_free)
        self.posterior = GaussianPosterior(noise, uses_observation=False)
        self._start()
        self.mask = self.plan_of(options)
        self.transpose = self.mask.is_square

    @classmethod
    @abstractmethod
    def plan_of(cls, options: TrainingOptions) -> MaskPlan:
        """Return how pixels are hidden."""

    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return hidden pixels (M, 1), the network's outputs there (M, C), and their excess."""
        planes, predicted = hidden_pixels(self.network, frames, self.mask, rng)
        return planes[:, :1], predicted, self.excess(planes)

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return squared error plus the weighted likelihood loss of the variance."""
        return self.squared_error(*self.predict_hidden(frames, rng))

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the squared error at hidden pixels: what the mean is trained for."""
        target, mean, _, _ = self.predict_hidden(frames, rng)
        return functional.mse_loss(mean, target)


class Noise2Void(MaskedLearner):
    """`n2v`: a hidden pixel is replaced by a random one of its neighbourhood."""

    @classmethod
    def plan_of(cls, options: TrainingOptions) -> MaskPlan:
        """Return how pixels are hidden."""
        return MaskPlan(options.masked_pixel_fraction)


class Noise2Void2(MaskedLearner):
    """`n2v2`: by the median around it, under a network that leaves no checkerboard."""

    artefact_free = True

    @classmethod
    def plan_of(cls, options: TrainingOptions) -> MaskPlan:
        """Return how pixels are hidden."""
        return MaskPlan(options.masked_pixel_fraction, replacement="median")


class StructNoise2Void(MaskedLearner):
    """`structn2v`: the pixels with which one shares its noise are hidden together with it."""

    artefact_free = True

    @classmethod
    def plan_of(cls, options: TrainingOptions) -> MaskPlan:
        """Return how pixels are hidden."""
        if options.mask_kernel:
            kernel = offsets_of(options.mask_kernel)
        else:
            span = options.mask_span or 0
            line = range(-span, span + 1)
            kernel = tuple((n, 0) if options.mask_axis == "y" else (0, n) for n in line)
        is_line = len({y for y, _ in kernel}) == 1 or len({x for _, x in kernel}) == 1
        most = (MOST_HIDDEN if is_line else MOST_HIDDEN_AROUND) / len(kernel)
        return MaskPlan(min(options.masked_pixel_fraction, most), kernel=kernel)

    @classmethod
    def fitted_to(
        cls,
        options: TrainingOptions,
        correlation: Callable[[], NoiseCorrelation],
        remark: Callable[[str], None],
    ) -> TrainingOptions:
        """Fill in what is hidden where it was not given."""
        if options.mask_kernel not in (None, MEASURED) or (
            options.mask_axis and options.mask_span
        ):
            return options
        found = correlation()
        wanted = options.mask_kernel == MEASURED
        if wanted or (found.is_two_dimensional() and not (options.mask_axis or options.mask_span)):
            kernel = text_of(found.shared(HIDDEN_CORRELATION))
            rows, columns = (2 * far + 1 for far in MaskPlan(1.0, kernel=offsets_of(kernel)).reach)
            remark(
                f"{found.described()}: structn2v hides {len(offsets_of(kernel))} pixels together, "
                f"within {rows}x{columns}; --mask-kernel chooses otherwise"
            )
            return replace(options, mask_kernel=kernel)
        axis = options.mask_axis or found.axis()
        span = options.mask_span or max(1, found.span(axis))
        remark(
            f"{found.described()}: structn2v hides {span} pixels on either side along {axis}; "
            "--mask-axis and --mask-span choose otherwise"
        )
        return replace(options, mask_axis=axis, mask_span=span)
