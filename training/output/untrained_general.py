"""The general model as it ships, as a competitor of a model that was trained.

Owns how it is asked about the frames of a run, and what a person should do where it wins. It is
what `--model general` would show: nothing has been learned. Which errors are compared, and when
one is better, belongs to `usefulness`.

Frames of a split hold more noise than the camera's. A network that is blind to its pixel predicts
as much worse from them as their noise is stronger; one that sees its pixel would also take off too
little, unless it is told. The general model is told where the trained one is blind, and is as
ignorant as the trained one where that is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import one_line
from ...inference.errors import BundleError
from ...inference.general.shipped import CONTEXTS
from ..data.recordings import Recordings
from ..data.side_inputs import Sample
from ..errors import UnsuitedError
from ..method_choice import REFINED, unknown_to_general
from ..methods.refined import RefinedLearner
from ..model.estimator import Estimator
from ..options import InputPlanes
from ..run import Run
from ..validation import held_out_frames

logger = logging.getLogger(__name__)

AS_IT_IS = "take it as it is (--model general)"
BEGIN_WITH_IT = "train with --from general, which begins with it"


@dataclass(frozen=True, slots=True)
class UntrainedGeneral:
    """The general model for the camera of a run.

    Attributes
    ----------
    learner
        With the weights that ship.
    estimator
        Around its network, in the units of the run.
    run, recordings
        Beside which it stands.
    """

    learner: RefinedLearner
    estimator: Estimator
    run: Run
    recordings: Recordings

    @classmethod
    def beside(cls, run: Run, recordings: Recordings) -> UntrainedGeneral | None:
        """Return it for a run that has ended.

        None where neighbouring pixels share their noise, or its files are damaged.
        """
        found = run.noise_correlation
        if found is None or found.is_correlated:
            return None
        # It looks at the channel itself alone, whose frames come first.
        inputs = InputPlanes(
            context_frames=min(run.options.context_frames, CONTEXTS[-1]),
            pixel_maps=recordings.inputs.pixel_maps,
        )
        try:
            learner = RefinedLearner(run.options, run.learner.posterior.noise, inputs)
        except BundleError as error:  # what was trained is worth more than a comparison
            logger.warning("%s; what was trained is not compared with it", one_line(error))
            return None
        estimator = Estimator(
            learner.network,
            learner.posterior,
            centre_adu=recordings.centre_adu,
            scale_adu=recordings.scale_adu,
        )
        return cls(learner, estimator.eval(), run, recordings)

    @torch.no_grad()
    def denoised(self, sample: Sample, noise: float = 1.0) -> NDArray[np.float32]:
        """Return its estimate (Y, X) ADU of the newest frame of a sample.

        `noise` is the variance of that frame's noise over the camera's.
        """
        blind = self.run.learner.posterior.uses_observation
        network = self.learner.network
        known = network.camera
        network.camera = known.noisier(noise) if blind else known
        own = self._own(sample)
        planes = own.crop(*own.observations.shape[1:])
        mean, _ = self.estimator(*map(torch.from_numpy, planes))
        network.camera = known
        estimate: NDArray[np.float32] = mean[0, 0].numpy()
        return estimate

    def advice(self, held_out: Sequence[Sample]) -> str:
        """Return what to do where it is better than what was trained."""
        options = self.run.options
        known = unknown_to_general(options) is None
        if options.algorithm == REFINED or not known or not self.recordings.holds_out:
            return AS_IT_IS
        frames = held_out_frames(
            [self._own(sample) for sample in held_out],
            self.estimator,
            self.learner.network.stride,
            torch.device("cpu"),
        )
        rng = torch.Generator().manual_seed(options.seed)
        try:
            self.learner.require_suited(frames, rng)
        except UnsuitedError:
            return AS_IT_IS
        return BEGIN_WITH_IT

    def _own(self, sample: Sample) -> Sample:
        return Sample(sample.observations[: self.learner.inputs.own_frames], sample.pixel_maps)
