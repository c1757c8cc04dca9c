"""The training loop: from noisy recordings to a sealed model bundle.

Owns the order of things in one run: read, prepare the camera's noise model, step until the budget
is used, make the uncertainty honest, export, seal. The methods are in `algorithms`, the patches in
`recordings`, the graph in `export`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial, wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..calibration.bootstrap import bootstrap_noise_model
from ..calibration.fingerprint import CameraFingerprint
from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..calibration.noise_model import NoiseModel
from ..storage.atomic_output import require_absent, require_apart, require_space
from ..storage.directory_lock import owned
from ..storage.output_kinds import Kind
from ..storage.stack import Stack
from .checkpoint import load_checkpoint, save_checkpoint, working_file
from .data.augmentation import augmented
from .data.noise_correlation import noise_correlation
from .data.recordings import Recordings, load_recordings
from .data.side_inputs import Beside, channel_name, one_channel, other_channels_of, place_maps
from .device import Workers, join_workers
from .errors import TrainingDataError, TrainingError
from .model.algorithms import Learner, learner_for
from .model.estimator import Estimator
from .model.noise_likelihood import TabulatedNoise
from .model.uncertainty_calibration import make_honest
from .model.weight_average import WeightAverage
from .options import DEFAULT_SECONDS, TrainingOptions
from .output.export_onnx import load_exporter
from .output.preview import Preview, PreviewTile
from .output.write_bundle import TrainingResult as TrainingResult
from .output.write_bundle import seal_run
from .schedule import EXPORT_SECONDS, Schedule, learning_rate_share

_P = ParamSpec("_P")
_R = TypeVar("_R")

logger = logging.getLogger(__name__)

VALIDATIONS = 12
PATIENCE = 4
PATIENT_STEPS = 20
OVERFITTED_NATS = 0.005
CHECKPOINT_SECONDS = 60.0
LARGEST_GRADIENT_NORM = 1.0
MOST_BAD_STEPS = 20
VALIDATION_FRAMES = 8
EXPORTER_IMPORT_SECONDS = 1.5
BUSIEST = 3.0
BUNDLE_BYTES = 64 * 2**20
MOST_OUTSIDE = 0.5
NOTED_OUTSIDE = 0.01


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """What can be shown while a run goes on."""

    step: int
    progress: float
    seconds_left: float
    loss: float
    validation_loss: float | None
    preview: Preview | None = None
    """Of the last validation."""


@dataclass(frozen=True, slots=True)
class LossRow:
    """One row of losses.csv."""

    step: int
    seconds: float
    loss: float
    validation_loss: float


@dataclass(slots=True)
class Run:
    """The moving parts of one run."""

    workers: Workers
    learner: Learner
    optimizer: torch.optim.Optimizer
    average: WeightAverage
    schedule: Schedule
    step: int = 0
    losses: list[LossRow] = field(default_factory=list)
    best: list[Tensor] = field(default_factory=list)
    """The averaged weights that predicted held-out frames best."""
    recent: list[float] = field(default_factory=list)
    """Losses since the last validation."""
    bad_steps: int = 0

    def progress(self) -> float:
        """Return the share of the budget that is used, the same in every worker."""
        return self.workers.agreed(self.schedule.progress(self.step))

    @property
    def best_score(self) -> float:
        """The least loss on held-out frames."""
        return min((row.validation_loss for row in self.losses), default=float("inf"))

    @torch.no_grad()
    def put_best(self) -> None:
        """Put the best weights into the network."""
        for live, value in zip(self.learner.network.parameters(), self.best, strict=True):
            live.copy_(value)


def fit(
    recordings: Recordings,
    noise_model: NoiseModel,
    options: TrainingOptions,
    *,
    started: float,
    export_seconds: float = EXPORT_SECONDS,
    checkpoint: Path | None = None,
    channel: str | None = None,
    warm_start: dict[str, Tensor] | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> tuple[Estimator, Run]:
    """Train until the budget is used; return the estimator with averaged weights.

    Parameters
    ----------
    recordings
        What to learn from.
    noise_model
        The camera.
    options
        The choices.
    started
        `time.monotonic()` at which the budget began to run.
    export_seconds
        What to leave of a budget of seconds for the export.
    checkpoint
        Where the state is kept, and resumed from with `options.resume`.
    channel
        What the recordings show; a run of another channel is not resumed.
    warm_start
        Weights to begin with.
    on_progress
        Called now and then.
    """
    if options.algorithm == "structn2v":
        options = with_mask(options, recordings, logger.info)
    schedule = partial(
        Schedule,
        seconds=options.seconds,
        steps=options.steps,
        started=started,
        export_seconds=export_seconds,
    )
    identity = _identity(options, recordings, channel)
    state = load_checkpoint(checkpoint) if checkpoint is not None and options.resume else None
    if state is not None:
        _require_same_run(state, identity)
        recordings = replace(recordings, begun_units=tuple(state["units"]))
    run, estimator = _new_run(recordings, noise_model, options, schedule(), warm_start)
    if state is not None:
        _restore(run, state)
        run.schedule = schedule(spent=state["elapsed"])
    stride = run.learner.network.stride
    held_out = _held_out_frames(recordings, estimator, stride, run.workers.device)
    show: Callable[[float], None] = _unseen
    if on_progress is not None and run.workers.leads:
        show = _Watcher(run, estimator, recordings, on_progress)

    def save() -> None:
        if checkpoint is not None and run.workers.leads:
            save_checkpoint(checkpoint, _state(run, identity, recordings))

    _loop(run, recordings, options, held_out, save, show)
    if run.step == 0:
        raise TrainingError(
            f"the budget of {options.seconds:.0f} s was used up before the first step: reading "
            f"and preparing took {run.schedule.elapsed:.0f} s; give more --minutes"
        )
    run.average.exchange()
    if run.losses and run.losses[-1].validation_loss > run.best_score + OVERFITTED_NATS:
        run.put_best()
    make_honest(run.learner, held_out, partial(_chance, options.seed))
    return estimator.cpu().eval(), run


def _new_run(
    recordings: Recordings,
    noise_model: NoiseModel,
    options: TrainingOptions,
    schedule: Schedule,
    warm_start: Mapping[str, Tensor] | None,
) -> tuple[Run, Estimator]:
    """Return a run at its first step, and the estimator around its network."""
    torch.manual_seed(options.seed)
    units = {"centre_adu": recordings.centre_adu, "scale_adu": recordings.scale_adu}
    noise = TabulatedNoise(
        noise_model,
        low_adu=recordings.low_adu,
        high_adu=recordings.high_adu,
        dark_variance_adu2=noise_model.least_variance_adu2,
        **units,
    )
    workers = join_workers()
    learner = learner_for(options, noise, recordings.inputs)
    learner.posterior.to(workers.device)
    learner.network.to(workers.device)
    learner.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if warm_start is not None and _fits(learner.network, warm_start):
        learner.network.load_state_dict(warm_start)
    run = Run(
        workers=workers,
        learner=learner,
        optimizer=torch.optim.Adam(learner.network.parameters(), lr=1e-3, fused=True),
        average=WeightAverage(learner.network),
        schedule=schedule,
    )
    estimator = Estimator(
        learner.network,
        learner.posterior,
        other_channel_units=recordings.other_channel_units,
        **units,
    )
    return run, estimator


def _fits(network: torch.nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are of a network of the same inputs: pixel maps add one."""
    own = network.state_dict()
    return own.keys() == weights.keys() and all(
        own[name].shape == value.shape for name, value in weights.items()
    )


