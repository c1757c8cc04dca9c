"""Denoise a whole stack, with constant memory, and go on where a run stopped.

Owns the opening of the models and of what is written, and the check that they fit. Which model
denoises which channel is settled in `channel_models`, what is written about it in `provenance`;
running it is `onnx_denoiser`'s business, the loop over the frames `frame_loop`'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...storage.atomic_output import require_apart
from ...storage.directory_lock import owned
from ...storage.stack import Stack
from ...storage.writers.open_writer import (
    OutputForm,
    require_form,
)
from ..graph.precision import Precision
from ..observation_reader import ObservationReader
from ..provenance import Provenance, recorded_camera
from ..runtime.onnx_denoiser import OnnxDenoiser
from ..runtime.pipeline import FramePipeline
from ..runtime.providers import Provider, all_cores
from ..runtime.tiling import TiledDenoiser, open_denoiser
from ..side_inputs import other_channel_numbers
from .channel_models import ChannelModels, OfflineModels
from .frame_loop import OnProgress, denoise_frames, in_reading_order, open_store

AS_ESTIMATED = OutputForm()


def denoise_stack(
    stack: Stack,
    bundle: OfflineModels,
    out: Path | str,
    *,
    resume: bool = False,
    uncertainty: Path | str | None = None,
    form: OutputForm = AS_ESTIMATED,
    **options: Any,
) -> dict[str, Any]:
    """Denoise `stack` into the OME-Zarr or TIFF `out`, in ADU, with the axes of the stack.

    Memory does not grow with the stack: 1 + T frames are held, one is read ahead.

    Parameters
    ----------
    stack
        What to denoise. Frames that a killed recording left out are left out again.
    bundle
        One model, or models by the names of their channels; channels without one are left out.
    out
        What to write: a TIFF if it is called so, else an OME-Zarr.
    resume
        Go on with a store that an earlier run with the same models left unfinished.
    uncertainty
        A second one for the standard deviation of the estimate, ADU.
    form
        The type of the pixels, and whether a TIFF is made for ImageJ.
    options
        `provider`, `precision`, `threads`, `tile`, `overwrite`, `force`, `frames` and
        `on_progress` of `denoise_owned`.

    Returns
    -------
    dict
        `frames_denoised`, `frames_kept` (there from an earlier run), `frames_absent` (never
        recorded), `seconds`, `ms_per_frame`, `provider`, `device`, `models`, `output`.

    Raises
    ------
    FrameMismatchError
        If the model takes other pixels.
    CameraMismatchError
        If the recording names another camera or setting than the model.
    OutputError
        If `out` cannot be written.
    """
    models = ChannelModels.open(stack, bundle)
    require_stores(stack, models, out, uncertainty, form, resume=resume)
    with owned(*(path for path in (out, uncertainty) if path is not None)):
        return denoise_owned(
            stack, models, out, resume=resume, uncertainty=uncertainty, form=form, **options
        )


def require_stores(
    stack: Stack,
    models: ChannelModels,
    out: Path | str,
    uncertainty: Path | str | None,
    form: OutputForm = AS_ESTIMATED,
    *,
    resume: bool = False,
) -> None:
    """Refuse outputs that are an input or each other, or of a format that is not written.

    Raises
    ------
    OutputError
        Before anything was touched.
    BundleError
        If the uncertainty is asked of a model that states none.
    """
    inputs: list[Path | str] = [stack.path, *models.distinct()]
    if uncertainty is not None:
        models.require_uncertainty()
    for path in (out, uncertainty):
        if path is not None:
            require_form(path, form, resume=resume)
            require_apart(path, inputs)
            inputs.append(path)


def denoise_owned(
    stack: Stack,
    models: ChannelModels,
    out: Path | str,
    *,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    tile: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    frames: Iterable[int] | None = None,
    uncertainty: Path | str | None = None,
    form: OutputForm = AS_ESTIMATED,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Do what `denoise_stack` does, into stores that the caller owns and has checked.

    Parameters
    ----------
    stack, out, resume, uncertainty, form
        See `denoise_stack`.
    models
        Those of the stack's channels.
    provider, precision, threads
        See `OnnxDenoiser`; all cores by default, nothing else waits for them.
    tile
        Edge of the tiles that frames are divided into, pixels; by default only frames beyond the
        memory are. The result is the same.
    overwrite
        Replace a store that is there.
    force
        Denoise although the camera or the pixel type differs; recorded in the result.
    frames
        Only these, by their index in the stack.
    on_progress
        Called with (frames done, frames in total).
    """
    began = time.perf_counter()
    remarks = models.require_match(stack, force=force)
    wanted = [
        index
        for index in in_reading_order(stack, None if frames is None else set(frames))
        if models.denoises(stack.axes(index))
    ]
    with ExitStack() as open_things:
        source = open_things.enter_context(
            open_frames(
                stack, models, provider=provider, precision=precision, threads=threads, tile=tile
            )
        )
        first = source.first
        record = Provenance.of(
            stack.path.name,
            models.identities(),
            provider=first.provider,
            precision=precision,
            forced=tuple(remarks),
        )
        stores = [
            open_things.enter_context(open_store(stack, path, record, form, resume, overwrite))
            for path in (out, uncertainty)
            if path is not None
        ]
        counts = denoise_frames(stack, wanted, source, stores, form, on_progress)
    seconds = time.perf_counter() - began
    return {
        "frames_denoised": counts.denoised,
        "frames_kept": counts.kept,
        "frames_absent": counts.absent,
        "pixels_cut_off": counts.pixels_cut_off,
        "seconds": seconds,
        "ms_per_frame": 1e3 * counts.seconds / counts.denoised if counts.denoised else None,
        "provider": first.provider,
        "device": first.device,
        "models": record.model_dump()["models"],
        "general_model": models.said_of_general(),
        "forced": remarks,
        "output": str(out),
    }


