"""Frames that are too large for the memory, in tiles whose result is that of the whole frame.

Owns where tiles lie and how they are put together. How far a model looks is read from its graph
in `receptive_field`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from ...calibration.pixel_maps import Region
from ..bundle import Bundle, open_bundle
from ..errors import FrameMismatchError, InferenceError
from ..graph.operations import graph_at_shape, tensor_shapes
from ..graph.precision import Precision
from ..graph.receptive_field import ReceptiveField, receptive_field
from .camera_pixels import maps_of_frames
from .onnx_denoiser import OnnxDenoiser
from .pipeline import BlockingLane, FramePipeline
from .providers import Provider, cuda_device_name

TILE_PX = 1024
"""Edge of a tile: large enough that the overlap costs little, small enough for any machine."""

SHARE_OF_MEMORY = 0.5
"""Of the memory that is free; the camera's buffers and the writer need the rest."""

WHOLE_BYTES = 512 * 2**20
"""Beyond it a processor without a GPU takes frames in tiles: 2048² takes a fifth more time and a
quarter of the memory."""

_TENSORS_AT_ONCE = 4
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of rows or columns: what a tile reads, and the part of it that is exact."""

    start: int
    stop: int
    exact_start: int
    exact_stop: int

    @property
    def size(self) -> int:
        """Pixels that are read."""
        return self.stop - self.start


def spans(length: int, tile: int, field: ReceptiveField) -> list[Span]:
    """Divide `length` pixels into overlapping spans of at most about `tile` pixels.

    Every pixel is exact in one span: at least `reach` away from each end that is not an end of
    the frame. Every span starts on the model's grid, and the last ends where the frame ends, so
    that padding happens where it would happen for the whole. All are of one size, so that one
    session serves them, and no larger than as many of them need.

    Raises
    ------
    InferenceError
        If the tile is too small for this model.
    """
    stride = field.stride_px
    # One pixel more than the reach: the outermost pixels of a tile then influence nothing exact.
    overlap = _up(field.reach_px + 1, stride)
    given, tile = tile, tile // stride * stride
    if tile >= length:
        return [Span(0, length, 0, length)]
    if tile <= 2 * overlap:
        raise InferenceError(
            f"tile is {given} pixels, expected at least {2 * overlap + stride} for a model that "
            f"looks {field.reach_px} pixels far; choose a larger --tile"
        )

    def count(size: int) -> int:
        return 1 + -(-(length - size) // _advance(size, overlap, stride))

    largest = tile + length % stride  # a last span of this size starts on the grid as well
    smallest = 2 * overlap + stride + length % stride
    fitting = (n for n in range(smallest, largest, stride) if count(n) == count(largest))
    size = next(fitting, largest)
    starts = [
        min(number * _advance(size, overlap, stride), length - size)
        for number in range(count(size))
    ]
    ends = [*(start + size - overlap for start in starts[:-1]), length]
    return [
        Span(start, start + size, before, end)
        for start, before, end in zip(starts, [0, *ends], ends, strict=False)
    ]


def _advance(size: int, overlap: int, stride: int) -> int:
    """Return how far the next span of this size starts after one, on the model's grid."""
    return (size - 2 * overlap) // stride * stride


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


