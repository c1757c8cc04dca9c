"""`dncnn`: a deep network that finds the noise, learned from pairs of noisy and clean frames.

Owns its loss and its widths; the network is in `model.dncnn`, with the paper.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from ...inference.bundle import Preset
from ..model.direct import PlainEstimate
from ..model.dncnn import DnCNN
from ..model.network import Network
from ..model.noise_likelihood import TabulatedNoise
from ..options import InputPlanes, TrainingOptions
from .supervised import SupervisedLearner

WIDTHS: dict[Preset, int] = {"fast": 16, "live": 32, "best": 64}
"""Channels; the authors' network is `best`. All of them work at full resolution."""


class DenoisingCNN(SupervisedLearner):
    """The learner of `dncnn`."""

    learning_rate = 1e-3
    outputs = 1

    def __init__(
        self, options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes
    ) -> None:
        self.inputs = inputs
        self.network = DnCNN(1 + inputs.further, WIDTHS[options.preset])
        self.posterior = PlainEstimate(noise)

    def loss(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return the squared error."""
        return functional.mse_loss(*self.outputs_and_truth(frames))

    def exported(self, network: Network) -> Network:
        """Return the network with its batch normalisations folded."""
        return cast(DnCNN, network).folded()
