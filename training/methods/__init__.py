"""The methods, one file each: the network it trains, its loss, and how the result is read."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..options import InputPlanes, TrainingOptions
from ..registry import METHODS

if TYPE_CHECKING:
    from ..model.noise_likelihood import TabulatedNoise
    from .learner import Learner


def learner_of(algorithm: str) -> type[Learner]:
    """Return the Learner of the method that is called `algorithm` in the registry."""
    module, name = METHODS[algorithm].split(":")
    found: type[Learner] = getattr(import_module(f".{module}", __name__), name)
    return found


def learner_for(
    options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes | None = None
) -> Learner:
    """Return the learner of `options.algorithm`, its weights drawn from torch's generator.

    `inputs` says what the network is given; by default preceding frames alone.
    """
    inputs = inputs or InputPlanes(options.context_frames)
    return learner_of(options.algorithm)(options, noise, inputs)


def patch_edge(options: TrainingOptions) -> int:
    """Return the edge of the patches in pixels: what was asked for, or the method's own."""
    return options.patch or learner_of(options.algorithm).patch_edge(options)
