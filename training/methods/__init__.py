"""The methods, one file each: the network it trains, its loss, and how the result is read."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import TrainingError
from ..method_choice import INDEPENDENT
from ..options import AUTO, InputPlanes, TrainingOptions
from ..registry import METHODS, TEACHERS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ...storage.stack import Stack
    from ..model.noise_likelihood import TabulatedNoise
    from .learner import Learner, TargetKind


def learner_of(algorithm: str) -> type[Learner]:
    """Return the Learner of the method that is called `algorithm` in the registry."""
    # Where the noise has not been looked at yet, what holds for most cameras.
    known = METHODS | TEACHERS
    module, name = known[INDEPENDENT if algorithm == AUTO else algorithm].split(":")
    found: type[Learner] = getattr(import_module(f".{module}", __name__), name)
    return found


def learner_for(
    options: TrainingOptions, noise: TabulatedNoise, inputs: InputPlanes | None = None
) -> Learner:
    """Return the learner of `options.algorithm`, its weights drawn from torch's generator.

    `inputs` says what the network is given; by default preceding frames alone.
    """
    inputs = inputs or InputPlanes(options.context_frames, planes=options.planes)
    return learner_of(options.algorithm)(options, noise, inputs)


def patch_edge(options: TrainingOptions) -> int:
    """Return the edge of the patches in pixels: what was asked for, or the method's own."""
    return options.patch or learner_of(options.algorithm).patch_edge(options)


def require_targets(options: TrainingOptions, truths: Sequence[Stack], pairs: Path | None) -> None:
    """Refuse options and targets that the method has no use for, and the lack of what it needs.

    Raises
    ------
    TrainingError
        With what to leave out or to give.
    """
    method, name = learner_of(options.algorithm), options.algorithm
    if method.target == "truth" and not truths:
        raise TrainingError(
            f"{name} learns from clean frames and none were given; give --truth STACK for each "
            "recording, or train a method that needs none (--algorithm lattice)"
        )
    if method.target != "truth" and truths:
        raise TrainingError(
            f"{name} learns from noisy frames alone and has no use for --truth; leave it out, or "
            f"train {_named('truth')}"
        )
    if method.target != "repeat" and pairs is not None:
        raise TrainingError(
            f"{name} has no use for --pairs; leave it out, or train {_named('repeat')}"
        )
    if options.perceptual_weights is not None and not method.compares_features:
        raise TrainingError(f"{name} has no use for --perceptual-weights; leave it out")
    if options.loss is not None and options.loss not in method.losses:
        known = f"expected one of {', '.join(method.losses)}" if method.losses else "leave it out"
        raise TrainingError(f"--loss is {options.loss!r}, which {name} does not have; {known}")


def _named(target: TargetKind) -> str:
    """Return the methods that learn from a kind of target."""
    return " or ".join(name for name in METHODS if learner_of(name).target == target)
