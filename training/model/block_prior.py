"""A network that sees every pixel, in blocks of 2×2 at half the resolution.

Owns how an image is taken into blocks and put together again. It is for methods whose target
carries other noise than what the network is given: nothing is hidden from it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..options import NetworkPlan
from .masking import reflected
from .network import Network
from .unet import UNet

EDGE = 2
"""Of a block, pixels: a quarter of the places, and twice as far to see."""


class BlockPrior(Network):
    """The U-Net on blocks of pixels, with mean and spread as its head.

    Parameters
    ----------
    further
        Planes besides the newest frame.
    plan
        Size of the U-Net.
    outputs
        Values per pixel.
    """

    def __init__(self, further: int, plan: NetworkPlan, *, outputs: int = 2) -> None:
        super().__init__()
        self.network = UNet(EDGE**2 * (1 + further), EDGE**2 * outputs, plan)
        self.stride = EDGE * self.network.stride

    def forward(self, frames: Tensor) -> Tensor:
        """Return the head's outputs (N, outputs, Y, X) for planes (N, 1 + further, Y, X)."""
        height, width = frames.shape[2], frames.shape[3]
        blocks = functional.pixel_unshuffle(reflected(frames, self.stride), EDGE)
        predicted = functional.pixel_shuffle(self.network(blocks), EDGE)
        return predicted[:, :, :height, :width]

    def start_with(self, output: int, value: float) -> None:
        """Let an output begin at a value everywhere."""
        with torch.no_grad():
            bias: Tensor = self.network.head.bias  # type: ignore[assignment]
            bias[output * EDGE**2 : (output + 1) * EDGE**2] = value
