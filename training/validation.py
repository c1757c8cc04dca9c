"""What held-out frames say of a run: its score, and when to stop.

Owns the held-out frames as the network takes them. What the finished model is worth is measured
elsewhere, against what it competes with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .data.side_inputs import Sample
from .model.estimator import Estimator
from .run import OVERFITTED_NATS, LossRow, Run

VALIDATIONS = 12
"""In a run: enough for a curve, at a few percent of its time."""
VALIDATION_FRAMES = 8
"""Of the held-out ones, for the same reason."""
PATIENCE = 4
"""Validations in a row that have to be worse than the best: a third of the run."""
PATIENT_STEPS = 20
"""Between two of them, or their scores differ by the draw of a few patches alone."""


def held_out_frames(
    held_out: Sequence[Sample], estimator: Estimator, stride: int, device: torch.device
) -> list[Tensor]:
    """Return held-out samples as the network takes them, (1, planes, Y, X) in its units.

    Y and X are multiples of `stride`. The last planes are the target, where the frames themselves
    do not say what is to be predicted.
    """
    frames = []
    for sample in held_out:
        height, width = (edge // stride * stride for edge in sample.observations.shape[1:])
        crop = [
            torch.from_numpy(planes.astype(np.float32)).to(device)
            for planes in sample.crop(height, width)
        ]
        seen = estimator.to_network_units(*crop)
        if sample.target is not None:
            whole = sample.target.reshape(1, -1, *sample.target.shape[-2:])
            target = torch.from_numpy(whole[:, :, :height, :width].astype(np.float32))
            maps = () if sample.target.ndim == 3 else crop[1:]  # pictures are of alike pixels
            own = estimator.in_own_units(target.to(device), *maps)
            seen = torch.cat([seen, own], dim=1)
        frames.append(seen)
    return frames


@torch.no_grad()
def validate(run: Run, held_out: Sequence[Tensor], rng: Callable[[], torch.Generator]) -> None:
    """Score the averaged weights; keep them if they are the best so far.

    `rng` returns the same generator anew: all validations hide the same pixels.
    """
    with run.averaged():
        scores = [
            float(run.learner.score(frame, rng()))
            for frame in held_out[:: max(1, len(held_out) // VALIDATION_FRAMES)]
        ]
    score = float(np.mean(scores))
    if score < run.best_score:
        run.best = {
            name: value.detach().clone() for name, value in run.average.module.state_dict().items()
        }
    known = [loss for loss in run.recent if math.isfinite(loss)]
    loss = float(np.mean(known)) if known else score
    run.losses.append(LossRow(run.step, run.schedule.elapsed, loss, score))
    run.recent.clear()


def overfits(run: Run) -> bool:
    """Return whether held-out frames have been predicted worse than before for a while."""
    if len(run.losses) <= PATIENCE:
        return False
    last = run.losses[-PATIENCE:]
    if last[-1].step - last[0].step < (PATIENCE - 1) * PATIENT_STEPS:
        return False
    worst = run.best_score + OVERFITTED_NATS
    return all(row.validation_loss > worst for row in last)


def take_best(run: Run) -> bool:
    """Go back to the best averaged weights if the last ones are worse.

    Of a network that began trained, also if they are no better than it was then: no step may make
    it worse. Return whether it is as it began.
    """
    if not run.losses:
        return False
    first, last = run.losses[0].validation_loss, run.losses[-1].validation_loss
    no_gain = run.learner.begins_trained and not last < first
    if no_gain or last > run.best_score + OVERFITTED_NATS:
        run.average.module.load_state_dict(run.best)
    return no_gain and run.best_score == first
