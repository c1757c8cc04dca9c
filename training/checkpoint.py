"""What a training run needs to go on after a kill, on disk.

Owns the working file beside the bundle. It is replaced in one step, so the last good one stays
whatever happens while the next is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..storage.atomic_output import OutputError, new_file, require_space
from .errors import TrainingError


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
        If it is missing or damaged.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no checkpoint to resume from; start without --resume")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        # Written before other channels were called so.
        state["options"].setdefault("other_channels", state["options"].pop("companions", ""))
    except Exception as error:  # torch raises whatever the damage provokes
        raise TrainingError(
            f"{path}: the checkpoint cannot be read ({type(error).__name__}); delete it and start "
            "without --resume"
        ) from error
    return state
