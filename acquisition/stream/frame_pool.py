"""Memory for frames, used again when the last part of the stream has let go of a frame.

Owns that memory. Fresh memory for each frame of a large camera costs several times the copy
itself, because the operating system has to clear every page of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_IDLE_BYTES = 256 * 2**20
"""Kept for frames to come; more is given back to the operating system."""

PREPARED_BYTES = 128 * 2**20

COPIED_IN_ONE_TURN_BYTES = 2**20
"""Up to here a copy (0.1 ms) takes less time than getting the interpreter back after one that
lets others have it meanwhile: pycro-manager's engine never stops asking the core for images."""

_Kind = tuple[tuple[int, ...], np.dtype[Any]]


class FramePool:
    """Copies frames into memory that was used before. One thread copies, any thread lets go."""

    def __init__(self) -> None:
        self._kind: _Kind | None = None
        self._idle: list[NDArray[Any]] = []

    def prepare(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Get memory for the first frames ready, so that none of them has to wait for it."""
        size = int(np.prod(shape)) * dtype.itemsize
        self._kind = (shape, dtype)
        self._idle = [np.zeros(shape, dtype) for _ in range(min(16, PREPARED_BYTES // size))]
        for memory in self._idle:
            memory.fill(1)  # zeros alone are not given real memory yet

    def copy(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return a read-only copy of `pixels`.

        Its memory comes back here when the copy and all its views are gone.
        """
        kind = (pixels.shape, pixels.dtype)
        if kind != self._kind:
            self._kind, self._idle = kind, []
        try:
            memory = self._idle.pop()
        except IndexError:
            memory = np.empty_like(pixels, order="C", subok=False)
        _copy(pixels, memory)
        return np.asarray(_Lease(self, memory, kind))

    def take_back(self, memory: NDArray[Any], kind: _Kind) -> None:
        """Keep `memory` for a frame to come, unless there is enough or frames changed."""
        if kind == self._kind and (len(self._idle) + 1) * memory.nbytes <= MAX_IDLE_BYTES:
            self._idle.append(memory)


def _copy(pixels: NDArray[Any], memory: NDArray[Any]) -> None:
    small = pixels.nbytes <= COPIED_IN_ONE_TURN_BYTES
    if small and pixels.flags.c_contiguous and pixels.dtype.isnative:
        memory.data.cast("B")[:] = pixels.data.cast("B")  # keeps the interpreter meanwhile
    else:
        np.copyto(memory, pixels)


class _Lease:
    """Lends memory to one array; the array holds this object, and the last view ends it."""

    def __init__(self, pool: FramePool, memory: NDArray[Any], kind: _Kind) -> None:
        self._pool = pool
        self._memory = memory
        self._kind = kind
        address, _ = memory.__array_interface__["data"]
        self.__array_interface__ = {**memory.__array_interface__, "data": (address, True)}

    def __del__(self) -> None:
        self._pool.take_back(self._memory, self._kind)
