"""Train one contestant within its share of the time.

Owns the options of its training, and that a finished or half-finished one of an earlier run is
taken up. A computer without torch compares what needs no training: it is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..inference.bundle import MANIFEST, Preset
from ..storage.stack import Stack
from ..training.options import TrainingOptions
from .contestants import Contestant


def trained_facts(
    contestant: Contestant,
    bundle: Path,
    stack: Stack,
    seconds: float,
    *,
    preset: Preset,
    seed: int,
    noise_model: GaussianMixtureNoiseModel,
    truth: Stack | None,
    on_seconds_left: Callable[[float], None],
    on_remark: Callable[[str], None],
) -> dict[str, Any]:
    """Train a contestant if its bundle is not there yet; return what there is to say of it."""
    if (bundle / MANIFEST).is_file():
        return {}
    from ..training.checkpoint import working_file
    from ..training.methods import learner_of
    from ..training.run import in_one_process
    from ..training.train import train

    supervised = learner_of(contestant.method).target == "truth"
    options = TrainingOptions(
        algorithm=contestant.method,
        preset=preset,
        context_frames=contestant.frames - 1,
        seconds=seconds,
        seed=seed,
        resume=working_file(bundle).is_file(),
    )
    result = in_one_process(
        train(
            [stack],
            bundle,
            options,
            noise_model=noise_model,
            truths=[truth] if truth is not None and supervised else (),
            on_progress=lambda state: on_seconds_left(state.seconds_left),
            on_remark=on_remark,
        )
    )
    return {"verdict": result.verdict}
