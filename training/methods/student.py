"""`student`: predict a teacher's pictures of the frames, which the teacher has not seen.

Owns the three ways in which a picture is learned from, and their weights. The picture of a frame
is told from other frames alone, none of which the student sees: its errors have nothing to do with
the noise in what the student is given, and the student, which sees every pixel, learns by plain
regression, as from a clean frame (Lehtinen et al. 2018, arXiv:1803.04189, with targets that hold
next to no noise).

A third of the patches is learned from in each way:

- the frame itself, and its picture;
- the frame with noise n added, x + α·n; the picture is combined with what is left, x − n/α, by
  Bayes' rule (Oliveira et al. 2021, arXiv:2111.09447). Where the teacher is sure that is the
  picture; where something moved that other frames cannot tell, it is the frame itself;
- the picture with new noise, drawn from the noise model, darker or brighter, and the pictures of
  the frames before likewise: as many different copies as there are steps.

Each is weighted by the variance that is left in its target, the teacher's own. What happened in
one frame alone, a flash, no other frame can tell, and the teacher is sure that it is not there;
where the frame contradicts the picture by more than noise can, the picture counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ...calibration.noise_correlation import NoiseCorrelation
from ...inference.general.shipped import general_in_words
from ..model.general import PLAN as GENERAL_PLAN
from ..model.general import shipped_state
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import GaussianPosterior, marginal_nll
from ..model.root_prior import RootPrior, widened
from ..options import InputPlanes, TrainingOptions
from .learner import Learner
from .uncertainty_calibration import FLOOR_SHARE, least_ratio

ALPHA = 0.5
"""Of the noise that is added, as in `r2r`."""
LEVEL_EDGE = 5
"""Pixels over which the mean says how bright a place is, and so how strong its noise."""
OWN_RATIO = 0.1
"""Of the noise's variance: what a student is off by on the whole. Targets that are surer than that
all count the same."""
SPREAD_WEIGHT = 0.1
"""Of the likelihood of the stated variance, relative to the error of the mean."""
CONTRADICTED_Z = 5.0
"""Standard deviations by which a frame differs from its picture, over a few pixels, where
something happened in it alone: chance does so at one place in a million, too few to select by
their noise."""
CERTAINLY = 100.0
"""Times its noise's variance: what a contradicted picture may be off by."""
DIMMEST, BRIGHTEST = 0.5, 2.0
"""The light of drawn copies, relative to the picture's."""
TEACHER_SHARE = 0.4
"""Of the budget."""
REFINING_RATE = 1.5e-3
"""Peak of the learning rate where the network begins trained."""


