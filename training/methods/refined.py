"""`refined`: the general model goes on learning, from the noisy recording itself.

Owns its loss. The network begins with the weights that ship with the program. It sees its pixel,
so its target must have noise of its own: each frame is split in two exposures, the longer one is
what the network is given, and the shorter one what it predicts (`model.general_prior`). Preceding
frames are split alike, so that the running sum inside stays that of one exposure time.

Held-out frames are split as well. Where the network does not predict their shorter exposure better
than it did before the first step, the weights it began with are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_correlation import NoiseCorrelation
from ...inference.general.camera_constants import CameraConstants
from ...inference.general.shipped import general_in_words
from ..device import join_workers
from ..errors import TrainingError, UnsuitedError
from ..method_choice import INDEPENDENT, SHARED, unknown_to_general
from ..model.general import LEAST_VARIANCE_E2, shipped_state
from ..model.general_prior import CameraInUnits, Electrons, GeneralPrior, split
from ..model.noise_likelihood import TabulatedNoise
from ..model.posterior import GaussianPosterior
from ..options import InputPlanes, TrainingOptions
from .gaussian import GaussianLearner

TAKEN = 0.2
"""Share of the light that is the target: as much as the target of `r2r` has."""

MOST_SHARED = 0.02
"""Correlation of the noise of the two exposures: 0.01 on photon counts and calibrated cameras.
From 0.03 on, on frames of 8 bits and of photomultipliers, learning makes the picture worse."""
CERTAIN_SIGMA = 3.0
PLACE, MOST_WRONG, LEAST_RIGHT = 8, 0.5, 0.1
"""Pixels along the edge of a place; the network's squared error in units of the noise's, beyond
which it is wrong there; and the share of places that must be left."""


class RefinedLearner(GaussianLearner):
    """The learner of `refined`."""

    network: GeneralPrior
    posterior: GaussianPosterior
    learning_rate = 3e-4
    begins_trained = True

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = GeneralPrior(inputs, _camera(noise))
        self.network.network.load_state_dict(shipped_state())
        self.posterior = GaussianPosterior(noise, uses_observation=False)

    @classmethod
    def fitted_to(
        cls,
        options: TrainingOptions,
        correlation: Callable[[], NoiseCorrelation],
        remark: Callable[[str], None],
    ) -> TrainingOptions:
        """Return the options; refuse what the general model does not know.

        Raises
        ------
        TrainingError
            With what to leave out.
        UnsuitedError
            If neighbouring pixels share noise.
        """
        if (unknown := unknown_to_general(options)) is not None:
            raise TrainingError(
                f"the general model {unknown}; leave that out, or train a network of its own "
                "(--algorithm lattice)"
            )
        found = correlation()
        # Each of several processes has frames of its own; all of them go on, or none.
        if join_workers().agreed(found.is_correlated):
            raise UnsuitedError(
                f"{found.described()}, and the general model takes every pixel's noise for "
                "its own",
                instead=SHARED,
            )
        return replace(options, begun_with=options.begun_with or general_in_words())

    def hidden(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the shorter exposure and what the network makes of it, of the whole light."""
        short, predicted = self._short_and_predicted(frames, rng)
        return self.network.in_units(short), predicted, self.excess(frames)

    def predict_hidden(
        self, frames: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return targets; mean, variance ratio and the targets' noise variance predicted there."""
        target, mean, ratio, own = super().predict_hidden(frames, rng)
        return target, mean, ratio * TAKEN, own / TAKEN

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return quasi-likelihood loss of the mean plus likelihood loss of the variance."""
        return self.quasi_likelihood(*self.predict_hidden(frames, rng))

    def score(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the deviance of held-out shorter exposures: less is a better mean.

        The quasi-likelihood of a variance that grows with the mean (Wedderburn 1974,
        doi:10.1093/biomet/61.3.439): no estimate gains by claiming more noise.
        """
        short, predicted = self._short_and_predicted(frames, rng)
        camera = self.network.camera
        read = camera.read_variance_e2 + LEAST_VARIANCE_E2
        expected = ((predicted[:, :1] - camera.zero) * camera.per_unit).clamp_min(0) + read
        return (expected - (short + read) * torch.log(expected)).mean()

    def require_suited(self, frames: Sequence[Tensor], rng: torch.Generator) -> None:
        """Refuse noise that cannot be split: it would be learned as signal.

        Raises
        ------
        UnsuitedError
            If the two exposures share noise.
        """
        shared = self.shared_noise(frames, rng)
        chance = CERTAIN_SIGMA / sum(frame[:, :1].numel() for frame in frames) ** 0.5
        if abs(shared) > MOST_SHARED + chance:
            raise UnsuitedError(
                "the noise of these recordings cannot be split in two: it is not that of photons "
                "and read noise (amplified light, as of a photomultiplier or EM-CCD, or rescaled "
                "frames), and the general model would learn it as signal",
                instead=INDEPENDENT,
            )

    @torch.no_grad()
    def shared_noise(self, frames: Sequence[Tensor], rng: torch.Generator) -> float:
        """Return how much of its noise the shorter exposure shares with the longer one.

        It is the correlation of what the network leaves of the shorter exposure with the square of
        what it leaves of the longer one, in units of their noise: none where noise is a sum of
        photons and read noise. Places in which the network is wrong, so that it leaves the same of
        both, say nothing of noise and do not count.
        """
        parts = [self._standardised(frame, rng) for frame in frames]
        short, left = (torch.cat([part[place] for part in parts]) for place in (0, 1))
        if len(short) < LEAST_RIGHT * sum(frame[:, :1].numel() for frame in frames):
            return 0.0
        return float(torch.corrcoef(torch.stack([short, left.square()]))[0, 1])

    def _standardised(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        whole = self.network.electrons(frames)
        left, short = split(whole, TAKEN, partial(self._light, whole), rng)
        mean = self.network.network(left.frames, left.there, left.read)[0] / (1 - TAKEN)
        noise = (mean.clamp_min(0) + whole.read + LEAST_VARIANCE_E2).sqrt()
        short, longer = short / TAKEN, left.frames[:, :1] / (1 - TAKEN)
        short, longer = (short - mean) / noise, (longer - mean) / noise
        wrong = functional.avg_pool2d(short * longer, PLACE, ceil_mode=True) > MOST_WRONG
        right = ~wrong.repeat_interleave(PLACE, 2).repeat_interleave(PLACE, 3)
        right = right[:, :, : mean.shape[2], : mean.shape[3]]
        return short[right], longer[right]

    def _short_and_predicted(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the shorter exposure as of the whole light, e⁻, and the network's outputs."""
        whole = self.network.electrons(frames)
        left, short = split(whole, TAKEN, partial(self._light, whole), rng)
        return short / TAKEN, self.network.predicted(left, share=1 - TAKEN)

    @torch.no_grad()
    def _light(self, whole: Electrons) -> Tensor:
        """Return the signal of each pixel, e⁻, as far as the network itself knows it."""
        mean: Tensor = self.network.network(whole.frames, whole.there, whole.read)[0]
        return mean


def _camera(noise: TabulatedNoise) -> CameraInUnits:
    known = noise.noise_model
    if not isinstance(known, GaussianMixtureNoiseModel):
        raise TrainingError(
            f"the general model takes no {type(known).__name__}; give a noise model of "
            "`quietscope calibrate`, or train a network of its own (--algorithm lattice)"
        )
    constants = CameraConstants.of(known)
    return CameraInUnits(
        zero=(constants.offset_adu - noise.centre_adu) / noise.scale_adu,
        per_unit=noise.scale_adu / constants.gain_adu_per_e,
        read_variance_e2=constants.read_variance_e2,
        dark_variance_e2=known.least_variance_adu2 / constants.gain_adu_per_e**2,
    )
