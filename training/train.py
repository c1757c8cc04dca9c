"""Training, from top to bottom: open, audit, batches, step, validate, export, bundle.

Owns the order of things in one run. The methods are in `methods`, the frames in `data`, the
bundle in `output`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from ..calibration.bootstrap import bootstrap_noise_model
from ..calibration.fingerprint import CameraFingerprint
from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..calibration.noise_correlation import NoiseCorrelation
from ..calibration.noise_model import NoiseModel
from ..storage.atomic_output import require_absent, require_apart, require_space
from ..storage.directory_lock import owned
from ..storage.output_kinds import Kind
from ..storage.stack import Stack
from .checkpoint import (
    begun_algorithm,
    identity_of,
    load_checkpoint,
    require_same_run,
    require_same_whole,
    restore,
    save_checkpoint,
    state_of,
    working_file,
)
from .data.audit import require_any, require_planes, require_range
from .data.batches import batches
from .data.noise_correlation import noise_correlation
from .data.recordings import Recordings, load_recordings
from .data.side_inputs import SideInputs, channel_name, one_channel, other_channels_of, place_maps
from .data.targets import targets_of, told_apart
from .device import join_workers
from .errors import TrainingError, UnsuitedError
from .method_choice import with_method
from .methods import learner_for, learner_of, patch_edge, require_targets
from .methods.learner import Player
from .methods.uncertainty_calibration import calibrate_uncertainty
from .model.estimator import Estimator
from .model.noise_likelihood import TabulatedNoise
from .model.weight_average import weight_average
from .options import AUTO, DEFAULT_SECONDS, TrainingOptions
from .output.export_onnx import load_exporter
from .output.finishing_time import finishing_seconds
from .output.write_bundle import write_bundle
from .progress import TrainingProgress, Watcher, part_of_run, unwatched
from .run import BetweenSteps, Run, TrainingResult, go_on
from .schedule import Schedule, learning_rate_share
from .teaching.painter import with_pictures
from .teaching.surroundings import with_surroundings
from .validation import VALIDATIONS, held_out_frames, overfits, take_best, validate
from .working_clock import working_s

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""Of work that a kill costs at most."""
LARGEST_GRADIENT_NORM = 1.0
"""A step beyond it comes of one odd batch; Adam would remember it for a thousand steps."""
MOST_BAD_STEPS = 20
"""In a run. A few are the wages of reduced precision; more of them, and the run has diverged."""
SHOWN_STEPS = 20
"""Between two signs of life: a second or less."""
BUNDLE_BYTES = 64 * 2**20
"""What the largest bundle takes, several times over: asked of the disk before hours are spent."""

START_KEPT = (
    "no step predicted held-out frames better than the network that training began with: that "
    "one is kept; give more recordings, or more time"
)

UNWATCHED = (
    "of so few frames none can be held out: if the network learns the noise of single pixels, "
    "nothing will tell; give four frames or more of one recording"
)

EARLIER = "an earlier model's weights"
"""What a run is said to begin with that was given weights and no name of them."""

Remark = Callable[[str], None]