def with_mask(
    options: TrainingOptions, recordings: Recordings, remark: Callable[[str], None]
) -> TrainingOptions:
    """Fill in structn2v's axis and span where they were not given, from the noise of recordings.

    Other algorithms take noise for independent; where it is not, `remark` is told.
    """
    structured = options.algorithm == "structn2v"
    if structured and options.mask_axis and options.mask_span:
        return options
    found = noise_correlation(recordings.footage)
    axis = options.mask_axis or found.axis()
    span = options.mask_span or max(1, found.span(axis))
    if structured:
        remark(
            f"{found.described()}: structn2v hides {span} pixels on either side along {axis}; "
            "--mask-axis and --mask-span choose otherwise"
        )
        return replace(options, mask_axis=axis, mask_span=span)
    if found.is_strong():
        remark(
            f"{found.described()}, which {options.algorithm} takes for signal: train with "
            f"--algorithm structn2v --mask-axis {axis} --mask-span {span}, or give frames as the "
            "camera wrote them if these were filtered"
        )
    return options


def _loop(
    run: Run,
    recordings: Recordings,
    options: TrainingOptions,
    held_out: Sequence[Tensor],
    save: Callable[[], None],
    show: Callable[[float], None],
) -> None:
    peak = options.learning_rate or run.learner.learning_rate
    last_saved = time.monotonic()
    progress = run.progress()
    recordings.sampler.move(run.step * options.batch, progress, wait=True)
    with ThreadPoolExecutor(1, thread_name_prefix="patches") as reader:
        pending = reader.submit(_batch, recordings, options, run, run.step)
        while progress < 1:
            frames = pending.result().to(run.workers.device, non_blocking=True)
            pending = reader.submit(_batch, recordings, options, run, run.step + 1)
            for group in run.optimizer.param_groups:
                group["lr"] = peak * learning_rate_share(progress)
            chance = _chance(options.seed, run.step, run.workers.rank)
            run.recent.append(_step(run, frames, chance))
            run.step += 1
            before, progress = progress, run.progress()
            # At fixed shares of the budget, wherever a resumed run began.
            due = int(VALIDATIONS * progress) > int(VALIDATIONS * before)
            if due:
                _validate(run, held_out, options.seed)
            if due or time.monotonic() - last_saved > CHECKPOINT_SECONDS:
                save()  # before anybody is told, who might fail
                last_saved = time.monotonic()
            if due or run.step % 20 == 0:
                show(progress)
            if due and run.workers.agreed(_overfits(run)):
                break


