"""How far a run is, for whoever watches it.

Owns what can be known while it goes on; how it is drawn is decided in `display`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .data.recordings import Recordings
from .model.estimator import Estimator
from .output.preview import Preview, PreviewTile
from .run import Run


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
    part: str | None = None
    """Which network this is about, and how far that one is, where several are trained in turn."""


def part_of_run(
    on_progress: Callable[[TrainingProgress], None], name: str, first: float, share: float
) -> Callable[[TrainingProgress], None]:
    """Return what tells of one network's training as a part of a run.

    Parameters
    ----------
    on_progress
        Told of the whole run.
    name
        Of the network.
    first, share
        How much of the run came before it, and how much of it is its own.
    """

    def tell(state: TrainingProgress) -> None:
        left = state.seconds_left
        if follows := max(1 - first - share, 0.0) / share:
            done = state.progress
            left += follows * left / (1 - done) if done < 1 else math.nan
        on_progress(
            replace(
                state,
                progress=first + share * state.progress,
                seconds_left=left,
                part=f"{name}, {state.progress:.0%}",
            )
        )

    return tell


class Watcher:
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
        """Tell."""
        run = self._run
        if len(run.losses) > self._validations:
            self._validations = len(run.losses)
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


def unwatched(progress: float) -> None:
    """Tell nobody: nobody asked."""
