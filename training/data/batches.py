"""The patches of one step after the other, drawn while the step before is computed.

Owns the order of the draw: step, seed and worker decide it, so that a resumed run goes on with
the very patches it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import torch
from torch import Tensor

from ..options import TrainingOptions
from .augmentation import augmented
from .recordings import Recordings


def batches(
    recordings: Recordings,
    options: TrainingOptions,
    *,
    worker: int,
    transpose: bool,
    first_step: int,
    progress: Callable[[int], float],
) -> Generator[Tensor]:
    """Yield patches (B, planes, P, P) in network units, those of `first_step` first, for ever.

    Parameters
    ----------
    recordings, options
        From what, and how many.
    worker
        Number of this process; each draws patches of its own.
    transpose
        Whether they may be transposed.
    progress
        Returns the share of the run that is done at a step; moves the frames in memory.
    """
    recordings.sampler.move(first_step * options.batch, progress(first_step), wait=True)

    def draw(step: int) -> Tensor:
        # With a budget of steps the same frames are in memory at the same step, whatever the disk
        # does; with a budget of time nobody waits for them.
        exact = options.steps is not None
        recordings.sampler.move(step * options.batch, progress(step), wait=exact)
        rng = np.random.default_rng([options.seed, step, worker])
        patches = recordings.sampler.draw(options.batch, rng)
        for plane, (centre_adu, scale_adu) in enumerate(recordings.plane_units):
            patches[:, plane] -= centre_adu
            patches[:, plane] /= scale_adu
        if recordings.inputs.target:
            last = patches[:, -recordings.inputs.target :]
            last -= recordings.centre_adu
            last /= recordings.scale_adu
        turned = augmented(patches, rng, transpose=transpose, inputs=recordings.inputs)
        return torch.from_numpy(turned)

    with ThreadPoolExecutor(1, thread_name_prefix="patches") as reader:
        pending = reader.submit(draw, first_step)
        for step in count(first_step + 1):
            drawn = pending.result()
            pending = reader.submit(draw, step)
            yield drawn