@contextmanager
def open_frames(
    stack: Stack,
    models: ChannelModels,
    *,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    tile: int | None = None,
) -> Iterator[ModelFrames]:
    """Open the models for a stack's frames for the length of a block; see `denoise_stack`."""
    with ExitStack() as open_things:
        denoisers, pipelines = {}, {}
        for path, model in models.distinct().items():
            denoisers[path] = denoiser = open_denoiser(
                model,
                stack.frame_shape,
                tile=tile,
                provider=provider,
                precision=precision,
                threads=threads or all_cores(),
                region=recorded_camera(stack).roi,
            )
            open_things.callback(denoiser.close)
            pipelines[path] = denoiser.pipeline()
            open_things.callback(pipelines[path].close)
        yield ModelFrames(stack, models, pipelines, next(iter(denoisers.values())))


class ModelFrames:
    """The frames of a stack as their channel's model is given them, and the way through it.

    Attributes
    ----------
    first
        One of the denoisers, to be asked where they run.
    """

    def __init__(
        self,
        stack: Stack,
        models: ChannelModels,
        pipelines: Mapping[Path, FramePipeline],
        first: OnnxDenoiser | TiledDenoiser,
    ) -> None:
        self._stack, self._models = stack, models
        self._by_path = pipelines
        self._reader = ObservationReader(stack, models.pixel_type)
        self.first = first

    @property
    def pipelines(self) -> list[FramePipeline]:
        """All of them."""
        return list(self._by_path.values())

    def pipeline(self, index: int) -> FramePipeline:
        """Return the one of a frame's channel."""
        return self._by_path[self._models.of(self._stack.axes(index)).path]

    def observations(self, index: int) -> NDArray[Any]:
        """Read a frame with its side inputs."""
        manifest = self._models.of(self._stack.axes(index)).manifest
        others = other_channel_numbers(self._stack, manifest.other_channels, what="its model")
        return self._reader.read(index, manifest.context_frames, others, manifest.planes)
