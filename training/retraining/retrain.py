"""The models are retrained on what was recorded, and replaced only by better ones.

Owns one round of retraining: see what is new in a slot, and have a candidate trained where there
is something. Which slots there are is told by `slots`, what is new by `new_runs`, what becomes of
a candidate by `candidate`, when rounds happen by `overnight`; the pointer itself belongs to
`inference.library`. No torch is loaded before there is something to train.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import QuietscopeError, one_line
from ...inference.bundle import Bundle, open_bundle
from ...inference.library import Library
from ...inference.provenance import recorded_camera
from ...storage.atomic_output import OutputError
from ...storage.directory_lock import DirectoryLock, holder_of
from ...storage.open_stack import open_stack
from ...storage.stack import Stack
from ..errors import TrainingError
from ..options import AUTO, TrainingOptions
from ..registry import METHODS
from . import begun
from .decision import Decision, skip, weightiest
from .looked_at import LookedAt
from .new_runs import look
from .request import Request
from .slots import FEWEST_FRAMES, Slot, slots_of
from .window import SHORTEST_SECONDS, WindowEndedError

if TYPE_CHECKING:
    from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
    from ..progress import TrainingProgress
    from ..run import BetweenSteps

KEPT_OPTIONS = ("pixel_maps", "samples", "samples_from", "posterior_samples", "loss")
"""Of the model in use, besides those that its manifest names."""


def retrain_once(
    library: Path,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    options: TrainingOptions | None = None,
    noise_model: GaussianMixtureNoiseModel | None = None,
    channel: str | None = None,
    between_steps: BetweenSteps | None = None,
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


def go_on_with_begun(shelf: Library, request: Request) -> list[Decision]:
    """Train to the end what earlier rounds have begun, and judge it."""
    decisions = []
    for candidate, what in begun.unjudged(shelf):
        try:
            stacks = _opened(shelf, what.runs)
        except (QuietscopeError, OSError) as error:
            if any(begun.is_gone(shelf, run) for run in what.runs):
                begun.forget(candidate)  # nothing to go on with
            else:
                request.remark(f"{candidate.name} waits for the next night: {one_line(error)}")
            continue
        slot = _slot_of(shelf, stacks[0], what.channel)
        if slot.current is not None and slot.current.absolute() == candidate.absolute():
            begun.forget(candidate)  # killed when all but this was done
            continue
        try:
            decision = _candidate_round(
                shelf,
                slot,
                stacks,
                what.training_options(candidate),
                request,
                candidate,
                LookedAt.of(shelf).slot(slot.key).goes_on(shelf),
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
    return [open_stack(shelf.path / run) for run in runs]


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
    if current is not None and request.options is None:
        made_by = current.manifest.algorithm
        if made_by not in METHODS:
            return skip(shelf, slot, _made_elsewhere(made_by))
    options = _options(request.options, current, request.seconds, request.steps)
    found = look(shelf, slot, current, options, request)
    if found.reason is not None:
        return skip(shelf, slot, found.reason)
    if _learns_from_truth(options.algorithm):
        return skip(shelf, slot, _needs_truth(options.algorithm))
    begin_with = LookedAt.of(shelf).slot(slot.key).goes_on(shelf)
    return _candidate_round(
        shelf, slot, found.stacks, options, request, _new_name(shelf), begin_with
    )


def _learns_from_truth(algorithm: str) -> bool:
    from ..methods import learner_of  # torch

    return learner_of(algorithm).target == "truth"


def _candidate_round(
    shelf: Library,
    slot: Slot,
    stacks: Sequence[Stack],
    options: TrainingOptions,
    request: Request,
    candidate: Path,
    begin_with: Path | None = None,
) -> Decision:
    from .candidate import candidate_round  # torch

    return candidate_round(shelf, slot, stacks, options, request, candidate, begin_with)


def _made_elsewhere(algorithm: str) -> str:
    return (
        f"the model in use is {algorithm} and was not trained on your recordings; put one in use "
        "that was"
    )


def _needs_truth(algorithm: str) -> str:
    return (
        f"the model in use was trained by {algorithm}, from clean frames that recordings do not "
        "hold; put one in use that learns from noisy ones"
    )


def another_round(shelf: Library, decision: Decision, request: Request) -> Decision:
    """Train further on the runs of an earlier round, from its candidate."""
    try:
        stacks = _opened(shelf, decision.runs)
    except QuietscopeError:
        return replace(decision, decision="kept", reason="its runs cannot be read any more")
    slot = _slot_of(shelf, stacks[0], decision.channel)
    current = None if slot.current is None else open_bundle(slot.current)
    options = _options(request.options, current, request.seconds, request.steps)
    return _candidate_round(
        shelf, slot, stacks, options, request, _new_name(shelf), decision.candidate
    )


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
