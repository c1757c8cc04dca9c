"""A trained model in Python: opened once, used on arrays.

Owns the opening and the lazy result for dask; denoising is `inference.offline`'s.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..calibration.noise_files import load_noise_model
from ..inference.bundle import Bundle, Manifest, open_bundle
from ..inference.errors import BundleError
from ..inference.evaluation.evaluate import Evaluation, evaluate
from ..inference.offline.channel_models import ChannelModels
from ..inference.offline.denoise_in_memory import denoise_in_memory
from ..inference.offline.denoise_stack import open_frames
from ..inference.offline.frame_loop import OnProgress
from ..inference.runtime.providers import Provider
from ..storage.stack import Stack
from .array_stack import ArrayLike, Axes, Recording, as_stack, is_dask, lazy_frames
from .python_words import python_words

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Model:
    """A model bundle that was read and checked.

    Attributes
    ----------
    bundle
        On disk.
    """

    bundle: Bundle

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.bundle.path

    @property
    def manifest(self) -> Manifest:
        """What it is and what it was trained on."""
        return self.bundle.manifest

    @property
    def noise_model(self) -> GaussianMixtureNoiseModel:
        """The noise of its camera.

        Raises
        ------
        BundleError
            If it is not known, because the model was imported without one.
        """
        if self.bundle.noise_model_path is None:
            raise BundleError(
                f"{self.path}: its camera's noise is not known; import it again with --noise-model"
            )
        return load_noise_model(self.bundle.noise_model_path)

    @overload
    def denoise(
        self,
        array: NDArray[Any],
        *,
        axes: Axes | None = ...,
        uncertainty: Literal[False] = ...,
        provider: Provider = ...,
        threads: int | None = ...,
        force: bool = ...,
        on_progress: OnProgress | None = ...,
    ) -> FloatImage: ...
    @overload
    def denoise(
        self,
        array: NDArray[Any],
        *,
        axes: Axes | None = ...,
        uncertainty: Literal[True],
        provider: Provider = ...,
        threads: int | None = ...,
        force: bool = ...,
        on_progress: OnProgress | None = ...,
    ) -> tuple[FloatImage, FloatImage]: ...
    @overload
    def denoise(
        self,
        array: Recording,
        *,
        axes: Axes | None = ...,
        uncertainty: bool = ...,
        provider: Provider = ...,
        threads: int | None = ...,
        force: bool = ...,
        on_progress: OnProgress | None = ...,
    ) -> Any: ...
    @python_words()
    def denoise(
        self,
        array: Recording,
        *,
        axes: Axes | None = None,
        uncertainty: bool = False,
        provider: Provider = "auto",
        threads: int | None = None,
        force: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Denoise every frame of a recording.

        Parameters
        ----------
        array
            See `as_stack`; not changed. A model that looks at preceding frames finds them along
            time.
        axes
            What its dimensions are, where there are more than three.
        uncertainty
            Whether the standard deviation of the estimate is wanted as well.
        provider, threads
            Where it runs; see `OnnxDenoiser`.
        force
            Denoise although the pixel type or the camera differs.
        on_progress
            Called with (frames done, frames in total); not for dask.

        Returns
        -------
        The estimate in ADU, float32, of the array's shape; with `uncertainty` a pair of it and its
        standard deviation. numpy for arrays of numpy and zarr, stacks and paths; of dask a lazy
        array whose frames are denoised when they are computed; of xarray one with its names,
        coordinates and attributes.

        Raises
        ------
        ArrayError, ArrayTypeError
            If the array is no recording.
        FrameMismatchError, CameraMismatchError
            If the model takes other pixels.
        BundleError
            If it states no uncertainty.
        """
        given = as_stack(array, axes)
        if uncertainty:
            self.bundle.require_uncertainty()
        if is_dask(array):
            found = _lazily(given.stack, self.bundle, uncertainty, provider, threads, force)
        else:
            found = denoise_in_memory(
                given.stack,
                self.bundle,
                uncertainty=uncertainty,
                provider=provider,
                threads=threads,
                force=force,
                on_progress=on_progress,
            )
        shaped = tuple(given.shaped(pixels) for pixels in found)
        return shaped if uncertainty else shaped[0]

    @python_words()
    def evaluate(
        self,
        array: Recording,
        *,
        truth: Recording | None = None,
        static: bool = False,
        axes: Axes | None = None,
        provider: Provider = "auto",
        force: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        """Score the model; see `inference.evaluation.evaluate`."""
        return evaluate(
            as_stack(array, axes).stack,
            self.bundle,
            truth=None if truth is None else truth_stack(truth, axes),
            static=static,
            provider=provider,
            force=force,
            on_progress=on_progress,
        )


def load(path: Path | str) -> Model:
    """Open the model bundle at `path`.

    Raises
    ------
    BundleError
        If it is missing, incomplete or altered.
    """
    return Model(open_bundle(path))


def truth_stack(truth: Recording, axes: Axes | None) -> Stack:
    """Return a truth: one frame, or as many as the recording along the same axes."""
    single = isinstance(truth, ArrayLike) and len(truth.shape) == 2
    itself = single or isinstance(truth, Stack)  # says what its dimensions are
    return as_stack(truth, None if itself else axes).stack


def _lazily(
    stack: Stack,
    bundle: Bundle,
    uncertainty: bool,
    provider: Provider,
    threads: int | None,
    force: bool,
) -> list[Any]:
    frames = _FramesOnDemand(stack, bundle, provider, threads, force)
    parts = [lambda index: frames.of(index)[0], lambda index: frames.of(index)[1]]
    return [lazy_frames(stack, part) for part in parts[: 1 + uncertainty]]


class _FramesOnDemand:
    """Denoises single frames when they are asked for, from any thread, one at a time."""

    def __init__(
        self,
        stack: Stack,
        bundle: Bundle,
        provider: Provider,
        threads: int | None,
        force: bool,
    ) -> None:
        models = ChannelModels.open(stack, bundle)
        models.require_match(stack, force=force)  # now, not when the first frame is computed
        self._stack = stack
        self._lock = threading.Lock()
        self._open_things = ExitStack()
        self._source: Any = None
        self._opening = open_frames(stack, models, provider=provider, threads=threads)
        self._last: tuple[int, NDArray[np.float32]] | None = None

    def of(self, index: int) -> NDArray[np.float32]:
        """Return estimate and standard deviation of a frame, (2, Y, X)."""
        with self._lock:
            if self._last is not None and self._last[0] == index:
                return self._last[1]
            if self._source is None:
                self._source = self._open_things.enter_context(self._opening)
            pipeline = self._source.pipeline(index)
            done = [*pipeline.put(index, self._source.observations(index)), *pipeline.drain()]
            self._last = index, np.array(done[-1][1], np.float32)
            return self._last[1]