class TiledDenoiser:
    """Denoise frames of any size with the memory of one tile; a `Denoiser`.

    Parameters
    ----------
    bundle
        The model.
    frame_shape
        (Y, X) in pixels.
    tile
        About the edge of a tile in pixels.
    provider, precision, threads, region
        See `OnnxDenoiser`.

    Raises
    ------
    BundleError
        If the model depends on the whole frame.
    InferenceError
        If the tile is too small for the model.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        frame_shape: tuple[int, int],
        *,
        tile: int = TILE_PX,
        provider: Provider = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
        region: Region | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self._frame_shape = (int(frame_shape[0]), int(frame_shape[1]))
        self.pixel_maps = maps_of_frames(self.bundle, self._frame_shape, region)
        field = receptive_field(self.bundle.model_path)
        self._tiles = list(product(*(spans(n, tile, field) for n in self._frame_shape)))
        rows, columns = self._tiles[0]
        self._one_tile = OnnxDenoiser(  # all are of one size
            self.bundle,
            (rows.size, columns.size),
            provider=provider,
            precision=precision,
            threads=threads,
            pixel_maps=self._maps_at(rows, columns),
        )
        self._estimates = np.empty((2, rows.size, columns.size), np.float32)
        self.precision = precision

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) in pixels."""
        return self._frame_shape

    @property
    def context_frames(self) -> int:
        """How many preceding frames the model wants."""
        return self._one_tile.context_frames

    @property
    def pixel_type(self) -> np.dtype[Any]:
        """The camera's."""
        return self._one_tile.pixel_type

    @property
    def provider(self) -> str:
        """Asked of the session."""
        return self._one_tile.provider

    @property
    def device(self) -> str:
        """The processor, for a person."""
        return self._one_tile.device

    @property
    def tiles(self) -> int:
        """How many tiles a frame is divided into."""
        return len(self._tiles)

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Estimate the signal of the newest frame; see `Denoiser.denoise`."""
        expected = (1 + self.context_frames, *self._frame_shape)
        if observations.shape != expected or out.shape != (2, *self._frame_shape):
            raise FrameMismatchError(
                f"observations have shape {observations.shape} and out {out.shape}, expected "
                f"{expected} and {(2, *self._frame_shape)}"
            )
        present = np.asarray(observations[1:].any(axis=(1, 2)))
        for rows, columns in self._tiles:
            piece = observations[:, rows.start : rows.stop, columns.start : columns.stop]
            self._denoise_tile(
                _marked(piece, present, rows, columns, self._frame_shape), rows, columns, out
            )

    def _denoise_tile(
        self, piece: NDArray[Any], rows: Span, columns: Span, out: NDArray[np.float32]
    ) -> None:
        maps = self._maps_at(rows, columns)
        if maps is None:
            self._one_tile.denoise(piece, self._estimates)
        else:
            self._one_tile.denoise_part(piece, maps, self._estimates)
        exact = tuple(
            slice(span.exact_start - span.start, span.exact_stop - span.start)
            for span in (rows, columns)
        )
        out[:, rows.exact_start : rows.exact_stop, columns.exact_start : columns.exact_stop] = (
            self._estimates[:, exact[0], exact[1]]
        )

    def _maps_at(self, rows: Span, columns: Span) -> NDArray[np.float32] | None:
        if self.pixel_maps is None:
            return None
        return self.pixel_maps[:, :, rows.start : rows.stop, columns.start : columns.stop]

    def pipeline(self) -> FramePipeline:
        """Return a way for many frames, one at a time: tiles keep the processor busy."""
        return FramePipeline([BlockingLane(self)])

    def close(self) -> None:
        """Release the session. May be called more than once."""
        self._one_tile.close()

    def __enter__(self) -> TiledDenoiser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _marked(
    piece: NDArray[Any],
    present: NDArray[np.bool_],
    rows: Span,
    columns: Span,
    frame_shape: tuple[int, int],
) -> NDArray[Any]:
    """Keep a dark tile of a frame that exists from being taken for a missing frame.

    All zeros mean that there was no such frame. Where only this tile is dark, one pixel at an end
    of the tile that nothing exact depends on is set to 1 ADU.
    """
    dark = [k for k, there in enumerate(present, start=1) if there and not piece[k].any()]
    if not dark:
        return piece
    row = _inner_end(rows, frame_shape[0])
    column = _inner_end(columns, frame_shape[1])
    piece = piece.copy()
    piece[dark, row, column] = 1
    return piece


def _inner_end(span: Span, length: int) -> int:
    """Return the outermost pixel at an end that is not the frame's; 0 if both are the frame's.

    A tile has such an end along at least one axis, else it were the whole frame.
    """
    return span.size - 1 if span.start == 0 and span.stop < length else 0


def open_denoiser(
    bundle: Bundle | Path | str,
    frame_shape: tuple[int, int],
    *,
    tile: int | None = None,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    region: Region | None = None,
) -> OnnxDenoiser | TiledDenoiser:
    """Open a model for whole frames where they fit into memory, in tiles where they do not.

    Parameters
    ----------
    tile
        Edge of a tile in pixels; 0 never tiles; None tiles if the memory asks for it, and on a
        processor without a GPU beyond `WHOLE_BYTES`.
    provider, precision, threads, region
        See `OnnxDenoiser`.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    if (
        tile is None
        and max(frame_shape) > TILE_PX
        and _asks_for_tiles(opened, frame_shape, provider)
    ):
        tile = TILE_PX
    if tile and max(frame_shape) > tile:
        return TiledDenoiser(
            opened,
            frame_shape,
            tile=tile,
            provider=provider,
            precision=precision,
            threads=threads,
            region=region,
        )
    return OnnxDenoiser(
        opened,
        frame_shape,
        provider=provider,
        precision=precision,
        threads=threads,
        region=region,
    )


def _asks_for_tiles(bundle: Bundle, frame_shape: tuple[int, int], provider: Provider) -> bool:
    needed = working_memory_bytes(bundle.model_path, frame_shape)
    if needed >= SHARE_OF_MEMORY * float(psutil.virtual_memory().available):
        return True
    on_cpu = provider == "cpu" or (provider == "auto" and cuda_device_name() is None)
    return on_cpu and needed >= WHOLE_BYTES and _can_be_tiled(bundle, frame_shape)


def _can_be_tiled(bundle: Bundle, frame_shape: tuple[int, int]) -> bool:
    """Whether the model looks less far than a tile reaches: one of the whole frame does not."""
    try:
        field = receptive_field(bundle.model_path)
        return all(spans(length, TILE_PX, field) for length in frame_shape)
    except InferenceError:
        return False


def working_memory_bytes(model: Path, frame_shape: tuple[int, int]) -> int:
    """Estimate what a run takes: the largest tensors that are alive at the same time."""
    shapes = tensor_shapes(graph_at_shape(model, frame_shape))
    sizes = sorted((prod(shape) for shape in shapes.values()), reverse=True)
    return _FLOAT_BYTES * sum(sizes[:_TENSORS_AT_ONCE])
