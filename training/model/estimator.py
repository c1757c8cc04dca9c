"""The whole way from camera pixels to the estimate, as it is exported.

Owns units and the rule for missing context. Training uses the same module, so live code
cannot disagree with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .posterior import Posterior


class Estimator(nn.Module):
    """Camera pixels in; the signal's posterior mean and standard deviation in ADU out.

    Where the pixels of a camera differ, their maps (1, 3, Y, X) are a second input, as
    `PixelMaps.correction` makes them. Frames are brought to the offset and gain that the camera
    has on the whole, and the network gets one plane more: how noisy each pixel is.

    Parameters
    ----------
    network
        Maps planes (N, P, Y, X) in network units to what `posterior` understands (N, C, Y, X).
    posterior
        Maps the observation (N, 1, Y, X) and the network's outputs to mean and variance.
    centre_adu, scale_adu
        Network units are (ADU − centre) / scale.
    other_channel_units
        The same for each other channel; their frames come last.
    """

    def __init__(
        self,
        network: nn.Module,
        posterior: Posterior,
        *,
        centre_adu: float,
        scale_adu: float,
        other_channel_units: Sequence[tuple[float, float]] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.posterior = posterior
        self.centre_adu = centre_adu
        self.scale_adu = scale_adu
        self.other_channel_units = tuple(other_channel_units)

    def forward(
        self, observations: Tensor, pixel_maps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return `denoised` and `uncertainty`, (N, 1, Y, X) ADU, for (N, 1 + T, Y, X) ADU."""
        frames = self.to_network_units(observations.to(torch.float32), pixel_maps)
        excess = None if pixel_maps is None else frames[:, -1:]
        mean, variance = self.posterior(frames[:, :1], self.network(frames), excess)
        if self.posterior.contrast is not None:
            variance = variance * self.posterior.contrast(mean)
        return mean * self.scale_adu + self.centre_adu, variance.sqrt() * self.scale_adu

    def to_network_units(self, observations: Tensor, pixel_maps: Tensor | None = None) -> Tensor:
        """Return the network's planes; a further frame of all zeros is missing and stays zero."""
        corrected = _corrected(observations, pixel_maps)
        first = observations.shape[1] - len(self.other_channel_units)
        parts = [(corrected[:, :first] - self.centre_adu) / self.scale_adu]
        for place, (centre_adu, scale_adu) in enumerate(self.other_channel_units, start=first):
            parts.append((corrected[:, place : place + 1] - centre_adu) / scale_adu)
        frames = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        planes = [frames[:, :1]]
        if observations.shape[1] > 1:
            further = observations[:, 1:]
            present = (further.abs().amax(dim=(2, 3), keepdim=True) > 0).to(torch.float32)
            planes.append(frames[:, 1:] * present)
        if pixel_maps is not None:
            planes.append(pixel_maps[:, 2:].expand(len(frames), -1, -1, -1))
        return torch.cat(planes, dim=1) if len(planes) > 1 else frames

    def in_own_units(self, pixels: Tensor, pixel_maps: Tensor | None = None) -> Tensor:
        """Return pixels of the channel itself, ADU, in network units."""
        return (_corrected(pixels, pixel_maps) - self.centre_adu) / self.scale_adu


class SampleEstimator(nn.Module):
    """Camera pixels and three whole numbers in; one sample of the signal in ADU out.

    Parameters
    ----------
    estimator
        Of a network that can `sample`, without maps of the camera's pixels.
    """

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, observations: Tensor, draw: Tensor) -> Tensor:
        """Return a sample (N, 1, Y, X) for (N, 1 + T, Y, X) ADU and (3,)."""
        units = self.estimator
        frames = units.to_network_units(observations.to(torch.float32))
        drawn: Tensor = units.network.sample(frames, draw)  # type: ignore[operator]
        return drawn * units.scale_adu + units.centre_adu


def _corrected(pixels: Tensor, pixel_maps: Tensor | None) -> Tensor:
    """Return pixels as they would be were those of the camera alike."""
    return pixels if pixel_maps is None else pixels * pixel_maps[:, :1] + pixel_maps[:, 1:2]
