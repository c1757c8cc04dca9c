"""A network that sees what was before and after a frame, and of the frame itself nothing.

Owns the layers and where they begin: at the mean of all that there is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..options import NetworkPlan
from .block_prior import EDGE
from .masking import reflected
from .network import Network
from .unet import UNet

LEAST_WEIGHT = 1e-6
"""Keeps the mean defined where there is nothing at all to take it of."""


class SurroundingsPrior(Network):
    """Weighs means of earlier and later frames pixel by pixel, and corrects the result.

    Where nothing moves the mean of all frames is right, and that is where it begins. What moves is
    in the nearest frames alone: the weights are the network's to say, so is what it adds, and so
    is how far off the result may be.

    Parameters
    ----------
    counts
        Of how many frames each plane is the mean.
    further
        Planes after those, which the network sees as well.
    plan
        Size of the U-Net, which works on blocks of 2×2 pixels.
    """

    log_counts: Tensor

    def __init__(self, counts: Sequence[int], further: int, plan: NetworkPlan) -> None:
        super().__init__()
        planes = len(counts)
        self.network = UNet(EDGE**2 * (planes + further), EDGE**2 * (planes + 2), plan)
        self.stride = EDGE * self.network.stride
        self.register_buffer("log_counts", torch.tensor(counts).log()[:, None, None])

    def forward(self, frames: Tensor) -> Tensor:
        """Return mean and spread (N, 2, Y, X) for planes (N, 1 + A + F, Y, X), the frame first."""
        height, width = frames.shape[2:]
        seen = reflected(frames[:, 1:], self.stride)  # nothing of the frame itself
        blocks = functional.pixel_unshuffle(seen, EDGE)
        answer = functional.pixel_shuffle(self.network(blocks), EDGE)
        planes = len(self.log_counts)
        around = seen[:, :planes]
        there = (around.abs().amax(dim=(2, 3), keepdim=True) > 0).to(around.dtype)
        weights = torch.exp(answer[:, :planes].clamp(-12, 12) + self.log_counts) * there
        total = weights.sum(dim=1, keepdim=True) + LEAST_WEIGHT
        mean = (weights * around).sum(dim=1, keepdim=True) / total + answer[:, planes : planes + 1]
        return torch.cat([mean, answer[:, planes + 1 :]], dim=1)[:, :, :height, :width]

    def start_with_spread(self, value: float) -> None:
        """Let the spread begin at a value everywhere."""
        bias = self.network.get_submodule("head").get_parameter("bias")
        with torch.no_grad():
            bias[-(EDGE**2) :] = value