def train(
    stacks: Sequence[Stack],
    out: Path,
    options: TrainingOptions,
    *,
    noise_model: GaussianMixtureNoiseModel | None = None,
    camera: CameraFingerprint | None = None,
    channel: str | None = None,
    truths: Sequence[Stack] = (),
    pairs: Path | None = None,
    warm_start: dict[str, Tensor] | None = None,
    demanded: bool = True,
    accept: bool = False,
    overwrite: bool = False,
    between_steps: BetweenSteps = go_on,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    on_remark: Remark | None = None,
) -> TrainingResult | None:
    """Train a model on `stacks` and write it as a bundle at `out`.

    Parameters
    ----------
    stacks
        Noisy recordings of one camera setting; time series, z-stacks and positions alike.
    out
        The bundle's directory.
    options
        The choices, the budget among them.
    noise_model
        The camera's; None bootstraps one from the stacks.
    camera
        To which the model belongs; None takes the noise model's.
    channel
        Name or number of the channel where stacks hold several; `options.other_channels` are
        others.
    truths
        Clean frames of each stack, for methods that learn from them.
    pairs
        File of the frames that show the same, for methods that learn from repeats; without it
        they are found by a test that nothing moved.
    warm_start
        Network weights to begin with, of a model of the same algorithm, preset and context.
    demanded
        Whether somebody asked for the method that `options` name. If not, recordings that do not
        suit it are trained on by the one that does, and a resumed run goes on with the one that
        it took.
    accept
        Let the model be put in use even if it is no better than its input or a blur.
    overwrite
        Replace what stands at `out`.
    between_steps
        Called before every step; may wait, or end the run by an exception.
    on_progress, on_remark
        Called now and then with how far the run is, and with what a person should know.

    Returns
    -------
    The run and its bundle; None in a process that only helped under torchrun.

    Raises
    ------
    TrainingDataError
        If the stacks cannot teach a network.
    TrainingError
        If the run cannot start, go on or be exported; `UnsuitedError` if that is because of the
        method.
    OutputError
        If `out` exists or cannot be written.
    """
    started = working_s()
    out, leads = Path(out), join_workers().leads
    remark = on_remark if on_remark is not None and leads else logger.info
    require_any(stacks)
    require_targets(options, truths, pairs)
    read_from = [stack.path for stack in (*stacks, *truths)]
    require_apart(out, read_from if pairs is None else [*read_from, pairs])
    require_absent(out, overwrite=overwrite, kind=Kind.BUNDLE)
    require_space(out, BUNDLE_BYTES)
    if options.seconds is None and options.steps is None:
        options = replace(options, seconds=DEFAULT_SECONDS)
    options, channel = _with_names(options, channel, stacks[0])
    # From the first step on: no second training may write the same bundle or its checkpoint.
    with owned(out) if leads else nullcontext():
        if options.resume and (options.algorithm == AUTO or not demanded):
            options = replace(options, algorithm=begun_algorithm(working_file(out)))
        recordings, pixel_maps = read(
            stacks, options, noise_model, channel, remark, truths=truths, pairs=pairs
        )
        # Of the frames that are in memory when it is asked for: it must not keep them there.
        correlation = cache(lambda: noise_correlation(recordings.resident))
        if options.algorithm == AUTO:
            agreed = join_workers().agreed
            options = with_method(options, correlation(), remark, agreed=agreed)
            recordings = recordings.with_patch(patch_edge(options))
        if noise_model is None:
            remark("no noise model was given: one is estimated from the recordings themselves")
            noise_model = bootstrap_noise_model(recordings.stacks, seed=options.seed)
        path = str(recordings.stacks[0].path)
        require_range(noise_model, path, recordings.share_outside, remark)
        load_exporter()
        working = working_file(out)
        begin = partial(
            fit,
            noise_model=noise_model,
            started=started,
            checkpoint=working,
            channel=channel,
            warm_start=warm_start,
            between_steps=between_steps,
            on_progress=on_progress,
            on_remark=remark,
            correlation=correlation,
        )
        estimator, run = _fitted(begin, recordings, options, remark, demanded=demanded)
        if not run.workers.leads:
            return None
        result = write_bundle(
            out,
            estimator,
            run,
            recordings,
            noise_model,
            camera=camera,
            channel=channel,
            pixel_maps=pixel_maps,
            accept=accept,
            overwrite=overwrite,
        )
        working.unlink(missing_ok=True)
        return result


def _fitted(
    begin: Callable[..., tuple[Estimator, Run]],
    recordings: Recordings,
    options: TrainingOptions,
    remark: Remark,
    *,
    demanded: bool,
) -> tuple[Estimator, Run]:
    """Train by the method of the options, or by the one that suits where nobody demanded it."""
    try:
        return begin(recordings, options=options)
    except UnsuitedError as error:
        if demanded:
            raise
        remark(f"{error}: that is done")
        instead = error.instead
    # Here, where the error keeps nothing of the first attempt.
    options = replace(options, algorithm=instead)
    return begin(recordings.with_patch(patch_edge(options)), options=options)


def _with_names(
    options: TrainingOptions, channel: str | None, stack: Stack
) -> tuple[TrainingOptions, str | None]:
    """Return options and channel with the names by which the model will know the channels."""
    others = tuple(channel_name(stack, named) for named in options.other_channels)
    if channel is not None and stack.sizes.get("channel", 1) > 1:
        channel = channel_name(stack, channel)
    return replace(options, other_channels=others), channel


