"""DnCNN's network: convolutions at full resolution that find the noise in a frame.

Owns its layers, and the same network with its normalisations folded into the convolutions.
Source: Zhang et al. 2017, doi:10.1109/TIP.2017.2662206.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .network import Network

LAYERS = 17
"""Convolutions of 3×3: 35 pixels are seen around each."""
MOMENTUM = 0.1
"""Of the running statistics, per step; they are averaged over more steps with the weights."""


class DnCNN(Network):
    """Convolution and ReLU; then convolution, batch normalisation, ReLU; then a convolution.

    Parameters
    ----------
    inputs
        Planes.
    width
        Channels of every layer.
    layers
        Convolutions in all.
    """

    def __init__(self, inputs: int, width: int, layers: int = LAYERS) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            parts += [
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                _Normalisation(width),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*parts)
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the newest frame without the noise that was found in it, (N, 1, Y, X)."""
        features = self.body(frames)
        # In full precision: bfloat16 has three digits, the estimate needs more.
        with torch.autocast(frames.device.type, enabled=False):
            noise: Tensor = self.head(features.float())
        return frames[:, :1] - noise

    def folded(self) -> DnCNN:
        """Return the same map with each normalisation folded into the convolution before."""
        copy = deepcopy(self).eval()
        parts: list[nn.Module] = []
        for module in copy.body:
            if isinstance(module, nn.BatchNorm2d):
                module = fuse_conv_bn_eval(cast("nn.Conv2d", parts.pop()), module)
            parts.append(module)
        copy.body = nn.Sequential(*parts)
        return copy


class _Normalisation(nn.BatchNorm2d):
    """A batch normalisation that counts no batches.

    Their count is no number that weights are averaged with; with a momentum of its own nothing
    needs it.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=MOMENTUM)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, *given: Any) -> None:
        # Its own base adds the count to states that lack it, and then finds it unexpected.
        nn.Module._load_from_state_dict(self, *given)
