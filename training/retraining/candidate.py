"""A candidate: trained on the runs that were chosen, compared with the model in use, decided.

Owns its choices, what it begins with, and the order of training, comparison and promotion. Which
runs it learns from is told by `new_runs`, which model is better by `gate`; the pointer itself
belongs to `inference.library`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from ...calibration.fingerprint import CameraFingerprint
from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_correlation import correlation_in
from ...calibration.noise_files import load_noise_model
from ...errors import QuietscopeError, one_line
from ...inference.bundle import Bundle, open_bundle
from ...inference.errors import FrameMismatchError
from ...inference.library import Library
from ...inference.provenance import recorded_camera
from ...inference.runtime.camera_pixels import maps_of_frames
from ...storage.open_stack import open_stack
from ...storage.stack import Stack
from ..checkpoint import load_weights
from ..data.side_inputs import one_channel, other_channels_of
from ..errors import TrainingError
from ..method_choice import FOR_INDEPENDENT, with_method
from ..options import AUTO, TrainingOptions
from ..run import go_on, in_one_process
from ..train import train
from . import begun, run_audit
from .comparison import Yardstick, compare
from .decision import Decision
from .gate import Verdict, judge
from .looked_at import LookedAt, SlotMemory, remember, remember_promising
from .new_runs import learned
from .request import Request
from .run_names import run_name
from .slots import Slot, setting_of

logger = logging.getLogger(__name__)

OLD_RUNS = 4
"""Compared too, of those that the model in use has learned from and the candidate has not."""
FROM_SCRATCH_EVERY = 5
"""Trainings of a slot at night: a network that only ever goes on keeps its first mistakes."""
NETWORK_OPTIONS = ("algorithm", "preset", "context_frames", "samples", "samples_from")
"""On which the shape of the weights depends."""


def candidate_round(
    shelf: Library,
    slot: Slot,
    stacks: Sequence[Stack],
    options: TrainingOptions,
    request: Request,
    candidate: Path,
    begin_with: Path | None = None,
) -> Decision:
    """Train a candidate for a slot, or go on with it, and decide.

    Parameters
    ----------
    shelf, slot
        The library, and one camera, setting and channel in it.
    stacks
        The runs to learn from, whole.
    options
        The candidate's.
    request
        Whom to tell, and when to give way.
    candidate
        The bundle's place; what stands there, or was begun, is gone on with.
    begin_with
        An earlier candidate that this one begins with; None for the model in use, or from scratch.

    Raises
    ------
    QuietscopeError
        If training fails or the model in use is damaged.
    WindowEndedError
        If there is no more time; a later round goes on with what was begun.
    """
    current = None if slot.current is None else open_bundle(slot.current)
    calibrated = request.noise_model or _calibrated(current)
    if not begun.is_trained(candidate):
        if request.options is None and not options.resume:
            options = _for_noise(options, current, stacks, slot.channel, request)
        begun.note(shelf, candidate, [stack.path for stack in stacks], slot.channel, options)
        memory = LookedAt.of(shelf).slot(slot.key)
        from_scratch = request.since_last and (memory.trainings + 1) % FROM_SCRATCH_EVERY == 0
        begins_with = _opened(begin_with) or (None if from_scratch else current)
        in_one_process(
            train(
                stacks,
                candidate,
                options,
                noise_model=calibrated,
                # Named, so that no other camera's frames are given to it.
                camera=None if calibrated else _camera(stacks[0]),
                channel=slot.channel,
                warm_start=_warm_start(begins_with, options),
                # The method of the model in use was nobody's demand, and no reason to fail.
                demanded=request.options is not None,
                between_steps=request.between_steps or go_on,
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
    remember_promising(shelf, slot.key, decision)
    begun.forget(candidate)
    return replace(
        decision,
        channel=slot.channel,
        camera=slot.camera_words,
        before=slot.current,
        runs=tuple(shelf.name_of(Path(stack.path)) for stack in stacks),
    )


def _opened(begin_with: Path | None) -> Bundle | None:
    if begin_with is None:
        return None
    try:
        return open_bundle(begin_with)
    except QuietscopeError as error:  # a head start is not worth a night
        logger.warning("%s; it is not gone on with", one_line(error))
        return None


def _remember_training(
    shelf: Library, slot: Slot, memory: SlotMemory, stacks: Sequence[Stack]
) -> None:
    own = [one_channel(stack, slot.channel) for stack in stacks]
    trained_on = {run_name(shelf, stack.path): len(stack) - stack.absent for stack in own}
    update = {
        "trainings": memory.trainings + 1,
        "trained_on": {**memory.trained_on, **trained_on},
    }
    remember(shelf, slot.key, memory.model_copy(update=update))


def _for_noise(
    options: TrainingOptions,
    current: Bundle | None,
    stacks: Sequence[Stack],
    channel: str | None,
    request: Request,
) -> TrainingOptions:
    """Return options with the method for noise that pixels share, where the new runs show such.

    A library may have come to its model before anybody looked at that. Where they show none, the
    method of the model in use stays.
    """
    if current is None or options.algorithm not in FOR_INDEPENDENT:
        return options
    found = correlation_in([one_channel(stack, channel) for stack in stacks])
    if not found.is_correlated:
        return options
    return with_method(replace(options, algorithm=AUTO), found, request.remark)


def _camera(stack: Stack) -> CameraFingerprint | None:
    """Return what a run says of its camera, None if that is nothing."""
    said = recorded_camera(stack)
    return None if said == CameraFingerprint() else said


def _calibrated(current: Bundle | None) -> GaussianMixtureNoiseModel | None:
    if current is None or current.calibration_path is None:
        return None
    return load_noise_model(current.calibration_path)


def _warm_start(earlier: Bundle | None, options: TrainingOptions) -> dict[str, Tensor] | None:
    """Return the weights of an earlier model, if the candidate's network is the same."""
    if earlier is None or earlier.checkpoint_path is None:
        return None
    try:
        saved, weights = load_weights(earlier.checkpoint_path)
    except TrainingError as error:  # a head start is not worth a night
        logger.warning("%s; training begins from scratch", error)
        return None
    wanted = options.record()
    alike = (*NETWORK_OPTIONS, "other_channels")
    return weights if all(saved.get(name) == wanted[name] for name in alike) else None


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
        verdict = _compared(shelf, candidate, current, stacks, slot.channel, yardstick, seed)
    figures = dict(verdict.figures)
    if verdict.promote:
        shelf.promote(candidate.path, verdict.reason, verdict.figures)
        return Decision("promoted", verdict.reason, candidate.path, candidate.path, figures)
    shelf.keep(candidate.path, verdict.reason, verdict.figures)
    in_use = None if current is None else current.path
    return Decision(
        "kept", verdict.reason, candidate.path, in_use, figures, promising=verdict.promising
    )


