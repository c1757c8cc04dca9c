"""The models are retrained on what was recorded, and replaced only by better ones.

Owns one round of retraining: see what is new in a slot, train a candidate, have it compared with
the model in use, promote or keep. Which slots there are is told by `slots`, which runs may teach
by `run_audit`, which of them do by `run_choice`, which model is better by `gate`, when rounds
happen by `overnight`; the pointer itself belongs to `inference.library`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ...calibration.fingerprint import CameraFingerprint
from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_files import load_noise_model
from ...errors import QuietscopeError
from ...inference.bundle import Bundle, open_bundle
from ...inference.errors import FrameMismatchError
from ...inference.library import Decision as DecisionName
from ...inference.library import Library
from ...inference.provenance import recorded_camera
from ...inference.runtime.camera_pixels import maps_of_frames
from ...storage.atomic_output import OutputError
from ...storage.directory_lock import DirectoryLock, holder_of
from ...storage.open_stack import open_stack
from ...storage.stack import Stack
from ..checkpoint import load_checkpoint
from ..data.side_inputs import one_channel, other_channels_of
from ..errors import TrainingError
from ..methods import learner_of
from ..options import AUTO, TrainingOptions
from ..progress import TrainingProgress
from ..run import BetweenSteps, go_on, in_one_process
from ..train import train
from . import begun, run_audit, run_choice
from .comparison import Yardstick, compare
from .drift import drift_in
from .gate import Verdict, judge
from .giving_way import WindowEndedError
from .looked_at import LookedAt, Refused, SlotMemory, remember
from .slots import FEWEST_FRAMES, Slot, setting_of, slots_of, stacks_of
from .window import SHORTEST_SECONDS

logger = logging.getLogger(__name__)

OFFERED_RUNS = 24
"""The newest of a slot, among which is chosen: a few weeks, with a run a day."""
OLD_RUNS = 4
"""Compared too, of those that the model in use has learned from and the candidate has not."""
LEAST_NEW_SHARE = 0.05
"""Of the frames that the model in use has learned from: fewer new ones teach it nothing, unless
its picture has drifted."""
FROM_SCRATCH_EVERY = 5
"""Trainings of a slot at night: a network that only ever goes on keeps its first mistakes."""
NETWORK_OPTIONS = ("algorithm", "preset", "context_frames", "samples", "samples_from")
"""On which the shape of the weights depends."""
KEPT_OPTIONS = ("pixel_maps", "samples", "samples_from", "posterior_samples", "loss")
"""Of the model in use, besides those that its manifest names."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one slot in one round."""

    decision: DecisionName
    reason: str
    candidate: Path | None
    current: Path | None
    figures: dict[str, float | None]
    channel: str | None = None
    camera: str = ""
    before: Path | None = None
    """The model that was in use when the round began."""
    runs: tuple[str, ...] = ()
    """That the candidate learned from."""

    def result(self) -> dict[str, Any]:
        """Return the JSON object of the `retrain` command."""
        return {
            "decision": self.decision,
            "reason": self.reason,
            "candidate": None if self.candidate is None else str(self.candidate),
            "current": None if self.current is None else str(self.current),
            "figures": self.figures,
        }

    def lines(self) -> list[str]:
        """Return the decision for a person."""
        about = " ".join(filter(None, [self.channel, self.camera]))
        return [
            f"{about + ': ' if about else ''}{self.decision}: {self.reason}",
            f"in use: {self.current}",
        ]

    def named_result(self) -> dict[str, Any]:
        """Return the same with the channel and the camera that it is about."""
        return {**self.result(), "channel": self.channel, "camera": self.camera}


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """How rounds are to be made; see `retrain_once`.

    Attributes
    ----------
    since_last
        Leave a slot alone of which nothing is new since its last training, whatever became of it;
        otherwise since the model in use was trained. And begin from scratch now and then.
    """

    seconds: float | None = None
    steps: int | None = None
    options: TrainingOptions | None = None
    noise_model: GaussianMixtureNoiseModel | None = None
    since_last: bool = False
    between_steps: BetweenSteps = go_on
    on_progress: Callable[[TrainingProgress], None] | None = None
    on_remark: Callable[[str], None] | None = None

    def remark(self, line: str) -> None:
        """Tell a person, or the log."""
        (self.on_remark or logger.info)(line)


