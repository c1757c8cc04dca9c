"""The model is retrained on what was recorded, and replaced only by a better one.

Owns one round of retraining: choose recordings, train a candidate, have it compared with the model
in use, promote or keep. Which runs may teach is decided in `run_audit`, which model is better in
`gate`, when rounds happen in `overnight`; the pointer itself belongs to `inference.library`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
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
from ...storage.directory_lock import owned
from ...storage.open_stack import open_stack
from ...storage.stack import Stack
from ..checkpoint import load_checkpoint
from ..data.side_inputs import one_channel, other_channels_of
from ..options import TrainingOptions
from ..progress import TrainingProgress
from ..run import TrainingResult, in_one_process
from ..train import train
from . import run_audit
from .gate import Verdict, Yardstick, compare, judge

logger = logging.getLogger(__name__)

NEWEST_RUNS = 8
"""Of a week, with a run a day and some spare: what is trained on in one round."""
FEWEST_FRAMES = 8
"""Of a run; of fewer none is held out that stays the same."""
OLD_RUNS = 4
"""Compared too, of those that the model in use was trained on and that are not so new."""
NETWORK_OPTIONS = ("algorithm", "preset", "context_frames", "samples", "samples_from")
"""On which the shape of the weights depends."""
KEPT_OPTIONS = ("pixel_maps", "samples", "samples_from")
"""Of the model in use, besides those that its manifest names."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one round."""

    decision: DecisionName
    reason: str
    candidate: Path | None
    current: Path | None
    figures: dict[str, float | None]

    def result(self) -> dict[str, Any]:
        """Return the JSON object of the `retrain` command."""
        return {
            "decision": self.decision,
            "reason": self.reason,
            "candidate": None if self.candidate is None else str(self.candidate),
            "current": None if self.current is None else str(self.current),
            "figures": self.figures,
        }


