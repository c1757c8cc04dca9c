"""A model for one channel, or for every channel of the recordings.

Owns the word `all`: which models are trained then, where they lie and how the budget is shared. A
single run is `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..inference.companions import companion_delay
from ..stacks import Stack
from .errors import TrainingDataError
from .options import DEFAULT_SECONDS, TrainingOptions
from .train import TrainingProgress, TrainingResult, train

ALL = "all"


def train_channels(
    stacks: Sequence[Stack],
    out: Path,
    options: TrainingOptions,
    *,
    noise_model: GaussianMixtureNoiseModel | None,
    channel: str | None,
    overwrite: bool,
    on_progress: Callable[[TrainingProgress], None],
    on_remark: Callable[[str], None],
) -> Mapping[str | None, TrainingResult]:
    """Train a model for `channel`, or with `all` one for each, with the others as companions.

    With `all` the bundles lie in `out` under the names of their channels, and each has its share
    of the budget of time. Companions that `options` names take the place of all others.

    Returns
    -------
    Results by channel.

    Raises
    ------
    TrainingDataError
        If there is but one channel, or no folder can have a channel's name.
    """
    plans: dict[str | None, tuple[Path, TrainingOptions]] = {channel: (out, options)}
    if channel == ALL and stacks and ALL not in stacks[0].channel_names:
        plans = {
            name: (out / name, found) for name, found in plan_channels(stacks[0], options).items()
        }
    return {
        name: train(
            stacks,
            folder,
            planned,
            noise_model=noise_model,
            channel=name,
            overwrite=overwrite,
            on_progress=on_progress,
            on_remark=on_remark,
        )
        for name, (folder, planned) in plans.items()
    }


def plan_channels(stack: Stack, options: TrainingOptions) -> dict[str, TrainingOptions]:
    """Return the options of each channel's run with `all`, by the channel's name.

    Raises
    ------
    TrainingDataError
        If there is but one channel, or no folder can have a channel's name.
    """
    count = stack.sizes.get("channel", 1)
    names = list(stack.channel_names) or [str(number) for number in range(count)]
    if count == 1:
        raise TrainingDataError(
            f"{stack.path}: holds one channel; leave out --channel {ALL}, which trains a model "
            "for each of several"
        )
    if odd := [name for name in names if Path(name).name != name]:
        raise TrainingDataError(
            f"{stack.path}: no folder can be named after channel {odd[0]!r}; train its model on "
            "its own with --channel"
        )
    seconds = options.seconds
    if seconds is None and options.steps is None:
        seconds = DEFAULT_SECONDS
    again = stack.sizes.get("time", 1) > 1
    planned = {}
    for own, name in enumerate(names):
        before = [
            other
            for number, other in enumerate(names)
            if number != own and (again or not companion_delay(own, number))
        ]
        named = [other for other in options.companions if other != name]
        planned[name] = replace(
            options,
            companions=tuple(named or before),
            seconds=None if seconds is None else seconds / len(names),
        )
    return planned