def read(
    stacks: Sequence[Stack],
    options: TrainingOptions,
    noise_model: GaussianMixtureNoiseModel | None,
    channel: str | None,
    remark: Remark,
    *,
    truths: Sequence[Stack] = (),
    pairs: Path | None = None,
) -> tuple[Recordings, NDArray[np.float32] | None]:
    """Open and audit: return the recordings, and the camera's pixel maps if they are used.

    Raises
    ------
    TrainingDataError
        If the stacks cannot teach a network.
    """
    for stack in stacks:
        require_planes(stack, options.planes)
    others = [other_channels_of(stack, channel, options.other_channels) for stack in stacks]
    stacks = [one_channel(stack, channel) for stack in stacks]
    maps = None
    if noise_model is not None and options.pixel_maps:
        maps = place_maps(noise_model, stacks, remark)
    whole, parts = maps or (None, [None] * len(stacks))
    targets = targets_of(
        learner_of(options.algorithm).target,
        stacks,
        [one_channel(truth, channel) for truth in truths],
        pairs,
        options.context_frames,
        remark,
        options.planes,
    )
    recordings = load_recordings(
        stacks,
        context_frames=options.context_frames,
        patch=patch_edge(options),
        memory_mib=options.memory_mib,
        seed=options.seed,
        worker=join_workers().rank,
        seconds=options.seconds,
        side_inputs=[SideInputs(*known) for known in zip(others, parts, targets, strict=True)],
        planes=options.planes,
    )
    recordings = replace(recordings, pairs=None if pairs is None else told_apart(pairs))
    if recordings.frames_read < recordings.frames:
        remark(
            f"only {recordings.frames_read} of {recordings.frames} frames are used, evenly "
            "spread: reading all of them would take too much of the budget; give more --minutes"
        )
    return recordings, whole


def fit(
    recordings: Recordings,
    noise_model: NoiseModel,
    options: TrainingOptions,
    *,
    started: float,
    checkpoint: Path | None = None,
    channel: str | None = None,
    warm_start: dict[str, Tensor] | None = None,
    between_steps: BetweenSteps = go_on,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    on_remark: Remark = logger.info,
    follows: Callable[[Estimator, Recordings], float] = finishing_seconds,
    correlation: Callable[[], NoiseCorrelation] | None = None,
    whole: Mapping[str, Any] | None = None,
) -> tuple[Estimator, Run]:
    """Train until the budget is used; return the estimator with averaged weights.

    Where the method has a teacher that is trained first, and the student on what it says then.

    Parameters
    ----------
    recordings
        What to learn from.
    noise_model
        The camera.
    options
        The choices.
    started
        `working_s()` at which the budget began to run.
    checkpoint
        Where the state is kept, and resumed from with `options.resume`.
    channel
        What the recordings show; a run of another channel is not resumed.
    warm_start
        Weights to begin with.
    between_steps
        Called before every step.
    on_progress, on_remark
        Called now and then.
    follows
        Returns the seconds that what comes after the steps will take.
    correlation
        Returns how the noise is correlated, where it is measured already.
    whole
        The identity of the run of which this is a part.

    Raises
    ------
    TrainingError
        If there is nothing to resume, the budget is used up, or the loss is not finite.
    """
    method = learner_of(options.algorithm)
    state = load_checkpoint(checkpoint) if checkpoint is not None and options.resume else None
    named = options.begun_with is not None
    if not named:
        options = replace(options, begun_with=_begun_with(warm_start, state))
    if correlation is None:  # as lazily as in `train`
        correlation = cache(lambda: noise_correlation(recordings.resident))
    lesson = method.teacher_options(options)
    taught: _Taught | None = None
    if lesson is not None:
        taught = _taught(
            recordings,
            noise_model,
            lesson,
            options,
            state,
            started=started,
            checkpoint=checkpoint,
            channel=channel,
            between_steps=between_steps,
            on_progress=on_progress,
            on_remark=on_remark,
            correlation=correlation,
        )
        recordings, state, started = taught.recordings, taught.state, taught.started
        if on_progress is not None:
            on_progress = part_of_run(
                on_progress, options.algorithm, taught.share, 1 - taught.share
            )
    options = method.fitted_to(options, correlation, on_remark)
    schedule = partial(
        Schedule,
        seconds=options.seconds,
        steps=options.steps if taught is None else taught.steps_left(options),
        started=started,
    )
    identity = identity_of(options, recordings, noise_model, channel)
    if state is not None:
        require_same_run(state, identity)
        recordings = replace(recordings, begun_units=tuple(state["units"]))
    run, estimator = _new_run(recordings, noise_model, options, schedule())
    run.teacher = None if taught is None else taught.kept
    if warm_start is not None and state is None:
        _begin_with(run, warm_start, on_remark, named=named)
        identity["begun_with"] = run.options.begun_with
    run.noise_correlation = correlation()
    run.learner.know(run.noise_correlation)
    if state is not None:
        restore(run, state)
        run.schedule = schedule(spent=state["elapsed"], begun=state["begun"])
    if run.learner.begins_trained and not recordings.holds_out:
        on_remark(UNWATCHED)
    _begin(run, estimator, recordings, on_remark, follows)

    def save() -> None:
        if checkpoint is not None and run.workers.leads:
            save_checkpoint(checkpoint, state_of(run, identity, recordings, whole))

    watched = on_progress is not None and run.workers.leads
    tell = Watcher(run, estimator, recordings, on_progress) if watched else unwatched  # type: ignore[arg-type]
    held_out = held_out_frames(
        recordings.held_out, estimator, run.learner.network.stride, run.workers.device
    )
    if state is None:
        run.learner.require_suited(held_out, _rng(options.seed))
    _steps(run, recordings, held_out, save, partial(between_steps, run, save), tell)
    if take_best(run):
        on_remark(START_KEPT)
    _finish(run, estimator, held_out)
    for finding in run.learner.findings(held_out, _rng(options.seed)):
        on_remark(finding)
    return estimator.cpu().eval(), run


