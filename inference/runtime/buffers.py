"""The memory that a session reads and writes, bound once.

Owns where observations and results lie: in this process's memory on the CPU, on the GPU with
page-locked memory on this side otherwise. Nothing is allocated after construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..graph.inspection import INPUT, OUTPUTS, PIXEL_MAPS
from .cuda_runtime import Runtime


class Buffers(Protocol):
    """Host arrays, and how they reach the session and come back."""

    observations: NDArray[Any]
    outputs: Sequence[NDArray[np.float32]]

    def bind(self, binding: Any) -> None:
        """Bind inputs and outputs to a session's IOBinding."""
        ...

    def write_to(self, out: NDArray[np.float32], binding: Any) -> bool:
        """Let the session write into the caller's (2, Y, X) itself, if it can; say whether."""
        ...

    def bind_maps(self, maps: NDArray[np.float32], binding: Any) -> None:
        """Bind the pixel maps (1, 3, Y, X) of these frames' part of the sensor."""
        ...

    def upload(self) -> None:
        """Bring `observations` to where the session reads them."""
        ...

    def download(self) -> None:
        """Bring the results to `outputs`."""
        ...

    def close(self) -> None:
        """Release what was taken."""
        ...


class HostBuffers:
    """Memory of this process, which the session reads and writes directly.

    Parameters
    ----------
    shape
        (1, 1 + T, Y, X) of the observations.
    pixel_type
        Of the camera.
    """

    def __init__(self, shape: tuple[int, int, int, int], pixel_type: np.dtype[Any]) -> None:
        self.observations = np.zeros(shape, pixel_type)
        self.outputs: Sequence[NDArray[np.float32]] = [
            np.zeros((1, 1, *shape[2:]), np.float32) for _ in OUTPUTS
        ]
        self._target: NDArray[np.float32] | None = None

    def bind(self, binding: Any) -> None:
        """See `Buffers`."""
        binding.bind_cpu_input(INPUT, self.observations)
        self._bind_outputs(self.outputs, binding)

    def write_to(self, out: NDArray[np.float32], binding: Any) -> bool:
        """See `Buffers`; planes that are not contiguous are copied to afterwards."""
        if out is self._target:
            return True
        if out[0].flags.c_contiguous:
            self._bind_outputs([plane[np.newaxis, np.newaxis] for plane in out], binding)
            self._target = out  # kept: the session holds its address
            return True
        if self._target is not None:
            self._bind_outputs(self.outputs, binding)
            self._target = None
        return False

    def bind_maps(self, maps: NDArray[np.float32], binding: Any) -> None:
        """See `Buffers`."""
        self._maps = np.ascontiguousarray(maps)  # kept: the session holds its address
        binding.bind_cpu_input(PIXEL_MAPS, self._maps)

    def _bind_outputs(self, arrays: Sequence[NDArray[np.float32]], binding: Any) -> None:
        import onnxruntime as ort

        for name, array in zip(OUTPUTS, arrays, strict=True):
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))

    def upload(self) -> None:
        """Nothing to do: the session reads this memory."""

    def download(self) -> None:
        """Nothing to do: the session wrote this memory."""

    def close(self) -> None:
        """Nothing to do."""


class CudaBuffers(HostBuffers):
    """Memory of the GPU at fixed addresses, as CUDA graphs need it, and page-locked host memory.

    Page-locked memory is copied several times faster; where it cannot be had, ordinary memory
    serves. What goes in is queued in the stream that the session computes in: a copy outside of it
    may still be under way when the session begins.

    Parameters
    ----------
    shape, pixel_type
        See `HostBuffers`.
    runtime
        CUDA's.
    stream
        The one that the session computes in.

    Attributes
    ----------
    device
        The GPU's side: observations, estimate, standard deviation (`onnxruntime.OrtValue`).
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        pixel_type: np.dtype[Any],
        runtime: Runtime,
        stream: int,
    ) -> None:
        import onnxruntime as ort

        super().__init__(shape, pixel_type)
        self.device = [
            ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, "cuda")
            for array in (self.observations, *self.outputs)
        ]
        self._device_maps: Any = None
        self._runtime, self._stream = runtime, stream
        self._locked = [
            array for array in (self.observations, *self.outputs) if self._runtime.lock(array)
        ]

    def bind(self, binding: Any) -> None:
        """See `Buffers`."""
        binding.bind_ortvalue_input(INPUT, self.device[0])
        for name, value in zip(OUTPUTS, self.device[1:], strict=True):
            binding.bind_ortvalue_output(name, value)

    def bind_maps(self, maps: NDArray[np.float32], binding: Any) -> None:
        """See `Buffers`."""
        if self._device_maps is None:
            import onnxruntime as ort

            self._device_maps = ort.OrtValue.ortvalue_from_shape_and_type(
                list(maps.shape), maps.dtype.type, "cuda"
            )
            binding.bind_ortvalue_input(PIXEL_MAPS, self._device_maps)
        self._maps = np.ascontiguousarray(maps)  # kept: the copy is queued
        self._send(self._maps, self._device_maps)

    def write_to(self, out: NDArray[np.float32], binding: Any) -> bool:
        """No: the session writes to the GPU."""
        return False

    def upload(self) -> None:
        """Queue the copy of the observations to the GPU."""
        self._send(self.observations, self.device[0])

    def download(self) -> None:
        """Copy the results from the GPU."""
        for value, array in zip(self.device[1:], self.outputs, strict=True):
            self._runtime.copy(array.ctypes.data, value.data_ptr(), array.nbytes)

    def _send(self, array: NDArray[Any], value: Any) -> None:
        self._runtime.copy_later(value.data_ptr(), array.ctypes.data, array.nbytes, self._stream)

    def close(self) -> None:
        """Unlock the host memory and let the GPU's go."""
        while self._locked:
            self._runtime.unlock(self._locked.pop())
        self.device.clear()
        self._device_maps = None
