"""`hdn`: latents at several resolutions under the camera's noise (hierarchical DivNoising).

Owns its sizes and what latents may say for nothing. Loss and latents are shared with `divnoising`,
in `latents` and `model.latent`. Source: Prakash et al. 2022, arXiv:2104.01374.
"""

from __future__ import annotations

from ...inference.bundle import Preset
from ..model.latent import LadderLatents
from ..options import TrainingOptions
from .latents import LatentLearner

WIDTHS: dict[Preset, int] = {"fast": 16, "live": 16, "best": 64}
"""Channels; 64 are the authors'. Wider ones learn more slowly than they gain in a short run."""
LATENTS: dict[Preset, int] = {"fast": 8, "live": 8, "best": 32}
"""Of each layer; 32 are the authors'."""
LAYERS: dict[Preset, int] = {"fast": 2, "live": 3, "best": 4}
"""Of latents, the finest at half the resolution; the authors have six."""


class HierarchicalDivNoising(LatentLearner):
    """The learner of `hdn`."""

    free_nats = 1.0

    @classmethod
    def network_of(cls, options: TrainingOptions, inputs: int) -> LadderLatents:
        """Return the network."""
        preset = options.preset
        return LadderLatents(
            inputs, WIDTHS[preset], LATENTS[preset], options.posterior_samples, LAYERS[preset]
        )