def _batch(recordings: Recordings, options: TrainingOptions, run: Run, step: int) -> Tensor:
    # With a budget of steps the same frames are in memory at the same step, whatever the disk
    # does; with a budget of time nobody waits for them.
    exact = options.steps is not None
    recordings.sampler.move(step * options.batch, run.schedule.progress(step), wait=exact)
    # A source of chance per step, not one that runs on: a resumed run draws the same patches.
    chance = np.random.default_rng([options.seed, step, run.workers.rank])
    patches = recordings.sampler.draw(options.batch, chance)
    first = 1 + options.context_frames
    units = [
        (recordings.centre_adu, recordings.scale_adu)
    ] * first + recordings.other_channel_units
    for place, (centre_adu, scale_adu) in enumerate(units):
        patches[:, place] -= centre_adu
        patches[:, place] /= scale_adu
    learner = run.learner
    turned = augmented(patches, chance, transpose=learner.transpose, inputs=learner.inputs)
    return torch.from_numpy(turned)


def _chance(seed: int, step: int, rank: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_009 + rank) * 100_000_007 + step)


def _step(run: Run, frames: Tensor, chance: torch.Generator) -> float:
    """Take one step; skip it if loss or gradient are not finite."""
    run.optimizer.zero_grad(set_to_none=True)
    with run.workers.precision():
        loss = run.learner.loss(frames, chance)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = run.learner.network.parameters()
    run.workers.average(p.grad for p in parameters if p.grad is not None)
    norm = torch.nn.utils.clip_grad_norm_(run.learner.network.parameters(), LARGEST_GRADIENT_NORM)
    if not torch.isfinite(norm):
        run.bad_steps += 1
        if run.bad_steps > MOST_BAD_STEPS:
            raise TrainingError(
                f"the loss was not finite in {run.bad_steps} steps, the last one step {run.step}; "
                "lower --learning-rate, or check the recordings and the noise model"
            )
        return float("nan")
    run.optimizer.step()
    run.average.update()
    return float(loss.detach())