def _finish(run: Run, estimator: Estimator, held_out: Sequence[Tensor]) -> None:
    """Let the averaged network be the one that is used, and calibrate what it states."""
    run.learner.network = estimator.network = run.learner.exported(run.averaged_network)
    calibrate_uncertainty(run.learner, held_out, partial(_rng, run.options.seed))


def _new_run(
    recordings: Recordings,
    noise_model: NoiseModel,
    options: TrainingOptions,
    schedule: Schedule,
) -> tuple[Run, Estimator]:
    """Return a run at its first step, and the estimator around its averaged weights."""
    torch.manual_seed(options.seed)
    units = {"centre_adu": recordings.centre_adu, "scale_adu": recordings.scale_adu}
    noise = TabulatedNoise(
        noise_model,
        low_adu=recordings.low_adu,
        high_adu=recordings.high_adu,
        dark_variance_adu2=noise_model.least_variance_adu2,
        saturation_adu=recordings.saturation_adu,
        **units,
    )
    workers = join_workers()
    learner = learner_for(options, noise, recordings.inputs)
    learner.posterior.to(workers.device)
    players = learner.players()
    for player in players:
        player.network.to(workers.device)
        player.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(
        options=options,
        workers=workers,
        learner=learner,
        optimizers=[
            torch.optim.Adam(player.network.parameters(), betas=player.betas, fused=True)
            for player in players
        ],
        average=weight_average(learner.network),
        schedule=schedule,
        players=players,
    )
    estimator = Estimator(
        run.average.module,
        learner.posterior,
        other_channel_units=recordings.other_channel_units,
        **units,
    )
    return run, estimator


@dataclass(frozen=True, slots=True)
class _Taught:
    """What a teacher leaves to its student.

    Attributes
    ----------
    recordings
        With its pictures of their frames.
    state
        Of the student, where that had begun before a kill.
    started
        When the budget of both began to run.
    kept
        The teacher's weights and steps, for a checkpoint.
    share
        Of the budget that was the teacher's.
    """

    recordings: Recordings
    state: dict[str, Any] | None
    started: float
    kept: dict[str, Any]
    share: float

    def steps_left(self, options: TrainingOptions) -> int | None:
        """Return the student's steps, None where the budget is time."""
        return None if options.steps is None else max(1, options.steps - self.kept["steps"])


