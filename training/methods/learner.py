"""What every method is to the loop in `train`: a Learner.

Owns the interface and what all methods share. It knows neither where patches come from nor how
weights are updated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..data.noise_correlation import NoiseCorrelation
from ..model.lattice import LatticePrior
from ..model.masking import MaskedPrior, MaskPlan
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import GaussianPosterior, SampledPosterior
from ..options import InputPlanes, TrainingOptions

LATTICE_PATCH = 96
"""Pixels: a third of it is what the network sees of a patch, and its pooling needs 32."""
MASKED_PATCH = 64
"""Pixels, as in N2V."""


class Learner(ABC):
    """A network, its loss, and the posterior that turns its outputs into an estimate.

    Parameters
    ----------
    options
        The choices of the run.
    noise
        The camera's, in network units.
    inputs
        What the network is given.
    """

    network: LatticePrior | MaskedPrior
    posterior: GaussianPosterior | SampledPosterior
    inputs: InputPlanes
    learning_rate: ClassVar[float]
    """Peak of the schedule, where none was asked for."""
    mask: MaskPlan | None = None
    """How pixels are hidden; None for the lattice, which hides them by what it is."""
    outputs = 2
    """Of the network, per pixel."""
    transpose = True
    """Whether patches may be transposed: not where the noise has a direction."""

    @abstractmethod
    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None: ...

    @classmethod
    @abstractmethod
    def patch_edge(cls, options: TrainingOptions) -> int:
        """Return the edge of the patches in pixels, where none was asked for."""

    @classmethod
    def fitted_to(
        cls,
        options: TrainingOptions,
        correlation: Callable[[], NoiseCorrelation],
        remark: Callable[[str], None],
    ) -> TrainingOptions:
        """Return the options with what the method chooses by the recordings' noise.

        `correlation` measures it. Methods that take noise for independent tell `remark` where it
        is not.
        """
        found = correlation()
        if found.is_strong():
            remark(
                f"{found.described()}, which {options.algorithm} takes for signal: train with "
                f"--algorithm structn2v --mask-axis {found.axis()} --mask-span "
                f"{max(1, found.span(found.axis()))}, or give frames as the camera wrote them if "
                "these were filtered"
            )
        return options

    @abstractmethod
    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return what is minimised, for patches (B, inputs, P, P) in network units."""

    @abstractmethod
    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the loss on held-out frames; less is better."""

    @abstractmethod
    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return hidden observations, the network's outputs there, and their excess.

        Of a lattice (B, 1, P/3, P/3), (B, C, P/3, P/3) and so on; else (M, 1), (M, C).
        """

    @abstractmethod
    def calibrate_prior(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Fit on held-out frames what the posterior holds for the network's own uncertainty."""

    @property
    def sees_its_pixel(self) -> bool:
        """Whether the network sees the pixel itself when it is used; while trained none does."""
        return self.mask is not None

    def predict_hidden(
        self, frames: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return hidden observations; mean, variance ratio and noise variance predicted there."""
        target, predicted, excess = self.hidden(frames, rng)
        return target, *self.posterior.prior(predicted, excess)

    def excess(self, frames: Tensor) -> Tensor | None:
        """Return the plane that says how noisy each pixel is, None where all are alike."""
        return frames[:, -1:] if self.inputs.pixel_maps else None
