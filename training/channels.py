"""A model for one channel, or for every channel of the recordings.

Owns the word `all`: which models are trained then, where they lie and how the budget is shared. A
single run is `train`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..inference.bundle import MANIFEST
from ..inference.side_inputs import arrives_earlier
from ..storage.atomic_output import require_absent
from ..storage.output_kinds import Kind
from ..storage.stack import Stack
from .checkpoint import working_file
from .device import worker_count
from .errors import TrainingDataError, TrainingError
from .method_choice import REFINED
from .options import DEFAULT_SECONDS, TrainingOptions
from .progress import TrainingProgress
from .run import TrainingResult
from .train import train

ALL = "all"
FOLDER_NAME = re.compile(
    r"(?!\.|(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[^<>:\"/\\|?*\x00-\x1f]{0,99}"
    r"[^<>:\"/\\|?*\x00-\x1f. ]",
    re.IGNORECASE,
)
"""What every system takes: no separators or wildcards, no device of Windows, no dot at an end."""

Plans = dict[str | None, tuple[Path, TrainingOptions]]


def train_channels(
    stacks: Sequence[Stack],
    out: Path,
    options: TrainingOptions,
    *,
    noise_model: GaussianMixtureNoiseModel | None,
    channel: str | None,
    truths: Sequence[Stack] = (),
    pairs: Path | None = None,
    warm_start: dict[str, Tensor] | None = None,
    accept: bool = False,
    overwrite: bool,
    on_progress: Callable[[TrainingProgress], None],
    on_remark: Callable[[str], None],
) -> Mapping[str | None, TrainingResult]:
    """Train a model for `channel`, or with `all` one for each, with the others as side inputs.

    With `all` the bundles lie in `out` under the names of their channels, and each has its share
    of the budget of time. Other channels that `options` names take the place of all others.
    Resumed, finished channels stay, an unfinished one goes on, and the others begin.

    Returns
    -------
    Results by channel; none in a process that only helped under torchrun.

    Raises
    ------
    TrainingDataError
        If there is but one channel, or no folder can have a channel's name.
    TrainingError
        If several processes are to train all channels, or none is left to resume.
    OutputError
        If one of the bundles is there already; none is trained then.
    """
    plans: Plans = {channel: (out, options)}
    if channel == ALL and stacks and ALL not in stacks[0].channel_names:
        plans = _plan_all(stacks[0], out, options, on_remark)
        for folder, _ in plans.values():
            require_absent(folder, overwrite=overwrite, kind=Kind.BUNDLE)
    trained = {
        name: train(
            stacks,
            folder,
            planned,
            noise_model=noise_model,
            channel=name,
            truths=truths,
            pairs=pairs,
            warm_start=warm_start,
            accept=accept,
            overwrite=overwrite,
            on_progress=on_progress,
            on_remark=on_remark,
        )
        for name, (folder, planned) in plans.items()
    }
    return {name: result for name, result in trained.items() if result is not None}


def _plan_all(
    stack: Stack, out: Path, options: TrainingOptions, remark: Callable[[str], None]
) -> Plans:
    if worker_count() > 1:
        raise TrainingError(
            f"--channel {ALL} trains one model after the other and takes no torchrun; name one "
            "channel, or start it without torchrun"
        )
    plans: Plans = {
        name: (out / name, found) for name, found in plan_channels(stack, options).items()
    }
    return _left_of(plans, out, remark) if options.resume else plans


def _left_of(plans: Plans, out: Path, remark: Callable[[str], None]) -> Plans:
    """Return what a killed run left to do."""
    left: Plans = {}
    finished = []
    for name, (folder, options) in plans.items():
        unfinished = working_file(folder).is_file()
        if not unfinished and (folder / MANIFEST).is_file():
            finished.append(str(name))
        else:
            left[name] = folder, replace(options, resume=unfinished)
    if not left:
        raise TrainingError(f"{out}: every channel has its model; start without --resume")
    if finished:
        remark(f"{out}: finished and left as they are: {', '.join(finished)}")
    return left


def plan_channels(stack: Stack, options: TrainingOptions) -> dict[str, TrainingOptions]:
    """Return the options of each channel's run with `all`, by the channel's name.

    Raises
    ------
    TrainingDataError
        If there is but one channel, or no folder can have a channel's name, or two have one.
    """
    names = stack.channel_labels
    if len(names) == 1:
        raise TrainingDataError(
            f"{stack.path}: holds one channel; leave out --channel {ALL}, which trains a model "
            "for each of several"
        )
    if odd := [name for name in names if not FOLDER_NAME.fullmatch(name)]:
        raise TrainingDataError(
            f"{stack.path}: no folder can be named after channel {odd[0]!r}; train its model on "
            "its own with --channel"
        )
    # Windows and macOS take GFP and gfp for one folder.
    if len({name.casefold() for name in names}) < len(names):
        raise TrainingDataError(
            f"{stack.path}: two of the channels {', '.join(names)} have one name; give them "
            "names of their own, or train one by its number with --channel"
        )
    seconds = options.seconds
    if seconds is None and options.steps is None:
        seconds = DEFAULT_SECONDS
    again = stack.sizes.get("time", 1) > 1
    # A network that is there already takes what it takes.
    bound = options.algorithm == REFINED or options.begun_with is not None
    planned = {}
    for own, name in enumerate(names):
        before = [
            other
            for number, other in enumerate(names)
            if not bound and number != own and (again or arrives_earlier(number, own))
        ]
        named = [other for other in options.other_channels if other != name]
        planned[name] = replace(
            options,
            other_channels=tuple(named or before),
            seconds=None if seconds is None else seconds / len(names),
        )
    return planned
