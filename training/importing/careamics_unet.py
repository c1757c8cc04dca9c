"""The U-Net of CAREamics, for weights that were trained there.

Owns its layout, so that a checkpoint's numbers find their places by CAREamics' own names; what
differs is refused when they are loaded. Written after `careamics.models.unet` 0.3 (BSD-3-Clause);
N2V2 leaves out the topmost skip connection and blurs after its maxima
(Höck et al. 2022, 10.48550/arXiv.2211.08512).
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

BLUR = (0.25, 0.5, 0.25)


class UNetPlan(BaseModel):
    """What CAREamics says of a U-Net; read from a file, so anything unknown is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str = Field("UNet", pattern="^UNet$")
    conv_dims: int = Field(2, ge=2, le=2)
    """Volumes are not denoised here."""
    num_classes: int = Field(1, ge=1, le=1)
    in_channels: int = Field(1, ge=1, le=1)
    depth: int = Field(2, ge=1, le=6)
    num_channels_init: int = Field(32, ge=1, le=256)
    residual: bool = False
    final_activation: str = Field("None", pattern="^None$")
    n2v2: bool = False
    independent_channels: bool = True
    use_batch_norm: bool = True


class _Block(nn.Module):
    """Two convolutions; with batch norm where the network has it."""

    def __init__(self, inputs: int, between: int, outputs: int, normalises: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, between, 3, padding=1)
        self.conv2 = nn.Conv2d(between, outputs, 3, padding=1)
        self.batch_norm1 = nn.BatchNorm2d(between)
        self.batch_norm2 = nn.BatchNorm2d(outputs)
        self.normalises = normalises

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = torch.relu(self.batch_norm1(x) if self.normalises else x)
        x = self.conv2(x)
        return torch.relu(self.batch_norm2(x) if self.normalises else x)


class _BlurredMaximum(nn.Module):
    """Maxima of two by two, blurred, every second one kept."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor(BLUR)
        self.register_buffer("kernel", line[:, None] * line[None, :], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(x, 2, stride=1)
        kernel = self.kernel.expand(x.shape[1], 1, 3, 3)  # type: ignore[operator]
        return functional.conv2d(x, kernel, padding=1, stride=2, groups=x.shape[1])


class _Encoder(nn.Module):
    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        pool: nn.Module = _BlurredMaximum() if plan.n2v2 else nn.MaxPool2d(2)
        self.encoder_blocks = nn.ModuleList()
        inputs = plan.in_channels
        for level in range(plan.depth):
            outputs = plan.num_channels_init * 2**level
            self.encoder_blocks.append(_Block(inputs, outputs, outputs, plan.use_batch_norm))
            self.encoder_blocks.append(pool)
            inputs = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest features, and those of each level."""
        levels = []
        for block in self.encoder_blocks:
            x = block(x)
            if isinstance(block, _Block):
                levels.append(x)
        return x, levels


class _Decoder(nn.Module):
    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.top_skips = 0 if plan.n2v2 else 1
        deepest = plan.num_channels_init * 2 ** (plan.depth - 1)
        self.bottleneck = _Block(deepest, 2 * deepest, deepest, plan.use_batch_norm)
        self.decoder_blocks = nn.ModuleList()
        for level in reversed(range(plan.depth)):
            inputs = plan.num_channels_init * 2**level
            outputs = inputs // 2 if level else inputs
            skips = 1 if level else self.top_skips
            self.decoder_blocks.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            between = 2 * outputs if level else outputs
            self.decoder_blocks.append(
                _Block(inputs * (1 + skips), between, outputs, plan.use_batch_norm)
            )

    def forward(self, x: Tensor, levels: list[Tensor]) -> Tensor:
        x = self.bottleneck(x)
        for place, level in enumerate(reversed(levels)):
            x = self.decoder_blocks[2 * place](x)
            if place < len(levels) - 1 or self.top_skips:
                x = torch.cat([x, level], dim=1)
            x = self.decoder_blocks[2 * place + 1](x)
        return x


class CAREamicsUNet(nn.Module):
    """The network: frames (N, 1, Y, X) in normalised units; Y and X multiples of 2**depth."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.encoder = _Encoder(plan)
        self.decoder = _Decoder(plan)
        self.final_conv = nn.Conv2d(plan.num_channels_init, plan.num_classes, 1)
        self.residual = plan.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the estimate, of the same shape."""
        y: Tensor = self.final_conv(self.decoder(*self.encoder(x)))
        return y + x if self.residual else y