def _taught(
    recordings: Recordings,
    noise_model: NoiseModel,
    lesson: TrainingOptions,
    options: TrainingOptions,
    state: dict[str, Any] | None,
    *,
    started: float,
    checkpoint: Path | None,
    on_progress: Callable[[TrainingProgress], None] | None,
    **given: Any,
) -> _Taught:
    """Train a teacher, or go on with it, or take the one that is done; have it paint the frames.

    `lesson` holds the teacher's options, `options` the student's, `state` what a kill left of
    either; `given` goes to `fit`.
    """
    share = budget_share(lesson, options)
    begun = state is not None and state["options"].get("algorithm") == lesson.algorithm
    whole = identity_of(options, recordings, noise_model, given["channel"])
    if state is not None and not begun:  # before anything of it is used
        require_same_run(state, whole)
    del whole["begun_with"]  # which a resumed teacher does not know
    if state is not None and begun:
        require_same_whole(state, whole)
    kept = None if state is None else state.get("teacher")
    if kept is not None and state is not None:
        recordings = replace(recordings, begun_units=tuple(state["units"]))
    seen = with_surroundings(recordings)
    recordings.sampler.let_go()
    if kept is not None:
        run, estimator = _new_run(
            seen, noise_model, lesson, Schedule(seconds=None, steps=1, started=started)
        )
        estimator.network.load_state_dict(kept["weights"])
        stride, device = run.learner.network.stride, run.workers.device
        _finish(run, estimator, held_out_frames(seen.held_out, estimator, stride, device))
    else:
        if on_progress is not None:
            on_progress = part_of_run(on_progress, lesson.algorithm, 0.0, share)
        estimator, run = fit(
            seen,
            noise_model,
            replace(lesson, resume=begun),
            started=started,
            checkpoint=checkpoint,
            on_progress=on_progress,
            follows=nothing_follows,
            whole=whole,
            **given,
        )
        started, state = working_s() - run.schedule.elapsed, None
        kept = {"weights": estimator.network.state_dict(), "steps": run.step}
    painted = with_pictures(recordings, seen, estimator, options.seconds)
    return _Taught(painted, state, started, kept, share)


def nothing_follows(estimator: Estimator, recordings: Recordings) -> float:
    """Return that no time is needed after the steps."""
    return 0.0


def budget_share(part: TrainingOptions, whole: TrainingOptions) -> float:
    """Return which share of a budget a part of it is."""
    if part.seconds is not None and whole.seconds is not None:
        return part.seconds / whole.seconds
    return (part.steps or 1) / max(whole.steps or 1, 1)


def _begin(
    run: Run,
    estimator: Estimator,
    recordings: Recordings,
    remark: Remark,
    follows: Callable[[Estimator, Recordings], float],
) -> None:
    """Set the clock of a run whose budget is time, and say so if that is too short.

    Raises
    ------
    TrainingError
        If nothing of it is left.
    """
    seconds = run.options.seconds
    if seconds is None:
        run.schedule.begin(0.0)
        return
    if run.schedule.is_used_up and run.step == 0:
        raise TrainingError(
            f"the budget of {seconds:.0f} s was used up before the first step: reading and "
            f"preparing took {run.schedule.elapsed:.0f} s; give more --minutes, or a "
            "--noise-model where one had to be estimated"
        )
    finishing = follows(estimator, recordings)
    prepared = run.schedule.elapsed
    late = run.schedule.begin(finishing)
    if late is not None:
        remark(
            f"{seconds:.0f} s are too short for this machine as busy as it is: reading and "
            f"preparing took {prepared:.0f} s, calibration, export and checks will take about "
            f"{finishing:.0f} s; the run will take about {late:.0f} s. Give more --minutes"
        )


def _begun_with(
    warm_start: Mapping[str, Tensor] | None, state: Mapping[str, Any] | None
) -> str | None:
    """Return in words what a run begins with, or began with, where nobody named it."""
    if state is not None:
        return cast("str | None", state["options"].get("begun_with"))
    return None if warm_start is None else EARLIER


