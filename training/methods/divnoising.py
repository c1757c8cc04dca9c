"""`divnoising`: a variational autoencoder whose decoder's likelihood is the camera's noise.

Owns its sizes. Loss and latents are shared with its successor, in `latents` and `model.latent`.
Source: Prakash et al. 2021, arXiv:2006.06072.
"""

from __future__ import annotations

from ...inference.bundle import Preset
from ..model.latent import FlatLatents
from ..options import TrainingOptions
from .latents import LatentLearner

WIDTHS: dict[Preset, int] = {"fast": 16, "live": 16, "best": 32}
"""Channels at half the resolution, twice as many at a quarter of it."""
LATENTS: dict[Preset, int] = {"fast": 16, "live": 32, "best": 64}
"""At a quarter of it; 64 are the authors'."""


class DivNoising(LatentLearner):
    """The learner of `divnoising`."""

    @classmethod
    def network_of(cls, options: TrainingOptions, inputs: int) -> FlatLatents:
        """Return the network."""
        preset = options.preset
        return FlatLatents(inputs, WIDTHS[preset], LATENTS[preset], options.posterior_samples)
