"""Frames one after the other, with the copies of one during the computation of another.

Owns the order: when a frame is started, when its result is handed out, and which copy waits for
which. A CPU has no copies to hide: there a frame is finished before the next is started.

::

    upload    1   2   3   4
    compute       1   2   3   4
    download          1   2   3   4
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..denoiser import Denoiser
from .cuda_runtime import Runtime

LANES = 3
"""Frames that are on their way at a time: one is uploaded, one computed, one downloaded."""

Key = TypeVar("Key")


class Lane(Protocol):
    """The way of one frame at a time: in, through the model, and out."""

    def start(self, observations: NDArray[Any]) -> None:
        """Take (1 + T, Y, X), which may be changed afterwards; may return before it is done.

        Called when the frame before has been finished.
        """
        ...

    def finish(self) -> NDArray[np.float32]:
        """Return (2, Y, X), estimate and standard deviation; valid until the next start."""
        ...

    def close(self) -> None:
        """Release what the lane holds."""
        ...


class BlockingLane:
    """Any `Denoiser`, one frame at a time."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._estimate = np.empty((2, *denoiser.frame_shape), np.float32)

    def start(self, observations: NDArray[Any]) -> None:
        """Denoise it."""
        self._denoiser.denoise(observations, self._estimate)

    def finish(self) -> NDArray[np.float32]:
        """See `Lane`."""
        return self._estimate

    def close(self) -> None:
        """Nothing to do: the denoiser belongs to whoever opened it."""


class Streams:
    """What the lanes of one session share: its stream, and one for each direction of copies.

    Parameters
    ----------
    runtime
        CUDA's.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.upload, self.compute, self.download = (runtime.stream() for _ in range(3))

    def close(self) -> None:
        """Give the streams back."""
        self.runtime.release([self.upload, self.compute, self.download], [])


class CopyingLane:
    """Page-locked host memory and GPU memory of one frame, beside what the session is bound to.

    The session reads and writes fixed addresses, as a captured CUDA graph has to; a copy within
    the GPU brings a frame there and its result away (microseconds), so that the copies over the
    bus never touch what is being computed on.

    Parameters
    ----------
    streams
        Shared with the other lanes of the session, which computes in `streams.compute`.
    enqueue_run
        Queues one run of the session in `streams.compute`; returns at once.
    bound
        What the session is bound to: the observations, then estimate and standard deviation.
    host
        Memory of this lane, page-locked: (1 + T, Y, X) in, (2, Y, X) out.
    staging
        The same on the GPU.
    """

    def __init__(
        self,
        streams: Streams,
        enqueue_run: Callable[[], object],
        *,
        bound: Sequence[Any],
        host: tuple[NDArray[Any], NDArray[np.float32]],
        staging: tuple[Any, Any],
    ) -> None:
        self._streams, self._runtime = streams, streams.runtime
        self._enqueue_run = enqueue_run
        self._bound = [value.data_ptr() for value in bound]
        self._observations, self._estimate = host
        self._staging: tuple[Any, Any] | None = staging
        self._arriving, self._leaving = (value.data_ptr() for value in staging)
        self._uploaded, self._computed, self._downloaded = (
            self._runtime.event() for _ in range(3)
        )
        self._locked = [array for array in host if self._runtime.lock(array)]

    def start(self, observations: NDArray[Any]) -> None:
        """Queue upload, computation and download; each waits for the one before, nothing else."""
        np.copyto(self._observations, observations)
        self._queue_upload()
        self._queue_run()
        self._queue_download()

    def finish(self) -> NDArray[np.float32]:
        """Wait for the download."""
        self._runtime.wait(self._downloaded)
        return self._estimate

    def close(self) -> None:
        """Wait for what is under way and give everything back."""
        if self._staging is None:
            return
        try:
            self._runtime.wait(self._downloaded)
        finally:
            while self._locked:
                self._runtime.unlock(self._locked.pop())
            self._runtime.release([], [self._uploaded, self._computed, self._downloaded])
            self._staging = None

    def _queue_upload(self) -> None:
        upload, frame = self._streams.upload, self._observations
        self._runtime.copy_later(self._arriving, frame.ctypes.data, frame.nbytes, upload)
        self._runtime.record(self._uploaded, upload)

    def _queue_run(self) -> None:
        compute, (observations, *results) = self._streams.compute, self._bound
        self._runtime.let_wait(compute, self._uploaded)
        self._runtime.copy_later(observations, self._arriving, self._observations.nbytes, compute)
        self._enqueue_run()
        size = self._estimate[0].nbytes
        for plane, result in enumerate(results):
            self._runtime.copy_later(self._leaving + plane * size, result, size, compute)
        self._runtime.record(self._computed, compute)

    def _queue_download(self) -> None:
        download, estimate = self._streams.download, self._estimate
        self._runtime.let_wait(download, self._computed)
        self._runtime.copy_later(estimate.ctypes.data, self._leaving, estimate.nbytes, download)
        self._runtime.record(self._downloaded, download)


def copying_lanes(
    streams: Streams,
    enqueue_run: Callable[[], object],
    *,
    observations: NDArray[Any],
    bound: Sequence[Any],
    memory: str = "cuda",
) -> list[Lane]:
    """Make the lanes of one session; see `CopyingLane`.

    Parameters
    ----------
    streams, enqueue_run, bound
        See `CopyingLane`.
    observations
        An array of the shape and type that goes in, (1 + T, Y, X).
    memory
        Where the session computes, as ONNX Runtime names it.
    """
    import onnxruntime as ort

    lanes: list[Lane] = []
    for _ in range(LANES):
        host = (np.zeros_like(observations), np.zeros((2, *observations.shape[1:]), np.float32))
        staging = [
            ort.OrtValue.ortvalue_from_shape_and_type(list(a.shape), a.dtype.type, memory)
            for a in host
        ]
        lanes.append(
            CopyingLane(
                streams, enqueue_run, bound=bound, host=host, staging=(staging[0], staging[1])
            )
        )
    return lanes


class FramePipeline:
    """Denoise frames in order; a frame's result comes out when the lanes are full, or on request.

    Used from one thread. While frames are on their way, the denoiser's own `denoise` must not be
    called.

    Parameters
    ----------
    lanes
        One for each frame that may be on its way.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._free = deque(lanes)
        self._busy: deque[tuple[Any, Lane]] = deque()

    @property
    def under_way(self) -> int:
        """How many frames were put in and have not come out."""
        return len(self._busy)

    def put(self, key: Key, observations: NDArray[Any]) -> list[tuple[Key, NDArray[np.float32]]]:
        """Start a frame (1 + T, Y, X); return what is finished, with the key it was put in under.

        Never waits while a lane is free. A result (2, Y, X) is valid until the next call.
        """
        lane = self._free.popleft()
        self._busy.append((key, lane))
        lane.start(observations)
        return [] if self._free else [self._take()]

    def drain(self) -> Iterator[tuple[Any, NDArray[np.float32]]]:
        """Wait for the frames that are on their way and yield them in order."""
        while self._busy:
            yield self._take()

    def close(self) -> None:
        """Release the lanes. What is on its way is lost."""
        lanes = [*self._free, *(lane for _, lane in self._busy)]
        self._busy.clear()
        with ExitStack() as all_of_them:  # also where one of them fails
            for lane in lanes:
                all_of_them.callback(lane.close)

    def _take(self) -> tuple[Any, NDArray[np.float32]]:
        key, lane = self._busy.popleft()
        self._free.append(lane)
        return key, lane.finish()
