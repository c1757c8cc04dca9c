"""Networks that draw the signal from latent variables: variational autoencoders in two forms.

Owns the networks, how they sample, and the fixed draws by which an exported graph averages S
samples. The likelihood of what they draw is the camera's, and belongs to the learner.

`FlatLatents` is DivNoising's (Prakash et al. 2021, arXiv:2006.06072): one layer of latents with a
standard normal prior. `LadderLatents` is its hierarchical successor's (Prakash et al. 2022,
arXiv:2104.01374; Sønderby et al. 2016, arXiv:1602.02282): a layer at each of several resolutions,
each with a prior that the layers above it predict.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .masking import reflected
from .network import Network

BLOCK = 2
"""Edge, pixels, of the blocks that all convolutions work on: at full resolution they would cost
four times as much, and no latent lies there."""
TILE = 32
"""Latents along y and x after which the fixed draws repeat: far beyond what one latent reaches."""
START_LOG_SCALE = -2.0
"""Of a latent before training: its mean then is several times its spread."""
LOG_SCALES = (-7.0, 3.0)
"""Between which the logarithm of a latent's standard deviation is kept."""


class Law(NamedTuple):
    """A normal law of latents: mean and logarithm of the standard deviation, (N, C, Y, X)."""

    mean: Tensor
    log_scale: Tensor

    def drawn(self, noise: Tensor) -> Tensor:
        """Return latents, by standard normal noise of the same shape."""
        return self.mean + self.log_scale.exp() * noise

    def divergence(self, prior: Law) -> Tensor:
        """Return the Kullback-Leibler divergence from a prior, elementwise, in nats."""
        ratio = (2 * (self.log_scale - prior.log_scale)).exp()
        apart = ((self.mean - prior.mean) / prior.log_scale.exp()) ** 2
        return 0.5 * (ratio + apart - 1) + prior.log_scale - self.log_scale


