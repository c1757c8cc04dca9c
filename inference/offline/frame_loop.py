"""The loop over the frames of a stack: read ahead, denoise, write, count, go on where it stopped.

Owns the order of frames, the reading of the next one while one is denoised, and the stores that
are written. What denoises a frame, and what it is given, is told by a `FrameSource`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...storage.atomic_output import require_space
from ...storage.open_stack import open_stack
from ...storage.output_kinds import Kind
from ...storage.stack import Stack
from ...storage.writers.open_writer import (
    OutputForm,
    StackWriter,
    as_pixel_type,
    open_writer,
    pixels_beyond,
    written_axes,
)
from ..errors import InferenceError
from ..provenance import Provenance, provenance_of
from ..runtime.pipeline import FramePipeline

OnProgress = Callable[[int, int], None]


class FrameSource(Protocol):
    """What denoises the frames of a stack."""

    @property
    def pipelines(self) -> Sequence[FramePipeline]:
        """All of them."""
        ...

    def pipeline(self, index: int) -> FramePipeline:
        """Return the one that denoises a frame."""
        ...

    def observations(self, index: int) -> NDArray[Any]:
        """Read what it is given for that frame; called from one thread of its own."""
        ...


@dataclass
class FrameCounts:
    """What became of the frames, and the seconds that denoising and writing took."""

    denoised: int = 0
    kept: int = 0
    absent: int = 0
    seconds: float = 0.0
    pixels_cut_off: int = 0
    """Because the pixel type that is written does not hold them."""

    @property
    def done(self) -> int:
        """How many are settled."""
        return self.denoised + self.kept + self.absent


def denoise_frames(
    stack: Stack,
    wanted: Sequence[int],
    source: FrameSource,
    stores: Sequence[StackWriter],
    form: OutputForm,
    on_progress: OnProgress | None,
) -> FrameCounts:
    """Denoise the wanted frames that are there and not in the stores yet."""
    counts, total = FrameCounts(), len(wanted)

    def remaining() -> Iterator[int]:
        for index in wanted:
            if not stack.is_present(index):
                counts.absent += 1
            elif all(store.holds(written_axes(stack, index, form)) for store in stores):
                counts.kept += 1
            else:
                yield index

    def write(finished: Iterable[tuple[int, NDArray[np.float32]]]) -> None:
        for index, estimate in finished:
            for store, plane in zip(stores, estimate, strict=False):
                counts.pixels_cut_off += pixels_beyond(plane, form.pixel_type)
                store.write(
                    as_pixel_type(plane, form.pixel_type), written_axes(stack, index, form)
                )
            counts.denoised += 1
            if on_progress is not None:
                on_progress(counts.done, total)

    began = time.perf_counter()
    for index, observations in _read_ahead(source, remaining()):
        write(source.pipeline(index).put(index, observations))
    for pipeline in source.pipelines:
        write(pipeline.drain())
    for store in stores:
        store.flush()
    counts.seconds = time.perf_counter() - began
    if on_progress is not None:
        on_progress(counts.done, total)
    return counts


def open_store(
    stack: Stack,
    path: Path | str,
    record: Provenance,
    form: OutputForm,
    resume: bool,
    overwrite: bool,
) -> Any:
    """Open what is written to, or go on with what the same models left unfinished.

    Raises
    ------
    InferenceError
        If it was begun with another model or method.
    OutputError
        If it cannot be written.
    """
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
            f"{path}: was begun with another model or method; pass the one it was begun with, "
            "or another --out, or --overwrite to begin anew"
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


def _read_ahead(source: FrameSource, indices: Iterable[int]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield each index with its observations, while the next one is being read."""

    def read(index: int) -> tuple[int, NDArray[Any]]:
        return index, source.observations(index)

    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        pending = None
        for index in indices:
            following = pool.submit(read, index)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