@torch.no_grad()
def _validate(run: Run, held_out: Sequence[Tensor], seed: int) -> None:
    with run.average.applied():
        scores = [
            float(run.learner.score(frame, _chance(seed, 0)))
            for frame in held_out[:: max(1, len(held_out) // VALIDATION_FRAMES)]
        ]
    score = float(np.mean(scores))
    if all(score < row.validation_loss for row in run.losses):
        run.best = [value.clone() for value in run.average.values]
    loss = float(np.nanmean(run.recent))
    run.losses.append(LossRow(run.step, run.schedule.elapsed, loss, score))
    run.recent.clear()


def _overfits(run: Run) -> bool:
    """Return whether held-out frames have been predicted worse than before for a while."""
    if len(run.losses) <= PATIENCE:
        return False
    # In a short run validations follow each other by a step or two, which is chance alone.
    last = run.losses[-PATIENCE:]
    if last[-1].step - last[0].step < (PATIENCE - 1) * PATIENT_STEPS:
        return False
    worst = run.best_score + OVERFITTED_NATS
    return all(row.validation_loss > worst for row in last)


def _held_out_frames(
    recordings: Recordings, estimator: Estimator, stride: int, device: torch.device
) -> list[Tensor]:
    frames = []
    for sample in recordings.held_out:
        height, width = (edge // stride * stride for edge in sample.observations.shape[1:])
        crop = (planes.astype(np.float32) for planes in sample.crop(height, width))
        frames.append(
            estimator.to_network_units(*(torch.from_numpy(planes).to(device) for planes in crop))
        )
    return frames


def _unseen(progress: float) -> None:
    """Show nothing: nobody asked."""


class _Watcher:
    """Tells how far a run is; after each validation also what the model makes of a tile."""

    def __init__(
        self,
        run: Run,
        estimator: Estimator,
        recordings: Recordings,
        on_progress: Callable[[TrainingProgress], None],
    ) -> None:
        self._run, self._estimator, self._tell = run, estimator, on_progress
        self._tile = PreviewTile(recordings.held_out)
        self._preview: Preview | None = None
        self._validations = 0

    def __call__(self, progress: float) -> None:
        run = self._run
        if len(run.losses) > self._validations:
            self._validations = len(run.losses)
            with run.average.applied():
                self._preview = self._tile.denoised_by(self._estimator, run.workers.device)
        last = run.losses[-1] if run.losses else None
        recent = run.recent or ([last.loss] if last else [float("nan")])
        self._tell(
            TrainingProgress(
                step=run.step,
                progress=progress,
                seconds_left=run.schedule.seconds_left(run.step),
                loss=float(np.nanmean(recent)),
                validation_loss=last.validation_loss if last else None,
                preview=self._preview,
            )
        )


def _state(run: Run, identity: Mapping[str, Any], recordings: Recordings) -> dict[str, Any]:
    return {
        "options": dict(identity),
        "units": recordings.units,
        "step": run.step,
        "elapsed": run.schedule.elapsed,
        "network": run.learner.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.average.state(),
        "best": run.best,
        "losses": [asdict(row) for row in run.losses],
        "recent": list(run.recent),
        "bad_steps": run.bad_steps,
    }


def _require_same_run(state: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    saved = state["options"]
    different = sorted(name for name in wanted if saved.get(name) != wanted[name])
    if different:
        name = different[0]
        raise TrainingError(
            f"--resume: {name} is {wanted[name]}, the unfinished run had {saved.get(name)}; give "
            "the same options and recordings, or start without --resume"
        )


def _restore(run: Run, state: dict[str, Any]) -> None:
    run.step = state["step"]
    run.learner.network.load_state_dict(state["network"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.average.restore(**state["average"])
    run.best = state["best"]
    run.losses = [LossRow(**row) for row in state["losses"]]
    run.recent = list(state["recent"])
    run.bad_steps = state["bad_steps"]


def _identity(
    options: TrainingOptions, recordings: Recordings, channel: str | None
) -> dict[str, Any]:
    """Return what a run has to have in common with the one that it resumes."""
    chosen = {name: value for name, value in options.record().items() if name != "resume"}
    shown = (f"{stack.path} ({len(stack) - stack.absent} frames)" for stack in recordings.stacks)
    return chosen | {"recordings": ", ".join(shown), "channel": channel}


# ------------------------------------------------------------------------- the whole job


def _owning_its_output(train: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let no second training write the same bundle, nor its checkpoint, from the first step on."""

    @wraps(train)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        out = signature(train).bind(*args, **kwargs).arguments["out"]
        with owned(out) if join_workers().leads else nullcontext():
            return train(*args, **kwargs)

    return run


@_owning_its_output
def train(
    stacks: Sequence[Stack],
    out: Path,
    options: TrainingOptions,
    *,
    noise_model: GaussianMixtureNoiseModel | None = None,
    camera: CameraFingerprint | None = None,
    channel: str | None = None,
    warm_start: dict[str, Tensor] | None = None,
    overwrite: bool = False,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> TrainingResult:
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
        Name or number of the channel where stacks hold several; `options.other_channels`
        are others.
    warm_start
        Network weights to begin with, of a model of the same algorithm, preset and context.
    overwrite
        Replace what stands at `out`.
    on_progress, on_remark
        Called now and then with how far the run is, and with what a person should know.

    Raises
    ------
    TrainingDataError
        If the stacks cannot teach a network.
    TrainingError
        If the run cannot start, go on or be exported.
    OutputError
        If `out` exists or cannot be written.
    """
    started = time.monotonic()
    out = Path(out)
    workers = join_workers()
    remark = on_remark if on_remark is not None and workers.leads else logger.info
    require_apart(out, [stack.path for stack in stacks])
    require_absent(out, overwrite=overwrite, kind=Kind.BUNDLE)
    require_space(out, BUNDLE_BYTES)
    if options.seconds is None and options.steps is None:
        options = replace(options, seconds=DEFAULT_SECONDS)
    options = replace(
        options,
        other_channels=tuple(channel_name(stacks[0], named) for named in options.other_channels),
    )
    if channel is not None and stacks[0].sizes.get("channel", 1) > 1:
        channel = channel_name(stacks[0], channel)
    other_channels = [
        other_channels_of(stack, channel, options.other_channels) for stack in stacks
    ]
    stacks = [one_channel(stack, channel) for stack in stacks]
    maps = None
    if noise_model is not None and options.pixel_maps:
        maps = place_maps(noise_model, stacks, remark)
    whole, parts = maps or (None, [None] * len(stacks))
    recordings = load_recordings(
        stacks,
        context_frames=options.context_frames,
        patch=options.patch_edge,
        memory_mib=options.memory_mib,
        seed=options.seed,
        worker=workers.rank,
        seconds=options.seconds,
        beside=[Beside(*known) for known in zip(other_channels, parts, strict=True)],
    )
    if recordings.frames_read < recordings.frames:
        remark(
            f"only {recordings.frames_read} of {recordings.frames} frames are used, evenly "
            "spread: reading all of them would take too much of the budget; give more --minutes"
        )
    if noise_model is None:
        remark("no noise model was given: one is estimated from the recordings themselves")
        noise_model = bootstrap_noise_model(stacks, seed=options.seed)
    require_range(noise_model, recordings, remark)
    options = with_mask(options, recordings, remark)
    busy = load_exporter() / EXPORTER_IMPORT_SECONDS
    working = working_file(out)
    estimator, run = fit(
        recordings,
        noise_model,
        options,
        started=started,
        export_seconds=EXPORT_SECONDS * min(max(1.0, busy), BUSIEST),
        checkpoint=working,
        channel=channel,
        warm_start=warm_start,
        on_progress=on_progress,
    )
    if not run.workers.leads:
        raise SystemExit(0)  # under torchrun, process 0 writes for all
    result = seal_run(
        out,
        estimator,
        run,
        recordings,
        noise_model,
        options,
        camera=camera,
        channel=channel,
        pixel_maps=whole,
        overwrite=overwrite,
    )
    working.unlink(missing_ok=True)
    return result


def require_range(
    noise_model: NoiseModel, recordings: Recordings, remark: Callable[[str], None]
) -> None:
    """Refuse a noise model that was calibrated for quite other signals than the recordings hold.

    Raises
    ------
    TrainingDataError
        If most pixels lie outside of its range, noise taken into account.
    """
    low, high = noise_model.signal_range_adu
    spread = 4 * np.sqrt(noise_model.variance(np.array([low, high])))
    share = recordings.share_outside(low - spread[0], high + spread[1])
    found = f"{share:.0%} of the pixels lie outside of the {low:.0f} to {high:.0f} ADU"
    if share > MOST_OUTSIDE:
        raise TrainingDataError(
            f"{recordings.stacks[0].path}: {found} that the noise model was "
            "calibrated for; calibrate with light levels that cover the recordings"
        )
    if share > NOTED_OUTSIDE:
        remark(f"{found} that the noise model was calibrated for; it is extrapolated there")