class LatentNetwork(Network):
    """A network whose outputs are S samples of the signal, drawn by fixed noise.

    Parameters
    ----------
    samples
        S; the second half of the draws is the first with its sign changed, so that their mean is
        exact for what is linear in the latents.
    channels
        Latents of one layer.
    layers
        How many layers.
    finest
        Pixels along y and x of one latent in the finest layer; each layer above halves that.
    """

    tile: Tensor

    def __init__(self, samples: int, channels: int, layers: int, finest: int) -> None:
        super().__init__()
        self.samples, self.channels, self.layers, self.finest = samples, channels, layers, finest
        self.stride = finest * 2 ** (layers - 1)
        self.period = TILE * finest
        shape = (-(-samples // 2), channels * layers, TILE, TILE)
        half = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("tile", torch.cat([half, -half])[:samples], persistent=False)

    @abstractmethod
    def inferred(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return a sample (N, 1, Y, X) and the divergence of each layer, (N, C, …), finest last.

        `frames` (N, P, Y, X) have edges that are multiples of `stride`; `noise` is (N, channels ·
        layers, Y / finest, X / finest).
        """

    def forward(self, frames: Tensor) -> Tensor:
        """Return the samples (N, S, Y, X) for planes (N, P, Y, X) of any size."""
        height, width = frames.shape[2:]
        padded = reflected(frames, self.stride)
        rows, columns = (
            torch.arange(edge // self.finest, device=frames.device) % TILE
            for edge in padded.shape[2:]
        )
        noise = self.tile.index_select(2, rows).index_select(3, columns)  # (S, C, y, x)
        count = padded.shape[0]
        noise = noise[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
        many = padded[None].expand(self.samples, -1, -1, -1, -1).flatten(0, 1)
        drawn, _ = self.inferred(many, noise)
        by_sample = drawn.reshape(self.samples, -1, *drawn.shape[2:]).transpose(0, 1)
        return by_sample[:, :, :height, :width]

    def sample(self, frames: Tensor, draw: Tensor) -> Tensor:
        """Return one sample (N, 1, Y, X) of planes of any size.

        `draw` are three whole numbers that say which: of the fixed draws one, moved along y and x.
        """
        height, width = frames.shape[2:]
        padded = reflected(frames, self.stride)
        entry, rows, columns = (
            (torch.arange(length, device=frames.device) + draw[place]) % edge
            for place, length, edge in (
                (0, 1, self.tile.shape[0]),
                (1, padded.shape[2] // self.finest, TILE),
                (2, padded.shape[3] // self.finest, TILE),
            )
        )
        noise = self.tile.index_select(0, entry).index_select(2, rows).index_select(3, columns)
        drawn, _ = self.inferred(padded, noise.expand(padded.shape[0], -1, -1, -1))
        return drawn[:, :, :height, :width]

    def noise_for(self, frames: Tensor, rng: torch.Generator) -> Tensor:
        """Return standard normal noise for frames whose edges are multiples of `stride`."""
        count, _, height, width = frames.shape
        shape = (count, self.channels * self.layers, height // self.finest, width // self.finest)
        return torch.randn(shape, generator=rng).to(frames.device)

    def noise_of(self, layer: int, noise: Tensor) -> Tensor:
        """Return the noise of a layer, 0 the finest."""
        own = noise[:, layer * self.channels : (layer + 1) * self.channels]
        return own[:, :, :: 2**layer, :: 2**layer]


class FlatLatents(LatentNetwork):
    """DivNoising: convolutions down to a quarter of the resolution, latents, convolutions up."""

    def __init__(self, inputs: int, width: int, channels: int, samples: int) -> None:
        super().__init__(samples, channels, layers=1, finest=2 * BLOCK)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(BLOCK),
            *_block(BLOCK**2 * inputs, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
        )
        self.law = nn.Conv2d(2 * width, 2 * channels, 1)
        self.decoder = nn.Sequential(
            *_block(channels, 2 * width),
            nn.Upsample(scale_factor=2.0),
            *_block(2 * width, width),
        )
        self.head = nn.Conv2d(width, BLOCK**2, 1)
        _initialise(self)

    def inferred(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return a sample and the divergence of its latents from the standard normal law."""
        law = _law(self.law, self.encoder(frames))
        signal = _pixels(self.head, self.decoder(law.drawn(noise)))
        return signal, [law.divergence(_standard(law))]


class LadderLatents(LatentNetwork):
    """HDN: latents at several resolutions, inferred from the coarsest to the finest."""

    def __init__(
        self, inputs: int, width: int, channels: int, samples: int, layers: int = 3
    ) -> None:
        super().__init__(samples, channels, layers, finest=BLOCK)
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.MaxPool2d(2) if layer else nn.PixelUnshuffle(BLOCK),
                *_block(width if layer else BLOCK**2 * inputs, width),
                *_block(width, width),
            )
            for layer in range(layers)
        )
        self.posterior_laws = nn.ModuleList(
            nn.Conv2d(width * (1 if layer == layers - 1 else 2), 2 * channels, 3, padding=1)
            for layer in range(layers)
        )
        self.prior_laws = nn.ModuleList(
            nn.Conv2d(width, 2 * channels, 3, padding=1) for _ in range(layers - 1)
        )
        self.down = nn.ModuleList(
            nn.Sequential(
                *_block(channels + (0 if layer == layers - 1 else width), width),
                *([nn.Upsample(scale_factor=2.0)] if layer else []),
            )
            for layer in range(layers)
        )
        self.last = nn.Sequential(*_block(width, width))
        self.head = nn.Conv2d(width, BLOCK**2, 1)
        _initialise(self)

    def inferred(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return a sample and the divergence of each layer from what those above it predict."""
        seen = []
        features = frames
        for step in self.up:
            features = step(features)
            seen.append(features)
        top = self.layers - 1
        law = _law(self.posterior_laws[top], seen[top])
        divergences = [law.divergence(_standard(law))]
        known = self.down[top](law.drawn(self.noise_of(top, noise)))
        for layer in reversed(range(top)):
            prior = _law(self.prior_laws[layer], known)
            law = _law(self.posterior_laws[layer], torch.cat([known, seen[layer]], dim=1))
            divergences.append(law.divergence(prior))
            drawn = law.drawn(self.noise_of(layer, noise))
            known = self.down[layer](torch.cat([known, drawn.to(known.dtype)], dim=1))
        return _pixels(self.head, self.last(known)), divergences


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return layers


def _initialise(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            if name == "head" or name.startswith("prior_laws"):
                with torch.no_grad():
                    module.weight.mul_(0.1)
            elif "law" in name:
                _speak(module)


@torch.no_grad()
def _speak(law: nn.Conv2d) -> None:
    """Let latents say something from the first step on.

    Of latents that are noise the decoder learns to make nothing, and what it makes nothing of is
    never improved.
    """
    channels = law.out_channels // 2
    law.weight[channels:].mul_(0.1)
    law.bias[channels:].fill_(START_LOG_SCALE)  # type: ignore[index]


def _law(layer: nn.Module, features: Tensor) -> Law:
    mean, log_scale = _in_full(layer, features).chunk(2, dim=1)
    return Law(mean, log_scale.clamp(*LOG_SCALES))


def _pixels(head: nn.Module, features: Tensor) -> Tensor:
    """Return the signal (N, 1, Y, X) that features of blocks say."""
    return functional.pixel_shuffle(_in_full(head, features), BLOCK)


def _standard(law: Law) -> Law:
    zeros = torch.zeros_like(law.mean)
    return Law(zeros, zeros)


def _in_full(layer: nn.Module, features: Tensor) -> Tensor:
    # In full precision: bfloat16 has three digits.
    with torch.autocast(features.device.type, enabled=False):
        found: Tensor = layer(features.float())
    return found
