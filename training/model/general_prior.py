"""The general model's network as one that is trained on a recording: units in, units out.

Owns the way from the units of a run to photoelectrons and back, and the split of photoelectrons in
two exposures with noise of their own. What is learned from the split is in `methods.refined`.

Photons that are sorted at random to two exposures are independent there (Poisson thinning); of
normal noise the split adds to one what it takes from the other (Pang et al. 2021,
doi:10.1109/CVPR46437.2021.00208; for both and other laws, Monroy, Bacca & Tachella 2025,
arXiv:2412.04648). An exposure of a share of the light has its share
of all variance, so that the network sees a dimmer frame of the same camera, as it knows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..options import InputPlanes
from .general import (
    LEAST_VARIANCE_E2,
    STRIDE,
    GeneralNetwork,
    without_noisy_pixels,
)
from .masking import reflected
from .network import Network

LEAST_OWN_SHARE = 0.01
"""Of the camera's variance without light, that the quietest pixel has."""
NEGATIVE_SHARE = 1e-3
"""Of pixels with less than nothing, read noise and light together, up to which they are counts."""


@dataclass(frozen=True, slots=True)
class CameraInUnits:
    """A camera as the general model knows it, and the units of a run.

    Attributes
    ----------
    zero
        The signal without light, in network units.
    per_unit
        Photoelectrons of one network unit.
    read_variance_e2
        What is left without light.
    dark_variance_e2
        Of the noise model without light: what the logarithms of pixel maps are taken of.
    """

    zero: float
    per_unit: float
    read_variance_e2: float
    dark_variance_e2: float

    def noisier(self, factor: float) -> CameraInUnits:
        """Return a camera whose noise has `factor` times the variance at every signal."""
        return replace(
            self,
            per_unit=self.per_unit / factor,
            read_variance_e2=self.read_variance_e2 / factor,
            dark_variance_e2=self.dark_variance_e2 / factor,
        )


@dataclass(frozen=True, slots=True)
class Electrons:
    """What the general model's network takes: see `GeneralNetwork.forward`."""

    frames: Tensor
    there: Tensor
    read: Tensor


class GeneralPrior(Network):
    """The general model between planes in network units and mean and spread of the signal.

    The spread is in units of the law's noise, as `GaussianPosterior` takes it.

    Parameters
    ----------
    inputs
        What the network is given.
    camera
        Which camera it is: constants, and nothing that is learned or kept with the weights.
    """

    stride = STRIDE
    period = STRIDE

    def __init__(self, inputs: InputPlanes, camera: CameraInUnits) -> None:
        super().__init__()
        self.network = GeneralNetwork()
        self.camera = camera
        self._inputs = inputs

    def forward(self, frames: Tensor) -> Tensor:
        """Return mean and spread (N, 2, Y, X) for planes (N, 1 + further, Y, X)."""
        height, width = frames.shape[2], frames.shape[3]
        seen = self.electrons(reflected(frames, STRIDE))
        return self.predicted(seen)[:, :, :height, :width]

    def predicted(self, seen: Electrons, share: float = 1.0) -> Tensor:
        """Return mean and spread (N, 2, Y, X) of the whole light, from a share of it."""
        mean, deviation = self.network(seen.frames, seen.there, seen.read)
        mean, deviation = mean / share, deviation / share
        read = self.camera.read_variance_e2 + LEAST_VARIANCE_E2
        noise = (mean.detach().clamp_min(0) + read).sqrt()
        return torch.cat([self.in_units(mean), deviation / noise], dim=1)

    def in_units(self, photoelectrons: Tensor) -> Tensor:
        """Return photoelectrons in network units."""
        return photoelectrons / self.camera.per_unit + self.camera.zero

    def electrons(self, frames: Tensor) -> Electrons:
        """Return planes in network units as photoelectrons; Y and X multiples of the stride."""
        own = frames[:, : self._inputs.own_frames]
        there = (own[:, 1:].abs().amax(dim=(2, 3), keepdim=True) > 0).to(frames.dtype)
        counted = (own - self.camera.zero) * self.camera.per_unit
        read = frames.new_full((1, 1, 1, 1), self.camera.read_variance_e2)
        if self._inputs.pixel_maps:
            # The law of the noise model may have more without light than the constants say.
            more = self.camera.dark_variance_e2 * torch.expm1(frames[:, -1:])
            of_pixels = torch.maximum(read + more, LEAST_OWN_SHARE * read)
            counted, read = without_noisy_pixels(counted, read, of_pixels)
        return Electrons(counted, there, read)


def split(
    whole: Electrons, taken: float, light: Callable[[], Tensor], rng: torch.Generator
) -> tuple[Electrons, Tensor]:
    """Split frames in two exposures; return the longer one, and the newest frame of the shorter.

    Parameters
    ----------
    whole
        Photoelectrons.
    taken
        Share of the light that the shorter exposure gets.
    light
        Returns the signal of each pixel as far as it is known, e⁻, (N, 1, Y, X); asked where
        pixels are no counts.
    rng
        On the processor.

    Returns
    -------
    The frames of the longer exposure, 1 - `taken` of the light, and (N, 1, Y, X) of the shorter
    one, `taken` of it.
    """
    counts = whole.frames + whole.read  # whose variance is their mean
    if float((counts[:, :1] < 0).float().mean()) <= NEGATIVE_SHARE:
        short = _thinned(counts, taken, rng) - taken * whole.read
    else:
        short = _of_light_and_read_noise(whole, taken, light().clamp_min(0), rng)
    left = Electrons(whole.frames - short, whole.there, (1 - taken) * whole.read)
    return left, short[:, :1]


def _thinned(counts: Tensor, taken: float, rng: torch.Generator) -> Tensor:
    """Sort counts at random to an exposure; what is between two whole numbers is rounded so."""
    above = counts.clamp_min(0)
    whole = above.floor()
    rest = above - whole
    up = (torch.rand(counts.shape, generator=rng).to(counts) < rest).to(counts.dtype)
    photons = (whole + up).cpu()
    drawn = torch.binomial(photons, torch.full(photons.shape, taken), generator=rng)
    return drawn.to(counts) + taken * (rest - up + counts.clamp_max(0))


def _of_light_and_read_noise(
    whole: Electrons, taken: float, light: Tensor, rng: torch.Generator
) -> Tensor:
    """Return the shorter exposure of pixels that have both kinds of noise.

    Sorting photons leaves the third moment of read noise in both exposures, with the opposite sign
    of what adding normal noise leaves of the photons': at few photons the network would learn from
    either. Each pixel is split in one way or the other, by chance in the shares at which nothing
    is left on average.
    """
    read = whole.read.clamp_min(LEAST_VARIANCE_E2)
    total = light + read

    def chance() -> Tensor:
        return torch.rand(whole.frames.shape, generator=rng).to(whole.frames)

    normal = torch.randn(whole.frames.shape, generator=rng).to(whole.frames)
    added = taken * whole.frames + (taken * (1 - taken) * total).sqrt() * normal
    # Pixels below nothing cannot be thinned, and so those above are too strongly: as much less
    # often.
    deviation = read.sqrt()
    density = torch.exp(-read / 2) / (2 * math.pi) ** 0.5
    below = 0.5 * torch.erfc(deviation / 2**0.5)
    beyond = torch.exp(-light) * deviation * (density - deviation * below)
    counts = whole.frames + read
    thinned = torch.where(
        chance() * (total + beyond) < total, _thinned(counts, taken, rng), taken * counts
    )
    return torch.where(chance() * total < read, added, thinned - taken * read)
