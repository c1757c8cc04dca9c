"""Train one contestant within its share of the time.

Owns the options of its training, and that a finished or half-finished one of an earlier run is
taken up. A computer without torch compares what needs no training: it is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..inference.bundle import MANIFEST, Preset
from ..storage.stack import Stack
from ..training.options import TrainingOptions
from .contestants import Contestant
from .errors import ComparisonError


def trained_facts(
    contestant: Contestant,
    bundle: Path,
    stack: Stack,
    scored: Sequence[int],
    seconds: float,
    *,
    preset: Preset,
    seed: int,
    noise_model: GaussianMixtureNoiseModel,
    truth: Stack | None,
    on_seconds_left: Callable[[float], None],
    on_remark: Callable[[str], None],
) -> dict[str, Any]:
    """Train a contestant if its bundle is not there yet; return what there is to say of it.

    Raises
    ------
    ComparisonError
        If it learns from a truth that it would be scored against.
    """
    if (bundle / MANIFEST).is_file():
        return {}
    from ..training.checkpoint import working_file
    from ..training.methods import learner_of
    from ..training.run import in_one_process
    from ..training.train import train

    supervised = learner_of(contestant.method).target == "truth"
    if supervised and truth is not None:
        _require_unseen(stack, scored, truth)
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


def _require_unseen(stack: Stack, scored: Sequence[int], truth: Stack) -> None:
    """Refuse to teach the truth of the scored frames: whoever knows it by heart is no denoiser."""
    from ..training.data.targets import Truth

    known = Truth(truth)

    def places(indices: Sequence[int]) -> list[int]:
        found = (known.place(stack.axes(int(index))) for index in indices)
        return [place for place in dict.fromkeys(found) if place is not None]

    learned, asked = places(list(stack.present_indices)), places(scored)
    at_rest = any(
        np.array_equal(truth.frame(one), truth.frame(other))
        for one in (learned[:1] + learned[-1:])
        for other in asked
    )
    if at_rest or set(learned) & set(asked):
        raise ComparisonError(
            "it learns from the truth, and this one is also that of the frames which are scored; "
            "give ten frames or more of different scenes, each with a truth of its own, or train "
            "it elsewhere and name it with --models"
        )
