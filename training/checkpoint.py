"""What a training run needs to go on after a kill, on disk.

Owns the working file beside the bundle, and what of a run stands in it. It is replaced in one
step, so the last good one stays whatever happens while the next is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..calibration.noise_model import NoiseModel
from ..storage.atomic_output import OutputError, new_file, require_space
from .data.recordings import Recordings
from .errors import TrainingError
from .options import AUTO, TrainingOptions
from .registry import TAUGHT
from .run import LossRow, Run

PROBED_ADU = (0.0, 300.0, 1_000.0, 10_000.0)
"""Signals at which two noise models are compared."""
FORMAT = 3
"""Of the state; a run that another version left is not resumed."""


def working_file(bundle: Path) -> Path:
    """Return where a run that will write `bundle` keeps its checkpoint."""
    return bundle.with_name(f"{bundle.name}.unfinished.pt")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`.

    Raises
    ------
    OutputError
        If the disk is full or not writable; the previous checkpoint is intact.
    """
    require_space(path, 0)
    try:
        with new_file(path) as staging:
            torch.save(state, staging)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{path}: the checkpoint cannot be written ({error}); free some space and continue "
            "with --resume (the last good checkpoint is intact)"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it can run code.

    Raises
    ------
    TrainingError
        If it is missing, damaged, or of another version.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no checkpoint to resume from; start without --resume")
    state = _read(path, "the checkpoint cannot be read ({}); delete it and start without --resume")
    _rename(state.get("options"))
    return state


def load_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what a bundle keeps of its training: the options, and the network's weights.

    Raises
    ------
    TrainingError
        If it is damaged, or holds no network.
    """
    words = "the weights cannot be read ({}); name another bundle, or train without it"
    state = _read(path, words)
    options, weights = state.get("options"), state.get("network")
    if (
        not isinstance(options, dict)
        or not isinstance(weights, dict)
        or not all(isinstance(value, Tensor) for value in weights.values())
    ):
        raise TrainingError(f"{path}: {words.format('it holds no network')}")
    _rename(options)
    return options, weights


def _read(path: Path, words: str) -> dict[str, Any]:
    """Return the state in a file; `words` refuse it, with a place for what is wrong."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage provokes
        raise TrainingError(f"{path}: {words.format(type(error).__name__)}") from error
    if not isinstance(state, dict):
        raise TrainingError(f"{path}: {words.format('it is of another kind')}")
    return state


def _rename(options: object) -> None:
    """Let options have the names of today: older versions called other channels companions."""
    if isinstance(options, dict) and "companions" in options:
        options["other_channels"] = options.pop("companions")


def begun_algorithm(path: Path) -> str:
    """Return the method that an unfinished run chose: other frames may have been read since.

    Raises
    ------
    TrainingError
        If the checkpoint is missing or damaged.
    """
    found = str(load_checkpoint(path).get("options", {}).get("algorithm", AUTO))
    return TAUGHT.get(found, found)


def identity_of(
    options: TrainingOptions,
    recordings: Recordings,
    noise_model: NoiseModel,
    channel: str | None,
) -> dict[str, Any]:
    """Return what a run has to have in common with the one that it resumes."""
    chosen = {name: value for name, value in options.record().items() if name != "resume"}
    shown = (f"{stack.path} ({len(stack) - stack.absent} frames)" for stack in recordings.stacks)
    return chosen | {
        "recordings": ", ".join(shown),
        "channel": channel,
        "truths": ", ".join(str(truth.path) for truth in recordings.truths),
        "pairs": recordings.pairs,
        "noise_model": _words(noise_model),
    }


def _words(noise_model: NoiseModel) -> str:
    """Return what tells one camera's noise from another's; the last digits may differ."""
    variances = noise_model.variance(np.array(PROBED_ADU))
    return f"of {', '.join(f'{variance:.3g}' for variance in variances)} ADU²"


def require_same_run(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to resume a run that had other options or recordings.

    Raises
    ------
    TrainingError
        With the first difference.
    """
    if state.get("format") != FORMAT:
        raise _of_another_version()
    saved = state["options"]
    different = sorted(name for name in wanted if saved.get(name) != wanted[name])
    if different:
        name = different[0]
        raise TrainingError(
            f"--resume: {name} is {wanted[name]}, the unfinished run had {saved.get(name)}; give "
            "the same options and recordings, or start without --resume"
        )


def require_same_whole(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to resume a part of a run whose whole had other options or recordings.

    Raises
    ------
    TrainingError
        With the first difference, as it was given for the whole.
    """
    if "whole" in state:  # earlier versions wrote none
        require_same_run({**state, "options": state["whole"]}, wanted)


def state_of(
    run: Run,
    identity: Mapping[str, Any],
    recordings: Recordings,
    whole: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what `restore` needs; `whole` is the identity of the run that this is a part of."""
    return {
        "format": FORMAT,
        "options": dict(identity),
        **({} if whole is None else {"whole": dict(whole)}),
        "units": recordings.units,
        "step": run.step,
        "elapsed": run.schedule.elapsed,
        "begun": run.schedule.begun,
        "networks": [player.network.state_dict() for player in run.players],
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "average": run.average.state_dict(),
        "best": run.best,
        "losses": [asdict(row) for row in run.losses],
        "recent": list(run.recent),
        "bad_steps": run.bad_steps,
        "teacher": run.teacher,
    }


def restore(run: Run, state: Mapping[str, Any]) -> None:
    """Let a new run stand where the saved one stood.

    Raises
    ------
    TrainingError
        If its networks are others: methods change between versions.
    """
    run.step = state["step"]
    try:
        for player, weights in zip(run.players, state["networks"], strict=True):
            player.network.load_state_dict(weights)
        for optimizer, moments in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
        run.average.load_state_dict(state["average"])
    except (RuntimeError, ValueError) as error:
        raise _of_another_version() from error
    run.best = state["best"]
    run.losses = [LossRow(**row) for row in state["losses"]]
    run.recent = list(state["recent"])
    run.bad_steps = state["bad_steps"]


def _of_another_version() -> TrainingError:
    return TrainingError(
        "--resume: the unfinished run was left by another version of quietscope; start without "
        "--resume"
    )
