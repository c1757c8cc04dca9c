"""The U-Net that every algorithm trains.

Owns the layers and nothing else: which pixels it may see and what its outputs mean is decided
in `lattice` and `masking`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..options import NetworkPlan
from .neighbourhoods import Neighbourhoods


class UNet(nn.Module):
    """Encoder and decoder with skip connections, without normalisation layers.

    Parameters
    ----------
    inputs, outputs
        Channels in and out.
    plan
        Width, depth and how much is done at full resolution.
    artefact_free
        The changes of N2V2 (Höck et al. 2022, doi:10.1007/978-3-031-25069-9_33) against the
        checkerboard: max-blur-pool instead of max-pool and no skip connection at full resolution.
        What comes up there is enlarged by interpolation; repeated pixels left a pattern.
    """

    def __init__(
        self, inputs: int, outputs: int, plan: NetworkPlan, *, artefact_free: bool = False
    ) -> None:
        super().__init__()
        widths = [plan.width * plan.growth**level for level in range(plan.depth + 1)]
        lengths = [plan.outer_convolutions] + [2] * plan.depth
        self.stride = 2**plan.depth
        self.encoders = nn.ModuleList(
            _block(fan_in, width, length)
            for fan_in, width, length in zip([inputs, *widths[:-1]], widths, lengths, strict=True)
        )
        self.pools = nn.ModuleList(
            MaxBlurPool(width) if artefact_free else nn.MaxPool2d(2) for width in widths[:-1]
        )
        self.narrows = nn.ModuleList(
            nn.Conv2d(below, width, 1) for width, below in pairwise(widths)
        )
        self.skips = [not (artefact_free and level == 0) for level in range(plan.depth)]
        self.decoders = nn.ModuleList(
            _block(width * (1 + skip), width, length)
            for width, skip, length in zip(widths, self.skips, lengths, strict=False)
        )
        self.head = nn.Conv2d(plan.width, outputs, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, Y, X) to (N, outputs, Y, X); Y and X multiples of `stride`."""
        kept, x = self._down(x)
        for level in reversed(range(len(self.pools))):
            x = self._up(level, kept, x)
        return self._outputs(x)

    def at(self, x: Tensor, places: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return `forward(x)[patch, :, y, x]`, (M, outputs), for places (patch, y, x).

        The last block, at full resolution, is computed there alone if that is less.
        """
        count, _, height, width = x.shape
        last = self.decoders[0]
        radius = _convolutions(last)
        if len(places[0]) * (2 * radius + 1) ** 2 > count * height * width // 2:
            patch, row, column = places
            everywhere: Tensor = self(x)
            return everywhere[patch, :, row, column]
        kept, x = self._down(x)
        for level in reversed(range(1, len(self.pools))):
            x = self._up(level, kept, x)
        around = Neighbourhoods(places, height, width, radius)
        x = self.narrows[0](x)
        if self.skips[0]:
            x = torch.cat([around.of(kept[0]), around.of(x, enlarged=2)], dim=1)
        else:
            x = around.of(_smoothly_enlarged(x))
        x = around.convolved(x, last)
        return self._outputs(x)[0, :, 0].T

    def _down(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what each encoder but the last hands across, and what the last makes of it."""
        kept = []
        for encoder, pool in zip(self.encoders, self.pools, strict=False):
            x = encoder(x)  # (N, width·2^level, Y/2^level, X/2^level)
            kept.append(x)
            x = pool(x)
        return kept, self.encoders[-1](x)

    def _up(self, level: int, kept: list[Tensor], x: Tensor) -> Tensor:
        # Narrow first, then enlarge: the 1×1 convolution costs a quarter that way.
        x = self.narrows[level](x)
        if self.skips[level]:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = torch.cat([kept[level], x], dim=1)
        else:
            x = _smoothly_enlarged(x)
        decoded: Tensor = self.decoders[level](x)
        return decoded

    def _outputs(self, x: Tensor) -> Tensor:
        # In full precision: bfloat16 has three digits, the estimate needs more.
        with torch.autocast(x.device.type, enabled=False):
            head: Tensor = self.head(x.float())
        return head


def _block(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in [inputs] + [outputs] * (convolutions - 1):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _smoothly_enlarged(x: Tensor) -> Tensor:
    # Repeated pixels would be all that full resolution knows: a pattern of period two.
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear")


def _convolutions(block: nn.Module) -> int:
    return sum(isinstance(layer, nn.Conv2d) for layer in block.children())


class MaxBlurPool(nn.Module):
    """Dense max-pool, binomial blur, then every second pixel (Zhang 2019, arXiv:1904.11486)."""

    blur: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = row[:, None] * row[None, :] / 16
        self.register_buffer("blur", kernel.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution of (N, C, Y, X)."""
        x = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
        # In full precision: in bfloat16 the blur's gradient takes a CPU ten times as long.
        with torch.autocast(x.device.type, enabled=False):
            return functional.conv2d(
                functional.pad(x.float(), (1, 1, 1, 1), mode="replicate"),
                self.blur,
                stride=2,
                groups=x.shape[1],
            )


def parameter_count(module: nn.Module) -> int:
    """Return how many numbers training adjusts."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
