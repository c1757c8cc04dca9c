"""What every method is to the loop in `train`: a Learner.

Owns the interface and what all methods share. It knows neither where patches come from nor how
weights are updated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ...calibration.noise_correlation import NoiseCorrelation
from ..model.masking import MaskPlan
from ..model.network import Network
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import Posterior
from ..model.unit_noise import UnitNoise
from ..options import InputPlanes, TrainingOptions

LATTICE_PATCH = 96
"""Pixels: a third of it is what the network sees of a patch, and its pooling needs 32."""
MASKED_PATCH = 64
"""Pixels, as in N2V."""


TargetKind = Literal["pixel", "repeat", "truth", "picture"]
"""What a network learns from: pixels of its own frames that it does not see, another noisy frame
of the same scene, clean frames, or a teacher's pictures of the frames."""


@dataclass(frozen=True, slots=True)
class Player:
    """A network that is trained, by a loss of its own.

    Attributes
    ----------
    network
        Whose weights a step changes.
    loss
        What it minimises, as `Learner.loss`.
    rate
        Its learning rate, relative to the run's.
    betas
        Of Adam.
    turns
        How many steps it takes for one of the run.
    """

    network: nn.Module
    loss: Callable[[Tensor, torch.Generator], Tensor]
    rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    turns: int = 1


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

    network: Network
    posterior: Posterior
    inputs: InputPlanes
    learning_rate: float
    """Peak of the schedule, where none was asked for."""
    target: ClassVar[TargetKind] = "pixel"
    losses: ClassVar[tuple[str, ...]] = ()
    """The names that `--loss` may have, the first by default; () where there is no choice."""
    compares_features: ClassVar[bool] = False
    """Whether estimates are also compared by the features of a given network."""
    draws_samples: ClassVar[bool] = False
    """Whether the network can `sample` the signal instead of giving its mean."""
    takes_noise_for_independent: ClassVar[bool] = True
    """Whether noise that neighbours share is taken for signal."""
    outputs = 2
    """Of the network, per pixel."""
    transpose = True
    """Whether patches may be transposed: not where the noise has a direction."""
    begins_trained = False
    """Whether the network is of use before the first step: then it is scored there, and kept if no
    later one is better."""
    sees_its_pixel = True
    """Whether the network sees the pixel itself when it is used."""
    noise_shares: ClassVar[Sequence[float]] = ()
    """Of a frame's noise variance, what each plane of its channel has; () where all have it."""
    progress = 0.0
    """The share of the run that is done, told by the loop before each step."""
    unit_noise = UnitNoise()
    """Draws noise that is correlated as the recordings' is."""

    @abstractmethod
    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None: ...

    @classmethod
    def patch_edge(cls, options: TrainingOptions) -> int:
        """Return the edge of the patches in pixels, where none was asked for."""
        return MASKED_PATCH

    @classmethod
    def remarks(cls, options: TrainingOptions) -> Sequence[str]:
        """Return what a person should know of the method before it is trained."""
        return ()

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
        for said in cls.remarks(options):
            remark(said)
        if not cls.takes_noise_for_independent:
            return options
        found = correlation()
        if found.is_correlated:
            remark(
                f"{found.described()}, which {options.algorithm} takes for signal: its result is "
                "not clean; train with --algorithm r2r, or give frames as the camera wrote them "
                "if these were filtered"
            )
        return options

    @classmethod
    def teacher_options(cls, options: TrainingOptions) -> TrainingOptions | None:
        """Return those of a network that is trained first; None where nothing else is needed."""
        return None

    def require_suited(  # noqa: B027 (most methods take all recordings)
        self, frames: Sequence[Tensor], rng: torch.Generator
    ) -> None:
        """Refuse recordings, by held-out frames, from which the method would learn what is wrong.

        Raises
        ------
        UnsuitedError
            With what to train instead.
        """

    def know(self, correlation: NoiseCorrelation) -> None:
        """Take in how the noise of the recordings is correlated."""
        if correlation.is_correlated:
            self.unit_noise = UnitNoise(correlation.amplitudes(), *correlation.line_shares())

    @abstractmethod
    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return what is minimised, for patches (B, inputs, P, P) in network units."""

    @abstractmethod
    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the loss on held-out frames; less is better."""

    @abstractmethod
    def calibrate_prior(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Fit on held-out frames what the posterior holds for the network's own uncertainty."""

    def players(self) -> Sequence[Player]:
        """Return whose weights a step changes, one after the other; the network itself is last."""
        return (Player(self.network, self.loss),)

    def findings(self, frames: Sequence[Tensor], rng: torch.Generator) -> Sequence[str]:
        """Return what a person should know of the trained network, on held-out frames."""
        return ()

    def exported(self, network: Network) -> Network:
        """Return the trained network as it is exported."""
        return network

    def seen(self, frames: Tensor) -> Tensor:
        """Return the planes that the network is given: all but the target, which comes last."""
        return frames[:, : 1 + self.inputs.further]

    def excess(self, frames: Tensor) -> Tensor | None:
        """Return the plane that says how noisy each pixel is, None where all are alike."""
        if not self.inputs.pixel_maps:
            return None
        return frames[:, self.inputs.frames : self.inputs.frames + 1]


class PredictingLearner(Learner):
    """A learner whose network predicts noisy pixels that it does not see while it is trained.

    What it predicts wrongly there tells how uncertain it is: E[(x − μ)²] is the sum of its own
    variance and the noise's.
    """

    mask: MaskPlan | None = None
    """How pixels are hidden; None where what is predicted is hidden by other means."""

    @abstractmethod
    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return hidden observations, the network's outputs there, and their excess.

        Of a lattice (B, 1, P/3, P/3), (B, C, P/3, P/3) and so on; else (M, 1), (M, C).
        """

    def predict_hidden(
        self, frames: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return hidden observations; mean, variance ratio and noise variance predicted there."""
        target, predicted, excess = self.hidden(frames, rng)
        return target, *self.posterior.prior(predicted, excess)
