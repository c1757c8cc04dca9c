"""Denoise a stack into arrays instead of files.

Owns the arrays that frames are put into. The loop over the frames, the models and the filters are
those that write files.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel
from ...storage.stack import Stack
from ...storage.writers.open_writer import OutputForm
from ..runtime.providers import Provider
from .channel_models import ChannelModels, OfflineModels
from .denoise_by_method import MethodFrames
from .denoise_stack import open_frames
from .frame_loop import FrameSource, OnProgress, denoise_frames, in_reading_order

FloatImage = NDArray[np.float32]


class FrameArray:
    """Takes frames one by one as a `StackWriter` does, and keeps them in memory.

    Attributes
    ----------
    pixels
        (…, Y, X) float32 along the stack's axes; NaN where there is no frame.
    """

    def __init__(self, stack: Stack) -> None:
        self.pixels: FloatImage = np.full(
            (*stack.sizes.values(), *stack.frame_shape), np.nan, np.float32
        )
        self._flat = self.pixels.reshape(len(stack), *stack.frame_shape)
        self._places: dict[frozenset[tuple[str, int | str]], int] = {
            frozenset(stack.image_axes(index).items()): index for index in range(len(stack))
        }

    def write(self, pixels: NDArray[Any], axes: Mapping[str, int | str]) -> None:
        """Keep one frame."""
        self._flat[self._places[frozenset(axes.items())]] = pixels

    def holds(self, axes: Mapping[str, int | str]) -> bool:
        """Nothing is there from before."""
        return False

    def flush(self) -> None:
        """Everything is written already."""


def denoise_in_memory(
    stack: Stack,
    model: OfflineModels,
    *,
    uncertainty: bool = False,
    provider: Provider = "auto",
    threads: int | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> list[FloatImage]:
    """Denoise by a model; see `denoise_stack`.

    Returns
    -------
    list
        The estimates (…, Y, X) along the stack's axes, ADU, and with `uncertainty` their standard
        deviations.
    """
    models = ChannelModels.open(stack, model)
    models.require_match(stack, force=force)
    if uncertainty:
        models.require_uncertainty()
    with open_frames(stack, models, provider=provider, threads=threads) as source:
        wanted = [i for i in in_reading_order(stack, None) if models.denoises(stack.axes(i))]
        return _gathered(stack, wanted, source, 1 + uncertainty, on_progress)


def filter_in_memory(
    stack: Stack,
    method: str,
    *,
    frames: int = 1,
    strength: float | None = None,
    noise_model: NoiseModel | None = None,
    on_progress: OnProgress | None = None,
) -> FloatImage:
    """Denoise by a filter without training; see `denoise_by_method`."""
    with closing(MethodFrames(stack, method, frames, strength, noise_model)) as source:
        source.strengths()
        wanted = list(in_reading_order(stack, None))
        return _gathered(stack, wanted, source, 1, on_progress)[0]


def _gathered(
    stack: Stack,
    wanted: list[int],
    source: FrameSource,
    count: int,
    on_progress: OnProgress | None,
) -> list[FloatImage]:
    arrays = [FrameArray(stack) for _ in range(count)]
    denoise_frames(stack, wanted, source, arrays, OutputForm(), on_progress)
    return [array.pixels for array in arrays]
