"""Denoise a whole stack, with constant memory, and go on where a run stopped.

Owns the order of frames, the reading ahead and the going on. Which model denoises which channel is
settled in `channel_models`, what is written about it in `provenance`; running it is
`onnx_denoiser`'s business, writing that of `storage.writers`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.atomic_output import require_apart, require_space
from ...storage.directory_lock import owned
from ...storage.open_stack import open_stack
from ...storage.output_kinds import Kind
from ...storage.stack import Stack
from ...storage.writers.open_writer import (
    OutputForm,
    StackWriter,
    as_pixel_type,
    open_writer,
    require_form,
)
from ..errors import InferenceError
from ..graph.precision import Precision
from ..observation_reader import ObservationReader
from ..provenance import Provenance, provenance_of, recorded_camera
from ..runtime.pipeline import FramePipeline
from ..runtime.providers import Provider, all_cores
from ..runtime.tiling import open_denoiser
from ..side_inputs import other_channel_numbers
from .channel_models import ChannelModels, OfflineModels

OnProgress = Callable[[int, int], None]

AS_ESTIMATED = OutputForm()


def denoise_stack(
    stack: Stack,
    bundle: OfflineModels,
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
    provider, precision, threads
        See `OnnxDenoiser`; all cores by default, nothing else waits for them.
    tile
        Edge of the tiles that frames are divided into, pixels; by default only frames beyond the
        memory are. The result is the same.
    resume
        Go on with a store that an earlier run with the same models left unfinished.
    overwrite
        Replace a store that is there.
    force
        Denoise although the camera or the pixel type differs; recorded in the result.
    frames
        Only these, by their index in the stack.
    uncertainty
        A second one for the standard deviation of the estimate, ADU.
    form
        The type of the pixels, and whether a TIFF is made for ImageJ.
    on_progress
        Called with (frames done, frames in total).

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
            stack,
            models,
            out,
            provider=provider,
            precision=precision,
            threads=threads,
            tile=tile,
            resume=resume,
            overwrite=overwrite,
            force=force,
            frames=frames,
            uncertainty=uncertainty,
            form=form,
            on_progress=on_progress,
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
    """
    inputs: list[Path | str] = [stack.path, *models.distinct()]
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
    """Do what `denoise_stack` does, into stores that the caller owns and has checked."""
    began = time.perf_counter()
    remarks = models.require_match(stack, force=force)
    wanted = [
        index
        for index in in_reading_order(stack, None if frames is None else set(frames))
        if models.denoises(stack.axes(index))
    ]
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
        first = next(iter(denoisers.values()))
        record = Provenance.of(
            stack.path.name,
            models.identities(),
            provider=first.provider,
            precision=precision,
            forced=tuple(remarks),
        )
        stores = [
            open_things.enter_context(_open_store(stack, path, record, form, resume, overwrite))
            for path in (out, uncertainty)
            if path is not None
        ]
        counts = _run(stack, wanted, models, pipelines, stores, form, on_progress)
    seconds = time.perf_counter() - began
    return {
        "frames_denoised": counts.denoised,
        "frames_kept": counts.kept,
        "frames_absent": counts.absent,
        "seconds": seconds,
        "ms_per_frame": 1e3 * counts.seconds / counts.denoised if counts.denoised else None,
        "provider": first.provider,
        "device": first.device,
        "models": record.model_dump()["models"],
        "forced": remarks,
        "output": str(out),
    }


@dataclass
class _Counts:
    denoised: int = 0
    kept: int = 0
    absent: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        return self.denoised + self.kept + self.absent


def _run(
    stack: Stack,
    wanted: Sequence[int],
    models: ChannelModels,
    pipelines: Mapping[Path, FramePipeline],
    stores: Sequence[StackWriter],
    form: OutputForm,
    on_progress: OnProgress | None,
) -> _Counts:
    counts, total = _Counts(), len(wanted)

    def remaining() -> Iterator[int]:
        for index in wanted:
            if not stack.is_present(index):
                counts.absent += 1
            elif all(store.holds(stack.image_axes(index)) for store in stores):
                counts.kept += 1
            else:
                yield index

    def write(finished: Iterable[tuple[int, NDArray[np.float32]]]) -> None:
        for index, estimate in finished:
            for store, plane in zip(stores, estimate, strict=False):
                store.write(as_pixel_type(plane, form.pixel_type), stack.image_axes(index))
            counts.denoised += 1
            if on_progress is not None:
                on_progress(counts.done, total)

    began = time.perf_counter()
    for index, observations in _read_ahead(stack, remaining(), models):
        write(pipelines[models.of(stack.axes(index)).path].put(index, observations))
    for pipeline in pipelines.values():
        write(pipeline.drain())
    for store in stores:
        store.flush()
    counts.seconds = time.perf_counter() - began
    if on_progress is not None:
        on_progress(counts.done, total)
    return counts


def _open_store(
    stack: Stack,
    path: Path | str,
    record: Provenance,
    form: OutputForm,
    resume: bool,
    overwrite: bool,
) -> Any:
    path = Path(path)
    if resume and path.exists():
        _require_same_models(path, record)
    else:
        require_space(
            path, len(stack) * prod(stack.frame_shape) * np.dtype(form.pixel_type).itemsize
        )
    return open_writer(
        path,
        stack,
        form,
        kind=Kind.DENOISED,
        attributes=record.attributes(),
        overwrite=overwrite,
        resume=resume,
    )


def _require_same_models(path: Path, record: Provenance) -> None:
    earlier = provenance_of(open_stack(path))
    if earlier is None or not record.same_models(earlier):
        raise InferenceError(
            f"{path}: was begun with another model; pass the model it was begun with, or another "
            "--out, or --overwrite to begin anew"
        )


# ----------------------------------------------------------------------- order and reading


def in_reading_order(stack: Stack, chosen: set[int] | None) -> Iterator[int]:
    """Go through time within each channel, plane and position: context frames are read once."""
    streams = [range(size) for name, size in stack.sizes.items() if name != "time"]
    names = [name for name in stack.sizes if name != "time"]
    for place in product(*streams):
        axes = dict(zip(names, place, strict=True))
        for time_point in range(stack.sizes.get("time", 1)):
            index = stack.index({**axes, "time": time_point})
            if chosen is None or index in chosen:
                yield index


def _read_ahead(
    stack: Stack, indices: Iterable[int], models: ChannelModels
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield each index with its observations, while the next one is being read."""
    reader = ObservationReader(stack, models.pixel_type)

    def read(index: int) -> tuple[int, NDArray[Any]]:
        manifest = models.of(stack.axes(index)).manifest
        other_channels = other_channel_numbers(stack, manifest.other_channels, what="its model")
        return index, reader.read(index, manifest.context_frames, other_channels)

    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        pending = None
        for index in indices:
            following = pool.submit(read, index)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