def _begin_with(run: Run, weights: Mapping[str, Tensor], remark: Remark, *, named: bool) -> None:
    """Let the network, and its average, begin with the weights of an earlier one.

    Raises
    ------
    TrainingError
        If they are of another network, and somebody named it.
    """
    if not _fits(run.learner.network, weights):
        if named:
            raise TrainingError(
                "--from: the network of that model has other inputs or layers than this run's; "
                "give the --noise-model that it was trained with (or --no-pixel-maps, where that "
                "has no maps of the camera's pixels), or leave out --from (as for a model of an "
                "earlier version whose preset was of another size)"
            )
        remark("the earlier model's network has other inputs or layers: it is not begun with")
        run.options = replace(run.options, begun_with=None)
        return
    run.learner.network.load_state_dict(weights)
    run.average.module.load_state_dict(weights)


def _fits(network: torch.nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are of a network of the same inputs: pixel maps add one."""
    own = network.state_dict()
    return own.keys() == weights.keys() and all(
        own[name].shape == value.shape for name, value in weights.items()
    )


def _steps(
    run: Run,
    recordings: Recordings,
    held_out: Sequence[Tensor],
    save: Callable[[], None],
    between_steps: Callable[[], None],
    tell: Callable[[float], None],
) -> None:
    """Take steps until the budget is used, or held-out frames are predicted worse and worse."""
    peak = run.options.learning_rate or run.learner.learning_rate
    last_saved = time.monotonic()
    progress = run.progress()
    source = batches(
        recordings,
        run.options,
        worker=run.workers.rank,
        transpose=run.learner.transpose,
        first_step=run.step,
        progress=run.schedule.progress,
    )
    if run.learner.begins_trained and not run.losses:
        validate(run, held_out, partial(_rng, run.options.seed, 0))
    with closing(source):
        while progress < 1:
            between_steps()
            frames = next(source).to(run.workers.device, non_blocking=True)  # (B, planes, P, P)
            for player, optimizer in zip(run.players, run.optimizers, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = player.rate * peak * learning_rate_share(progress)
            run.learner.progress = progress
            rng = _rng(run.options.seed, run.step, run.workers.rank)
            run.recent.append(_step(run, frames, rng))
            run.step += 1
            before, progress = progress, run.progress()
            # At fixed shares of the budget, wherever a resumed run began.
            due = int(VALIDATIONS * progress) > int(VALIDATIONS * before)
            if due:
                validate(run, held_out, partial(_rng, run.options.seed, 0))
            if due or time.monotonic() - last_saved > CHECKPOINT_SECONDS:
                save()  # before anybody is told, who might fail
                last_saved = time.monotonic()
            if due or run.step % SHOWN_STEPS == 0:
                tell(progress)
            if due and run.workers.agreed(overfits(run)):
                break


def _step(run: Run, frames: Tensor, rng: torch.Generator) -> float:
    """Let each player take its turns; return the loss of the last, which is the network's."""
    value = float("nan")
    for player, optimizer in zip(run.players, run.optimizers, strict=True):
        for _ in range(player.turns):
            optimizer.zero_grad(set_to_none=True)
            with run.workers.precision():
                loss = player.loss(frames, rng)
            loss.backward()  # type: ignore[no-untyped-call]
            value = float(loss.detach()) if _moved(run, player, optimizer) else float("nan")
    run.average.update_parameters(run.learner.network)
    return value


def _moved(run: Run, player: Player, optimizer: Optimizer) -> bool:
    """Change a player's weights by their gradients; leave them where these are not finite.

    Raises
    ------
    TrainingError
        If that has happened too often.
    """
    weights = list(player.network.parameters())
    run.workers.average(p.grad for p in weights if p.grad is not None)
    norm = torch.nn.utils.clip_grad_norm_(weights, LARGEST_GRADIENT_NORM)
    if torch.isfinite(norm):
        optimizer.step()
        return True
    run.bad_steps += 1
    if run.bad_steps > MOST_BAD_STEPS:
        raise TrainingError(
            f"the loss was not finite in {run.bad_steps} steps, the last one step {run.step}; "
            "lower --learning-rate, or check the recordings and the noise model"
        )
    return False


def _rng(seed: int, step: int = 0, rank: int = 0) -> torch.Generator:
    """Return a generator of a step's own, so that a resumed run hides the same pixels."""
    return torch.Generator().manual_seed(((seed * 1_009 + rank) * 100_000_007 + step) % 2**63)