class Student(Learner):
    """The learner of `student`."""

    network: RootPrior
    posterior: GaussianPosterior
    learning_rate = 4e-3
    target = "picture"
    takes_noise_for_independent = False
    teacher = "teacher"
    begins_trained = False
    begins_as_general = True
    """Whether the first weights are those of the general model, where the network is the same."""

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = RootPrior(noise, inputs, options.plan)
        if self.begins_as_general:
            self.begins_trained = self.network.begin_as(shipped_state())
        if self.begins_trained:
            self.learning_rate = REFINING_RATE
        self.posterior = GaussianPosterior(noise, uses_observation=False)

    @classmethod
    def fitted_to(
        cls,
        options: TrainingOptions,
        correlation: Callable[[], NoiseCorrelation],
        remark: Callable[[str], None],
    ) -> TrainingOptions:
        """Return the options, with the model whose weights are the first where there is one."""
        options = super().fitted_to(options, correlation, remark)
        if cls.begins_as_general and widened(options.plan) == GENERAL_PLAN:
            options = replace(options, begun_with=options.begun_with or general_in_words())
        return options

    @classmethod
    def teacher_options(cls, options: TrainingOptions) -> TrainingOptions:
        """Return the teacher's: a large network, and its share of the budget."""
        seconds, steps = options.seconds, options.steps
        return replace(
            options,
            algorithm=cls.teacher,
            preset="best",
            context_frames=0,
            planes=0,
            other_channels=(),
            begun_with=None,
            seconds=None if seconds is None else TEACHER_SHARE * seconds,
            steps=None if steps is None else max(1, round(TEACHER_SHARE * steps)),
            learning_rate=None,
        )

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the weighted error of the mean plus the likelihood of the variance."""
        return self._loss(*self._lesson(frames, rng))

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the error of the mean alone, on frames as they are."""
        picture, deviation, _ = self._pictures(frames)
        seen = self.seen(frames)
        mean, _, _ = self._predicted(seen)
        # The picture's, not the prediction's: what is too bright must not count for less.
        noise = self.posterior.noise.variance(picture, self.excess(seen))
        return (self._weight(deviation**2, noise) * (mean - picture) ** 2).mean()

    @torch.no_grad()
    def calibrate_prior(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Fit the floor of the variance; on the whole it is compared with the error by Stein."""
        self.posterior.ratio_floor.fill_(FLOOR_SHARE * least_ratio(self, frames, rng))

    def _loss(self, seen: Tensor, target: Tensor, variance: Tensor) -> Tensor:
        mean, ratio, noise = self._predicted(seen)
        fit = self._weight(variance, noise) * (target - mean) ** 2
        stated = ratio * noise.detach() + variance
        spread = marginal_nll(target, mean.detach(), stated) * stated.detach() / noise.detach()
        return fit.mean() + SPREAD_WEIGHT * spread.mean()

    def _predicted(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.posterior.prior(self.network(seen), self.excess(seen))

    @staticmethod
    def _weight(variance: Tensor, noise: Tensor) -> Tensor:
        """Return how much an error counts, (N, 1, Y, X): one over the variance around it."""
        return 0.5 / (OWN_RATIO * noise.detach() + variance)

    def _pictures(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a patch's picture, its deviation, and the pictures of the frames before."""
        first = 1 + self.inputs.further
        upper, picture = frames[:, first : first + 1], frames[:, first + 1 : first + 2]
        return picture, (upper - picture).clamp_min(0), frames[:, first + 2 :]

    def _lesson(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the student sees, what it is to predict, and the variance left in that."""
        third = torch.randint(3, (len(frames),), generator=rng).tolist()
        ways = (self._as_it_is, self._split, self._drawn)
        found = []
        for number, way in enumerate(ways):
            chosen = [place for place, n in enumerate(third) if n == number]
            if chosen:
                found.append(way(frames[chosen], rng))
        seen, target, variance = (torch.cat(part) for part in zip(*found, strict=True))
        return seen, target, variance

    def _as_it_is(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        picture, deviation, _ = self._pictures(frames)
        return self.seen(frames), picture, self._left(frames, picture, deviation)

    @torch.no_grad()
    def _left(self, frames: Tensor, picture: Tensor, deviation: Tensor) -> Tensor:
        """Return the variance of a picture; more where the frame contradicts it."""
        newest, excess = frames[:, :1], self.excess(self.seen(frames))
        variance = self.posterior.noise.variance(picture, excess) + deviation**2
        off = _around(newest - picture)
        z = off * LEVEL_EDGE / _around(variance).sqrt()
        # Noise that neighbours share, or that is stronger than the noise model says, is no event.
        usual = (z.abs().median() / 0.6745).clamp_min(1.0)
        happened = functional.max_pool2d(
            (z.abs() > CONTRADICTED_Z * usual).to(z), LEVEL_EDGE, 1, LEVEL_EDGE // 2
        )
        return deviation**2 + happened * CERTAINLY * variance

    def _split(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        picture, deviation, _ = self._pictures(frames)
        seen = self.seen(frames)
        newest, excess = seen[:, :1], self.excess(seen)
        own = self.posterior.noise.variance(_around(newest), excess)
        noise = own.sqrt() * self.unit_noise.like(newest, rng)
        left, left_variance = newest - noise / ALPHA, (1 + ALPHA**-2) * own
        variance = self._left(frames, picture, deviation)
        share = variance / (variance + left_variance)
        target = picture + share * (left - picture)
        seen = torch.cat([newest + ALPHA * noise, seen[:, 1:]], dim=1)
        return seen, target, share * left_variance

    def _drawn(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        picture, _, past = self._pictures(frames)
        seen = self.seen(frames)
        own = 1 + self.inputs.context_frames
        offset = self.network.offset
        chance = torch.rand(len(frames), 1, 1, 1, generator=rng).to(frames.device)
        light = DIMMEST * (BRIGHTEST / DIMMEST) ** chance
        painted = torch.cat([picture, past], dim=1)
        signal = offset + light * (painted - offset)
        there = painted.abs().amax(dim=(2, 3), keepdim=True) > 0
        seen = torch.cat([self._noisy(signal, seen, rng) * there, seen[:, own:]], dim=1)
        return seen, signal[:, :1], torch.zeros_like(picture)

    def _noisy(self, signal: Tensor, seen: Tensor, rng: torch.Generator) -> Tensor:
        """Return what the camera might have seen of signals (N, P, Y, X)."""
        noise, excess = self.posterior.noise, self.excess(seen)
        if not self.unit_noise.is_white:
            sigma = noise.variance(signal, excess).sqrt()
            return signal + sigma * self.unit_noise.like(signal, rng)
        return noise.drawn(signal, excess, rng)


def _around(plane: Tensor) -> Tensor:
    """Return the mean around each pixel of (N, 1, Y, X)."""
    padded = functional.pad(plane, [LEVEL_EDGE // 2] * 4, mode="reflect")
    return functional.avg_pool2d(padded, LEVEL_EDGE, 1)
