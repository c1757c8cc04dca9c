"""The student's network: that of the general model, and what else a method may give it.

Owns the way from network units to photoelectrons and back, and what is added to the general
model's inputs: single frames before, planes of a z-stack, other channels. What is added begins
with no weight, so that a student may begin as the general model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ..options import InputPlanes, NetworkPlan
from .general import (
    BRIGHTEST_ROOT,
    SHRINK,
    UNIT,
    local_level,
    running_sum,
    stabilised,
    without_noisy_pixels,
)
from .general import PLANES as GENERAL_PLANES
from .masking import reflected
from .network import Network
from .noise_likelihood import TabulatedNoise
from .unet import UNet

_ANSCOMBE = 3 / 8


class RootPrior(Network):
    """Maps frames to mean and spread of the newest, by way of the variance-stabilising root.

    Parameters
    ----------
    noise
        The camera's, whose variance is followed by a straight line: in units of its slope light
        is counted in photoelectrons.
    inputs
        What the network is given.
    plan
        Size of the U-Net, which works on blocks of 2×2 pixels: at the cost of full resolution it
        has twice as many channels.
    """

    def __init__(self, noise: TabulatedNoise, inputs: InputPlanes, plan: NetworkPlan) -> None:
        super().__init__()
        self._inputs = inputs
        self._own = 1 + inputs.context_frames
        self.gain, summand = noise.line()
        dark = noise.dark_variance or max(summand + self.gain * noise.first, 0.0)
        self.offset = (dark - summand) / self.gain
        self.read = dark / self.gain**2
        added = SHRINK**2 * inputs.further
        self.network = UNet(GENERAL_PLANES + added, 2 * SHRINK**2, widened(plan))
        with torch.no_grad():
            # Of the frame the network is given an eighth of its noise; it is to see all of it.
            self._first_weight()[:, : SHRINK**2] *= UNIT
            self._first_weight()[:, GENERAL_PLANES:] = 0
        self.stride = self.period = SHRINK * self.network.stride

    def begin_as(self, weights: Mapping[str, Tensor]) -> bool:
        """Begin with the general model's weights; return False where the network is another."""
        own = self.state_dict()
        begun = dict(weights)
        name = "network.encoders.0.0.weight"
        if name in begun and begun[name].shape[1] == GENERAL_PLANES:
            added = own[name].shape[1] - GENERAL_PLANES
            begun[name] = functional.pad(begun[name], (0, 0, 0, 0, 0, added))
        if own.keys() != begun.keys() or any(own[n].shape != begun[n].shape for n in own):
            return False
        self.load_state_dict(begun)
        return True

    def forward(self, frames: Tensor) -> Tensor:
        """Return mean and spread (N, 2, Y, X) for planes (N, 1 + further, Y, X)."""
        height, width = frames.shape[2:]
        whole = reflected(frames, self.stride)
        own, further = whole[:, : self._own], whole[:, self._own :]
        there = (own[:, 1:].abs().amax(dim=(2, 3), keepdim=True) > 0).to(own.dtype)
        light = (own - self.offset) / self.gain
        read = light.new_full((1, 1, 1, 1), self.read)
        if self._inputs.pixel_maps:
            light, read = without_noisy_pixels(light, read, read * torch.exp(whole[:, -1:]))
        pooled, most, short = running_sum(light, there, read)
        single = stabilised(pooled, read)
        summed_read = most * read
        root = stabilised(most * pooled, summed_read)
        level = local_level(root)
        before = (stabilised(light[:, 1:], read) - single) * there / UNIT
        planes = [
            (_shrunk(root) - level) / UNIT,
            _shrunk(torch.log1p(summed_read).expand_as(root)),
            level.clamp_max(BRIGHTEST_ROOT) / UNIT,
            1 / (1 + level),
            short,
        ]
        if self._inputs.further:
            planes.append(_shrunk(torch.cat([before, further], dim=1)))
        answer = functional.pixel_shuffle(self.network(torch.cat(planes, dim=1)), SHRINK)
        estimate = (root + UNIT * answer[:, :1]).clamp_min(0)
        mean = ((estimate / 2) ** 2 - _ANSCOMBE - summed_read) / most
        spread = torch.exp(answer[:, 1:].clamp(-6, 3) - 1) / most.sqrt()
        told = torch.cat([mean * self.gain + self.offset, spread.expand_as(mean)], dim=1)
        return told[:, :, :height, :width]

    def _first_weight(self) -> Tensor:
        return self.get_submodule("network.encoders.0.0").get_parameter("weight")


def widened(plan: NetworkPlan) -> NetworkPlan:
    """Return the size of the U-Net on blocks: twice the channels of one at full resolution."""
    return replace(plan, width=2 * plan.width)


def _shrunk(planes: Tensor) -> Tensor:
    return functional.pixel_unshuffle(planes, SHRINK)