def retrain_once(
    library: Path,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    options: TrainingOptions | None = None,
    noise_model: GaussianMixtureNoiseModel | None = None,
    channel: str | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> Decision:
    """Train a candidate on the library's newest runs and promote it if it is better.

    Parameters
    ----------
    library
        The directory of runs and models.
    seconds, steps
        The budget of the candidate's training; exactly one, or neither for the default.
    options
        Further choices; None takes those of the model in use, or the defaults.
    noise_model
        Of the camera; None takes the calibrated one of the model in use, or bootstraps one.
    channel
        Where runs hold several; None takes that of the model in use.
    on_progress, on_remark
        As in `train`.

    Raises
    ------
    QuietscopeError
        If the library is none, another program retrains it, or the model in use is damaged. What
        was in use stays in use.
    """
    shelf = Library(Path(library))
    shelf.runs()  # what is no library is refused before a lock is put there
    with owned(shelf.models_dir):
        return _one_round(
            shelf, options, seconds, steps, noise_model, channel, on_progress, on_remark
        )


def _one_round(
    shelf: Library,
    options: TrainingOptions | None,
    seconds: float | None,
    steps: int | None,
    noise_model: GaussianMixtureNoiseModel | None,
    channel: str | None,
    on_progress: Callable[[TrainingProgress], None] | None,
    on_remark: Callable[[str], None] | None,
) -> Decision:
    current_path = shelf.current()
    current = None if current_path is None else open_bundle(current_path)
    channel = channel or (current.manifest.channel if current else None)
    options = _options(options, current, seconds, steps)
    refused: list[str] = []

    def fit(whole: Stack, own: Stack) -> bool:
        why = _why_unfit(own, current)
        if why is not None:
            refused.append(f"{whole.path}: {why}")
        return why is None

    stacks = newest_stacks(shelf, channel, options.other_channels, fit)
    reason = _nothing_new([one_channel(stack, channel) for stack in stacks], current)
    if not stacks and options.other_channels and newest_stacks(shelf, channel):
        reason = f"no run can be read that holds the channels {', '.join(options.other_channels)}"
    for line in refused:
        (on_remark or logger.info)(f"{line}; it is left out")
    if reason is not None:
        reason = "; ".join([reason, *refused])
        shelf.keep(None, reason, decision="skipped")
        return Decision("skipped", reason, None, current_path, {})
    calibrated = noise_model or _calibrated(current)
    candidate = in_one_process(
        train(
            stacks,
            _new_name(shelf),
            options,
            noise_model=calibrated,
            # Named, so that no other camera's frames are given to it.
            camera=None if calibrated else _camera(stacks[0]),
            channel=channel,
            warm_start=_warm_start(current, options),
            on_progress=on_progress,
            on_remark=on_remark,
        )
    )
    yardstick = partial(run_audit.yardstick, calibrated=calibrated, seed=options.seed)
    return _decide(shelf, candidate, current, stacks, channel, yardstick, options.seed)


def newest_stacks(
    shelf: Library,
    channel: str | None,
    other_channels: Sequence[str] = (),
    fit: Callable[[Stack, Stack], bool] = lambda whole, own: True,
) -> list[Stack]:
    """Return the newest runs that belong together: camera, region, shape and type are one.

    They are those of the newest of all that are fit: `fit` is asked of a whole run and of its
    channel. The runs are whole; each has the channel and the other channels.
    """
    stacks: list[Stack] = []
    for run in shelf.runs():
        if len(stacks) == NEWEST_RUNS:
            break
        try:
            whole = open_stack(run)
            stack = one_channel(whole, channel)
            other_channels_of(whole, channel, other_channels)
            alike = not stacks or _alike(whole, stacks[0])
        except QuietscopeError:
            continue  # an unreadable or unfinished run must not stop the night
        enough = len(stack) - stack.absent >= FEWEST_FRAMES
        if alike and enough and stack.sizes.get("channel", 1) == 1 and fit(whole, stack):
            stacks.append(whole)
    return stacks


def _alike(one: Stack, other: Stack) -> bool:
    same = _setting(one) == _setting(other)
    return same and not recorded_camera(one).differences(recorded_camera(other))


def _camera(stack: Stack) -> CameraFingerprint | None:
    """Return what a run says of its camera, None if that is nothing."""
    said = recorded_camera(stack)
    return None if said == CameraFingerprint() else said


def _why_unfit(own: Stack, current: Bundle | None) -> str | None:
    """Return why a run must not teach the next model, None if it may."""
    if current is not None:
        differs = run_audit.other_camera(own, current.manifest.camera)
        if differs is not None:
            return f"another camera or setting than the model in use belongs to ({differs})"
    return run_audit.why_unfit(own)


def _setting(stack: Stack) -> tuple[object, ...]:
    return stack.frame_shape, stack.dtype, recorded_camera(stack).roi


def _nothing_new(stacks: Sequence[Stack], current: Bundle | None) -> str | None:
    if not stacks:
        return f"no run with at least {FEWEST_FRAMES} frames that can be read"
    if current is None:
        return None
    known = {
        (part.path, part.recorded_frames or part.frames)
        for part in current.manifest.training.stacks
    }
    if all((str(stack.path), len(stack) - stack.absent) in known for stack in stacks):
        return "no run was recorded since the model in use was trained"
    return None


def _options(
    options: TrainingOptions | None,
    current: Bundle | None,
    seconds: float | None,
    steps: int | None,
) -> TrainingOptions:
    if options is None:
        options = TrainingOptions()
        if current is not None:
            manifest = current.manifest
            recorded: dict[str, Any] = dict(manifest.training.options)
            options = replace(
                options,
                **{name: recorded[name] for name in KEPT_OPTIONS if name in recorded},
                algorithm=manifest.algorithm,
                preset=manifest.preset,
                context_frames=manifest.context_frames,
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
    saved = load_checkpoint(current.checkpoint_path)
    wanted = options.record()
    same = all(saved["options"].get(name) == wanted[name] for name in NETWORK_OPTIONS)
    same = same and saved["options"]["other_channels"] == wanted["other_channels"]
    weights: dict[str, Tensor] | None = saved["network"] if same else None
    return weights


def _decide(
    shelf: Library,
    result: TrainingResult,
    current: Bundle | None,
    stacks: Sequence[Stack],
    channel: str | None,
    yardstick: Yardstick,
    seed: int,
) -> Decision:
    candidate = result.bundle
    verdict = Verdict(True, "no model was in use yet", {})
    apart = None if current is None else _cannot_compare(candidate, current, stacks[0])
    if apart is not None:
        verdict = Verdict(False, apart, {})
    elif not candidate.manifest.accepted:
        verdict = Verdict(False, result.verdict, candidate.manifest.figures)
    elif current is not None:
        verdict = _compared(candidate, current, stacks, channel, yardstick, seed)
    if verdict.promote:
        shelf.promote(candidate.path, verdict.reason, verdict.figures)
        return Decision(
            "promoted", verdict.reason, candidate.path, candidate.path, dict(verdict.figures)
        )
    shelf.keep(candidate.path, verdict.reason, verdict.figures)
    in_use = None if current is None else current.path
    return Decision("kept", verdict.reason, candidate.path, in_use, dict(verdict.figures))


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
            compare(candidate, current, [*stacks, *old], yardstick, channel=channel, seed=seed)
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
        if _setting(whole) == _setting(stacks[0]):
            old.append(whole)
    return old
