"""The strength of a filter for a whole recording, settled once before its frames are filtered.

Owns the frame that it is told from. A recording must not flicker, so it is one for all frames; how
it is told from a frame is the rule of `strength`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...storage.stack import Stack
from .denoiser import ClassicalDenoiser


def settle_strength(denoiser: ClassicalDenoiser, stack: Stack, indices: Iterable[int]) -> None:
    """Choose the strength of a filter that has none yet.

    Parameters
    ----------
    denoiser
        Of the stack's frame shape.
    stack
        What will be filtered.
    indices
        Its frames, in order. The first of them that has all frames which are averaged with it
        decides: the mean of fewer is noisier, and would ask for a stronger filter than most frames
        need. Where there is none, the first one that is there.
    """
    if denoiser.strength is not None:
        return
    before = denoiser.context_frames
    first = None
    for index in indices:
        if not stack.is_present(index):
            continue
        first = index if first is None else first
        if None not in stack.preceding(index, before):
            first = index
            break
    if first is not None:
        unused = np.empty((2, *stack.frame_shape), np.float32)
        denoiser.denoise(stack.observations(first, before), unused)