def _no_better(candidate: Bundle) -> str:
    figures = candidate.manifest.figures
    errors = [figures.get(f"held_out_mse_{of}adu2") for of in ("", "input_", "blur_")]
    words = ", ".join("?" if error is None else f"{error:.3g}" for error in errors)
    return (
        "the candidate is no better than the raw frames or a blur of them: squared errors of "
        f"candidate, raw frames and blur are {words} ADU²"
    )


def _compared(
    shelf: Library,
    candidate: Bundle,
    current: Bundle,
    stacks: Sequence[Stack],
    channel: str | None,
    yardstick: Yardstick,
    seed: int,
) -> Verdict:
    known = learned(shelf, current)
    old = _learned_from(shelf, known, stacks, channel, candidate.manifest.other_channels)
    try:
        scores = compare(
            candidate,
            current,
            [*stacks, *old],
            yardstick,
            channel=channel,
            is_old=lambda own: run_name(shelf, own.path) in known,
            seed=seed,
        )
        return judge(scores, candidate)
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
    shelf: Library,
    known: Iterable[str],
    stacks: Sequence[Stack],
    channel: str | None,
    other_channels: Sequence[str],
) -> list[Stack]:
    """Return runs that the model in use was trained on and that are no longer among the newest.

    Yesterday's specimen must not be forgotten.
    """
    newest = {run_name(shelf, one_channel(stack, channel).path) for stack in stacks}
    old: list[Stack] = []
    for name in known:
        if name in newest or len(old) == OLD_RUNS:
            continue
        try:
            whole = open_stack(shelf.path / name)
            other_channels_of(whole, channel, other_channels)
        except QuietscopeError:
            continue  # archived since
        if setting_of(whole) == setting_of(stacks[0]):
            old.append(whole)
    return old
