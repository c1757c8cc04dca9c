"""The camera's noise model inside a loss and inside the exported graph.

Owns the tabulated form in torch. What the noise is, is measured by `calibration`; nothing is
fitted here. What follows from it for the signal is in `posterior`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ...calibration.noise_model import NoiseModel

GRID_POINTS = 512
POINTS_BEYOND = 64
"""Where the law is a straight line."""
LEAST_VARIANCE = 1e-7
"""In network units²: keeps a noiseless camera from dividing by zero."""
LEAST_BEND = 0.1
"""Of the mean variance, by which it rises over the trained signals at least, as a line says it."""
LEAST_OWN_SHARE = 0.05
"""Of the law's variance: no pixel is quieter than that, whatever its map says."""


class TabulatedNoise(nn.Module):
    """p(observation | signal) as a mixture, linearly interpolated in the signal.

    Signals and observations are in network units, (ADU − centre) / scale. Where pixels differ,
    `excess` is the logarithm of a pixel's variance without light over that of the law
    (`PixelMaps.correction`): what its amplifier adds there, it adds at every signal.

    Parameters
    ----------
    noise_model
        What the camera does.
    low_adu, high_adu
        The signals that were trained on, from the least that was calibrated: evenly tabulated.
    centre_adu, scale_adu
        The network's units.
    dark_variance_adu2
        Of the law, without light; needed where pixels differ.
    saturation_adu
        Up to which the table goes on, in wider steps, as the noise model does: brighter light than
        was trained on has more noise, not as much as the brightest that was. None ends it there.
    """

    variances: Tensor
    mixture: Tensor

    def __init__(
        self,
        noise_model: NoiseModel,
        *,
        low_adu: float,
        high_adu: float,
        centre_adu: float,
        scale_adu: float,
        dark_variance_adu2: float = 0.0,
        saturation_adu: float | None = None,
    ) -> None:
        super().__init__()
        self.noise_model, self.centre_adu, self.scale_adu = noise_model, centre_adu, scale_adu
        # Below what was calibrated the law runs towards no noise at all: an estimate that strays
        # there would trust the observation blindly.
        low_adu = min(max(low_adu, noise_model.signal_range_adu[0]), high_adu - 1e-3 * scale_adu)
        step = (high_adu - low_adu) / (GRID_POINTS - 1)
        room = 0.0 if saturation_adu is None else max(saturation_adu - high_adu, 0.0)
        # Never in narrower steps than below: see `_place`.
        self.beyond = min(POINTS_BEYOND, int(room / step))
        brighter = np.linspace(high_adu, high_adu + room, self.beyond + 1)[1:]
        grid = np.concatenate([np.linspace(low_adu, high_adu, GRID_POINTS), brighter])
        table = noise_model.mixture(grid)
        floor = LEAST_VARIANCE * scale_adu**2
        self.dark_variance = dark_variance_adu2 / scale_adu**2
        self.first = (low_adu - centre_adu) / scale_adu
        self.per_point = step / scale_adu
        self.last_trained = (high_adu - centre_adu) / scale_adu
        self.per_point_beyond = room / scale_adu / max(self.beyond, 1)
        total = np.maximum(table.total_variance(), floor) / scale_adu**2
        parts = np.concatenate(
            [
                table.weights,
                table.offsets / scale_adu,
                np.maximum(table.variances, floor) / scale_adu**2,
            ]
        )
        self.register_buffer("variances", torch.from_numpy(total).float())  # (G,)
        self.register_buffer("mixture", torch.from_numpy(parts).float())  # (3K, G)

    @property
    def trained_variances(self) -> Tensor:
        """The variances at signals that were trained on, (GRID_POINTS,)."""
        return self.variances[:GRID_POINTS]

    def variance(self, signal: Tensor, excess: Tensor | None = None) -> Tensor:
        """Return Var[observation | signal] for signals of any shape."""
        variance = self.interpolated(self.variances, signal)
        return variance if excess is None else variance * self._own_share(variance, excess)

    def interpolated(self, table: Tensor, signal: Tensor) -> Tensor:
        """Return for each signal what stands in a table (G,) over `signals`."""
        index, fraction = self._place(signal)
        below = table[index]
        return below + (table[index + 1] - below) * fraction

    def _own_share(self, variance: Tensor, excess: Tensor) -> Tensor:
        """Return a pixel's own variance over that of the law."""
        return (1 + self.dark_variance * (excess.exp() - 1) / variance).clamp_min(LEAST_OWN_SHARE)

    def log_likelihood(
        self, observation: Tensor, signal: Tensor, excess: Tensor | None = None
    ) -> Tensor:
        """Return log p(observation | signal), elementwise; shapes broadcast."""
        index, fraction = self._place(signal)
        below = self.mixture[:, index]  # (3K, …)
        parts = below + (self.mixture[:, index + 1] - below) * fraction
        weights, offsets, variances = parts.chunk(3, dim=0)  # (K, …) each
        if excess is not None:
            share = self._own_share(self.variance(signal), excess)
            offsets, variances = offsets * share.sqrt(), variances * share
        terms = (
            torch.log(weights.clamp_min(1e-12))
            - 0.5 * torch.log(2 * math.pi * variances)
            - 0.5 * (observation - signal - offsets) ** 2 / variances
        )
        return torch.logsumexp(terms, dim=0)

    def drawn(self, signal: Tensor, excess: Tensor | None, rng: torch.Generator) -> Tensor:
        """Return what the camera might have seen of a signal (N, C, Y, X): drawn from the law."""
        index, fraction = self._place(signal)
        below = self.mixture[:, index]  # (3K, N, C, Y, X)
        parts = below + (self.mixture[:, index + 1] - below) * fraction
        weights, offsets, variances = parts.chunk(3, dim=0)
        chance = torch.rand(signal.shape, generator=rng).to(signal.device)
        reached = weights.cumsum(dim=0) / weights.sum(dim=0)
        which = (chance > reached).sum(dim=0, keepdim=True).clamp_max(len(weights) - 1)
        noise = torch.randn(signal.shape, generator=rng).to(signal.device)
        noise = offsets.gather(0, which)[0] + variances.gather(0, which)[0].sqrt() * noise
        if excess is not None:
            noise = noise * self._own_share(self.variance(signal), excess).sqrt()
        return signal + noise

    def line(self) -> tuple[float, float]:
        """Return slope and summand of the straight line that the trained variances follow.

        Of a photon counter the slope is the gain. It is never less than what bends the variance
        by a tenth: without any slope, light has no unit.
        """
        variances = self.trained_variances.double()
        signals = self.first + self.per_point * torch.arange(len(variances)).to(variances)
        away = signals - signals.mean()
        slope = float((away * variances).sum() / (away**2).sum())
        spread = float(signals[-1] - signals[0])
        mean = float(variances.mean())
        slope = max(slope, LEAST_BEND * mean / spread)
        return slope, mean - slope * float(signals.mean())

    def _place(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        place = (signal - self.first) / self.per_point
        if self.beyond:
            # Of two lines that meet at the brightest trained signal the lower one: the second is
            # the flatter.
            brighter = (signal - self.last_trained) / self.per_point_beyond
            place = torch.minimum(place, brighter + (GRID_POINTS - 1))
        place = place.clamp(0.0, GRID_POINTS + self.beyond - 1.001)
        # A network that has run away says NaN, which is no index; the loss still is NaN then.
        index = (place.nan_to_num(0.0) if self.training else place).to(torch.int64)
        return index, place - index