def retrain_once(
    library: Path,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    options: TrainingOptions | None = None,
    noise_model: GaussianMixtureNoiseModel | None = None,
    channel: str | None = None,
    between_steps: BetweenSteps = go_on,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> Decision:
    """Train candidates on the library's newest runs and promote those that are better.

    One round for each camera, setting and channel; what is returned is the decision that matters
    most, and `retrain_slots` returns all of them.

    Parameters
    ----------
    library
        The directory of runs and models.
    seconds, steps
        The budget: time of all candidates together, or steps of each; exactly one, or neither for
        the default.
    options
        Further choices; None takes those of the model in use, or the defaults.
    noise_model
        Of the camera; None takes the calibrated one of the model in use, or bootstraps one.
    channel
        Leaves out all others.
    between_steps
        As in `train`.
    on_progress, on_remark
        As in `train`.

    Raises
    ------
    QuietscopeError
        If the library is none, another program retrains it, or the model in use is damaged. What
        was in use stays in use.
    """
    request = Request(
        seconds=seconds,
        steps=steps,
        options=options,
        noise_model=noise_model,
        between_steps=between_steps,
        on_progress=on_progress,
        on_remark=on_remark,
    )
    return weightiest(retrain_slots(Library(Path(library)), request, channel))


@contextmanager
def only_one(shelf: Library) -> Iterator[None]:
    """Be the only program that trains a library's models, for the length of a block.

    Raises
    ------
    TrainingError
        If another one does, naming it.
    """
    lock = DirectoryLock(shelf.models_dir)
    try:
        lock.acquire()
    except OutputError as error:
        holder = holder_of(shelf.models_dir)
        if holder is None:
            raise
        raise TrainingError(
            f"{shelf.path}: its models are being trained already ({holder}); wait until that has "
            "ended"
        ) from error
    try:
        yield
    finally:
        lock.release()


def retrain_slots(shelf: Library, request: Request, channel: str | None = None) -> list[Decision]:
    """Make one round for each slot of a library; see `retrain_once`."""
    shelf.runs()  # what is no library is refused before a lock is put there
    with only_one(shelf):
        begun.sweep(shelf)
        decisions = go_on_with_begun(shelf, request)
        slots, ends = slots_of(shelf, channel), time.monotonic() + (request.seconds or 0.0)
        for number, slot in enumerate(slots):
            decisions.append(one_round(shelf, slot, _share(request, ends, len(slots) - number)))
    if not decisions:
        decisions = [skip(shelf, None, f"no run with at least {FEWEST_FRAMES} frames can be read")]
    return decisions


def _share(request: Request, ends: float, slots: int) -> Request:
    """Return the request with one slot's share of the time that is left; steps are each one's."""
    if request.seconds is None or slots == 1:
        return request
    return replace(request, seconds=max((ends - time.monotonic()) / slots, SHORTEST_SECONDS))


def weightiest(decisions: Sequence[Decision]) -> Decision:
    """Return the first promotion, else the first model that was kept, else the first."""
    order: tuple[DecisionName, ...] = ("promoted", "kept")
    for name in order:
        for decision in decisions:
            if decision.decision == name:
                return decision
    return decisions[0]


def go_on_with_begun(shelf: Library, request: Request) -> list[Decision]:
    """Train to the end what earlier rounds have begun, and judge it."""
    decisions = []
    for candidate, what in begun.unjudged(shelf):
        stacks = _opened(shelf, what.runs)
        if not stacks:
            begun.forget(candidate)  # its runs have gone: nothing to go on with
            continue
        slot = _slot_of(shelf, stacks[0], what.channel)
        if slot.current is not None and slot.current.absolute() == candidate.absolute():
            begun.forget(candidate)  # killed when all but this was done
            continue
        try:
            decision = _candidate_round(
                shelf, slot, stacks, what.training_options(candidate), request, candidate
            )
        except (WindowEndedError, OutputError):  # nothing is wrong with what was begun
            raise
        except QuietscopeError as error:
            request.remark(f"{candidate.name} cannot be gone on with: {error}; begun anew")
            begun.forget(candidate)
            continue
        decisions.append(decision)
    return decisions


def _opened(shelf: Library, runs: Sequence[str]) -> list[Stack]:
    try:
        return [open_stack(shelf.path / run) for run in runs]
    except QuietscopeError:
        return []


def _slot_of(shelf: Library, whole: Stack, channel: str | None) -> Slot:
    for slot in slots_of(shelf, channel):
        if slot.channel == channel and slot.holds(whole):
            return slot
    return Slot(channel, recorded_camera(whole))


def one_round(shelf: Library, slot: Slot, request: Request) -> Decision:
    """Make one round for a slot; the library's models are owned by this program.

    Raises
    ------
    QuietscopeError
        If the model in use is damaged, or training fails.
    WindowEndedError
        If there is no more time; the next round goes on with what was begun.
    """
    current = None if slot.current is None else open_bundle(slot.current)
    options = _options(request.options, current, request.seconds, request.steps)
    if learner_of(options.algorithm).target == "truth":
        return skip(shelf, slot, _needs_truth(options.algorithm))
    found = _look(shelf, slot, current, options, request)
    if found.reason is not None:
        return skip(shelf, slot, found.reason)
    return _candidate_round(shelf, slot, found.stacks, options, request, _new_name(shelf))


def _needs_truth(algorithm: str) -> str:
    return (
        f"the model in use was trained by {algorithm}, from clean frames that recordings do not "
        "hold; put one in use that learns from noisy ones"
    )


def another_round(shelf: Library, decision: Decision, request: Request) -> Decision:
    """Train further on the runs of an earlier round, from the model that is in use by now."""
    stacks = _opened(shelf, decision.runs)
    if not stacks:
        return replace(decision, decision="kept", reason="its runs cannot be read any more")
    slot = _slot_of(shelf, stacks[0], decision.channel)
    current = None if slot.current is None else open_bundle(slot.current)
    options = _options(request.options, current, request.seconds, request.steps)
    return _candidate_round(shelf, slot, stacks, options, request, _new_name(shelf))


def skip(shelf: Library, slot: Slot | None, reason: str) -> Decision:
    """Record that a slot was left alone, and why."""
    shelf.keep(None, reason, decision="skipped")
    if slot is None:
        return Decision("skipped", reason, None, None, {})
    return Decision(
        "skipped",
        reason,
        None,
        slot.current,
        {},
        channel=slot.channel,
        camera=slot.camera_words,
        before=slot.current,
    )


# ------------------------------------------------------------------------ what there is to learn


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The runs to learn from, or why there are none."""

    stacks: list[Stack]
    reason: str | None = None


def _look(
    shelf: Library,
    slot: Slot,
    current: Bundle | None,
    options: TrainingOptions,
    request: Request,
) -> _Found:
    memory = LookedAt.of(shelf).slot(slot.key)
    known = _learned(current)
    refused: dict[str, Refused] = {}

    def fit(whole: Stack, own: Stack) -> bool:
        name, frames = str(own.path), len(own) - own.absent
        if known.get(name) == frames:
            return True  # was looked at before it was learned from
        before = memory.refused.get(name)
        same = before is not None and before.frames == frames
        why = before.why if before is not None and same else run_audit.why_unfit(own)
        if why is not None:
            refused[name] = Refused(frames=frames, why=why)
        return why is None

    offered = stacks_of(shelf, slot, options.other_channels, fit, OFFERED_RUNS)
    if refused.keys() - memory.refused.keys():
        merged = {**memory.refused, **refused}
        remember(shelf, slot.key, memory.model_copy(update={"refused": merged}))
    left_out = [f"{name}: {found.why}" for name, found in refused.items()]
    for line in left_out:
        request.remark(f"{line}; it is left out")
    pairs = [(whole, one_channel(whole, slot.channel)) for whole in offered]
    seen = {**known, **(memory.trained_on if request.since_last else {})}
    new = [pair for pair in pairs if not _is_known(pair[1], seen)]
    old = [pair for pair in pairs if _is_known(pair[1], seen)]
    reason = _why_not(shelf, slot, options, pairs, new, known)
    if reason is not None:
        return _Found([], "; ".join([reason, *left_out]))
    return _Found(run_choice.chosen(new, old))


def _why_not(
    shelf: Library,
    slot: Slot,
    options: TrainingOptions,
    pairs: Sequence[tuple[Stack, Stack]],
    new: Sequence[tuple[Stack, Stack]],
    known: dict[str, int],
) -> str | None:
    if not pairs:
        if options.other_channels and stacks_of(shelf, slot, most=1):
            names = ", ".join(options.other_channels)
            return f"no run can be read that holds the channels {names}"
        return f"no run with at least {FEWEST_FRAMES} frames that can be read"
    if not new:
        return "no run was recorded since the last training"
    frames = sum(len(own) - own.absent for _, own in new)
    learned = sum(known.values())
    if frames < LEAST_NEW_SHARE * learned:
        if (drift := drift_in([whole for whole, _ in new], slot.channel)) is None:
            return (
                f"only {frames} new frames, under {LEAST_NEW_SHARE:.0%} of the {learned} that the "
                "model in use has learned from"
            )
        logger.info("%s", drift)
    return None


def _learned(current: Bundle | None) -> dict[str, int]:
    """Return the runs that a model has learned from, and how many frames each had."""
    if current is None:
        return {}
    return {
        part.path: part.recorded_frames or part.frames for part in current.manifest.training.stacks
    }


def _is_known(own: Stack, known: dict[str, int]) -> bool:
    return known.get(str(own.path)) == len(own) - own.absent


# ------------------------------------------------------------------------------- the candidate


def _candidate_round(
    shelf: Library,
    slot: Slot,
    stacks: Sequence[Stack],
    options: TrainingOptions,
    request: Request,
    candidate: Path,
) -> Decision:
    """Train a candidate, or go on with it, and decide."""
    current = None if slot.current is None else open_bundle(slot.current)
    calibrated = request.noise_model or _calibrated(current)
    if not begun.is_trained(candidate):
        begun.note(shelf, candidate, [stack.path for stack in stacks], slot.channel, options)
        memory = LookedAt.of(shelf).slot(slot.key)
        scratch = request.since_last and (memory.trainings + 1) % FROM_SCRATCH_EVERY == 0
        in_one_process(
            train(
                stacks,
                candidate,
                options,
                noise_model=calibrated,
                # Named, so that no other camera's frames are given to it.
                camera=None if calibrated else _camera(stacks[0]),
                channel=slot.channel,
                warm_start=None if scratch else _warm_start(current, options),
                between_steps=request.between_steps,
                on_progress=request.on_progress,
                on_remark=request.on_remark,
            )
        )
        _remember_training(shelf, slot, memory, stacks)
    yardstick = partial(run_audit.yardstick, calibrated=calibrated, seed=options.seed)
    bundle = open_bundle(candidate)
    if bundle.manifest.noise_is_removed is False and bundle.manifest.noise:
        request.remark(bundle.manifest.noise)
    decision = _decide(shelf, slot, bundle, current, stacks, yardstick, options.seed)
    begun.forget(candidate)
    return replace(
        decision,
        channel=slot.channel,
        camera=slot.camera_words,
        before=slot.current,
        runs=tuple(shelf.name_of(Path(stack.path)) for stack in stacks),
    )


def _remember_training(
    shelf: Library, slot: Slot, memory: SlotMemory, stacks: Sequence[Stack]
) -> None:
    own = [one_channel(stack, slot.channel) for stack in stacks]
    learned = {str(stack.path): len(stack) - stack.absent for stack in own}
    update = {
        "trainings": memory.trainings + 1,
        "trained_on": {**memory.trained_on, **learned},
    }
    remember(shelf, slot.key, memory.model_copy(update=update))


def _camera(stack: Stack) -> CameraFingerprint | None:
    """Return what a run says of its camera, None if that is nothing."""
    said = recorded_camera(stack)
    return None if said == CameraFingerprint() else said


def _options(
    options: TrainingOptions | None,
    current: Bundle | None,
    seconds: float | None,
    steps: int | None,
) -> TrainingOptions:
    if options is None:
        options = TrainingOptions(algorithm=AUTO)
        if current is not None:
            manifest = current.manifest
            recorded: dict[str, Any] = dict(manifest.training.options)
            options = replace(
                options,
                **{name: recorded[name] for name in KEPT_OPTIONS if name in recorded},
                algorithm=manifest.algorithm,
                preset=manifest.preset,
                context_frames=manifest.context_frames,
                planes=manifest.planes,
                other_channels=manifest.other_channels,
            )
    if seconds is not None or steps is not None:
        options = replace(options, seconds=seconds, steps=steps)
    return options


def _new_name(shelf: Library) -> Path:
    stem = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    names = (stem, *(f"{stem}-{number}" for number in range(2, 100)))
    return next(path for name in names if not (path := shelf.models_dir / name).exists())


def _calibrated(current: Bundle | None) -> GaussianMixtureNoiseModel | None:
    if current is None or current.manifest.noise_model != "calibrated":
        return None
    return load_noise_model(current.noise_model_path)


def _warm_start(current: Bundle | None, options: TrainingOptions) -> dict[str, Tensor] | None:
    """Return the weights of the model in use, if the candidate's network is the same."""
    if current is None or current.checkpoint_path is None:
        return None
    try:
        saved = load_checkpoint(current.checkpoint_path)
    except TrainingError as error:  # a head start is not worth a night
        logger.warning("%s; training begins from scratch", error)
        return None
    wanted = options.record()
    same = all(saved["options"].get(name) == wanted[name] for name in NETWORK_OPTIONS)
    same = same and saved["options"]["other_channels"] == wanted["other_channels"]
    weights: dict[str, Tensor] | None = saved["network"] if same else None
    return weights


def _decide(
    shelf: Library,
    slot: Slot,
    candidate: Bundle,
    current: Bundle | None,
    stacks: Sequence[Stack],
    yardstick: Yardstick,
    seed: int,
) -> Decision:
    verdict = Verdict(True, "no model was in use yet", {})
    apart = None if current is None else _cannot_compare(candidate, current, stacks[0])
    if apart is not None:
        verdict = Verdict(False, apart, {})
    elif not candidate.manifest.accepted:
        verdict = Verdict(False, _no_better(candidate), candidate.manifest.figures)
    elif current is not None:
        verdict = _compared(candidate, current, stacks, slot.channel, yardstick, seed)
    figures = dict(verdict.figures)
    if verdict.promote:
        shelf.promote(candidate.path, verdict.reason, verdict.figures)
        return Decision("promoted", verdict.reason, candidate.path, candidate.path, figures)
    shelf.keep(candidate.path, verdict.reason, verdict.figures)
    in_use = None if current is None else current.path
    return Decision("kept", verdict.reason, candidate.path, in_use, figures)


def _no_better(candidate: Bundle) -> str:
    figures = candidate.manifest.figures
    errors = [figures.get(f"held_out_mse_{of}adu2") for of in ("", "input_", "blur_")]
    words = ", ".join("?" if error is None else f"{error:.3g}" for error in errors)
    return (
        "the candidate is no better than the raw frames or a blur of them: squared errors of "
        f"candidate, raw frames and blur are {words} ADU²"
    )


def _compared(
    candidate: Bundle,
    current: Bundle,
    stacks: Sequence[Stack],
    channel: str | None,
    yardstick: Yardstick,
    seed: int,
) -> Verdict:
    old = _learned_from(current, stacks, channel, candidate.manifest.other_channels)
    try:
        return judge(
            compare(candidate, current, [*stacks, *old], yardstick, channel=channel, seed=seed),
            candidate,
        )
    except QuietscopeError as error:
        return Verdict(False, f"cannot be compared with the model in use: {error}", {})


def _cannot_compare(candidate: Bundle, current: Bundle, stack: Stack) -> str | None:
    ours, theirs = candidate.manifest.pixel_type, current.manifest.pixel_type
    if ours != theirs:
        return (
            f"the newest runs are {ours}, the model in use takes {theirs}: they cannot be "
            "compared; put the candidate in use by hand if the camera was changed on purpose"
        )
    try:
        maps_of_frames(current, stack.frame_shape, recorded_camera(stack).roi)
    except FrameMismatchError as error:
        # A night's training is not thrown away because the camera's region was changed.
        return f"cannot be compared with the model in use: {error}"
    return None


def _learned_from(
    current: Bundle, stacks: Sequence[Stack], channel: str | None, other_channels: Sequence[str]
) -> list[Stack]:
    """Return runs that the model in use was trained on and that are no longer among the newest.

    Yesterday's specimen must not be forgotten.
    """
    newest = {str(one_channel(stack, channel).path) for stack in stacks}
    old: list[Stack] = []
    for part in current.manifest.training.stacks:
        if part.path in newest or len(old) == OLD_RUNS:
            continue
        try:
            whole = open_stack(part.path)
            other_channels_of(whole, channel, other_channels)
        except QuietscopeError:
            continue  # archived since
        if setting_of(whole) == setting_of(stacks[0]):
            old.append(whole)
    return old
