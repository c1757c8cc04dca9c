"""The arrays of a store: one frame per chunk file, written by tensorstore, a few at a time.

Owns creation, growth and cutting of an array (t, c, z, y, x), and the bound on writes under way.
What the axes mean and which frames there are is not known here.

A chunk file appears under its name in one step, and exists only if its frame was written, also
when every pixel is zero.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from .atomic_output import OutputError

Compression = Literal["blosc-lz4", "blosc-zstd", "zstd", "none"]
TCZ = tuple[int, int, int]

MAX_BLOCK = 32
"""Time points by which a fast recording grows at once: each growth rewrites the metadata."""

FAST_GROWTH_S = 0.2
"""Two growths within this time make the next block larger; a slow time-lapse grows one by one."""

_CONTEXT = ts.Context({"file_io_sync": False, "cache_pool": {"total_bytes_limit": 0}})


class InFlight:
    """Writes under way; adding one too many waits for the oldest.

    The first error is raised again in every thread that comes later: the one that meets it may
    only have read a frame back.
    """

    def __init__(
        self, limit: int, limit_bytes: int, on_error: Callable[[BaseException], OutputError]
    ) -> None:
        self._limit = max(1, limit)
        self._limit_bytes = limit_bytes
        self._on_error = on_error
        self._futures: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._error: OutputError | None = None

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Any, size: int) -> None:
        """Take up a write of `size` bytes, and wait until there are few enough."""
        self._futures.append((future, size))
        self._bytes += size
        while len(self) > self._limit or (self._bytes > self._limit_bytes and len(self) > 1):
            self._finish_oldest()
        self._require_no_error()

    def wait(self) -> None:
        """Wait for all; raises the first error after every other write has ended too."""
        while self._futures:
            self._finish_oldest()
        self._require_no_error()

    def _finish_oldest(self) -> None:
        try:
            oldest, size = self._futures.popleft()
        except IndexError:
            return  # another thread that reads back waits for it
        self._bytes -= size
        try:
            oldest.result()
        except Exception as error:  # tensorstore raises what its drivers raise
            if self._error is None:
                self._error = self._on_error(error)
                self._error.__cause__ = error

    def _require_no_error(self) -> None:
        if self._error is not None:
            raise self._error


class FrameArray:
    """A Zarr array of frames (t, c, z, y, x) in a folder, that grows to where frames are put."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._block = 1
        self._last_growth_s = -FAST_GROWTH_S

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        frame_shape: tuple[int, int],
        dtype: np.dtype[Any],
        compression: Compression,
    ) -> None:
        """Create an array of one frame that is not there.

        Chunks are files of one folder: nested names, the default, cost four folders per frame,
        half the speed for small frames.
        """
        metadata = {
            "shape": [1, 1, 1, *frame_shape],
            "data_type": dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [1, 1, 1, *frame_shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": _codecs(compression, dtype),
            "fill_value": 0,
            "dimension_names": ["t", "c", "z", "y", "x"],
        }
        ts.open(_spec(folder, metadata=metadata), context=_CONTEXT, create=True).result()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an array that exists."""
        return cls(ts.open(_spec(folder), context=_CONTEXT, open=True).result())

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X)."""
        y, x = self._handle.shape[-2:]
        return int(y), int(x)

    @property
    def extent(self) -> TCZ:
        """The lengths of t, c and z."""
        t, c, z = (int(length) for length in self._handle.shape[:3])
        return t, c, z

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self._handle.dtype.numpy_dtype)
        return dtype

    def write(
        self, place: TCZ, pixels: NDArray[Any], in_flight: InFlight, *, unchanging: bool
    ) -> None:
        """Begin to write a frame; `in_flight` waits where too many are under way.

        `unchanging` promises that nobody writes to `pixels` again, and saves a copy.
        """
        self._grow_to(place)
        writing = self._handle[place].write(
            pixels, can_reference_source_data_indefinitely=unchanging
        )
        if not unchanging:
            writing.copy.result()
        in_flight.add(writing, pixels.nbytes)

    def read(self, place: TCZ) -> NDArray[Any]:
        """Read a frame (Y, X)."""
        return np.asarray(self._handle[place].read().result())

    def cut(self, extent: Sequence[int]) -> None:
        """Set the lengths of t, c and z; chunk files beyond them stay, there are none."""
        shape = [*extent, *self._handle.shape[-2:]]
        if shape != list(self._handle.shape):
            # The handle that resize() returns knows the new shape; the old one would undo it.
            self._handle = self._handle.resize(
                exclusive_max=shape, resize_metadata_only=True
            ).result()

    def _grow_to(self, place: TCZ) -> None:
        lengths = self._handle.shape[:3]
        if all(index < length for index, length in zip(place, lengths, strict=True)):
            return
        now = time.monotonic()
        fast = now - self._last_growth_s < FAST_GROWTH_S
        self._block = min(2 * self._block, MAX_BLOCK) if fast else 1
        self._last_growth_s = now
        needed = [index + 1 for index in place]
        if needed[0] > lengths[0]:
            needed[0] += self._block - 1
        self.cut([max(pair) for pair in zip(needed, lengths, strict=True)])


def _codecs(compression: Compression, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if compression in ("blosc-lz4", "blosc-zstd"):
        configuration = {
            "cname": compression.removeprefix("blosc-"),
            "clevel": 5,
            "shuffle": "shuffle",
            "typesize": dtype.itemsize,
        }
        codecs.append({"name": "blosc", "configuration": configuration})
    elif compression == "zstd":
        codecs.append({"name": "zstd", "configuration": {"level": 3}})
    elif compression != "none":
        raise ValueError(f"unknown compression {compression!r}")
    return codecs


def _spec(folder: Path, **details: Any) -> dict[str, Any]:
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(folder)},
        "store_data_equal_to_fill_value": True,
        **details,
    }
