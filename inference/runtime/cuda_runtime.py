"""The calls of the CUDA runtime that ONNX Runtime's Python interface does not offer.

Owns page-locked memory, copies, streams and events, through the `cudart` library that the CUDA
provider has loaded already. Knows nothing of sessions.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import Any, Protocol

from numpy.typing import NDArray

from ..errors import InferenceError

logger = logging.getLogger(__name__)

_TO_WHEREVER_THE_ADDRESSES_SAY = 4
_NON_BLOCKING = 1
_WITHOUT_TIMING = 2


class Runtime(Protocol):
    """Copies that are queued: a stream does its work in order, streams run side by side.

    Streams and events are numbers; sizes are in bytes.
    """

    def stream(self) -> int:
        """Make a stream."""
        ...

    def event(self) -> int:
        """Make an event: a place in a stream that can be waited for."""
        ...

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy from the GPU to this side and return when it is done.

        The other way it may return earlier, and no stream waits for it.
        """
        ...

    def copy_later(self, target: int, source: int, size: int, stream: int) -> None:
        """Queue a copy between two addresses."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Let `event` stand for what is queued in `stream` so far."""
        ...

    def let_wait(self, stream: int, event: int) -> None:
        """Let what is queued in `stream` from now on wait for `event`; returns at once."""
        ...

    def wait(self, event: int) -> None:
        """Return once `event` has come."""
        ...

    def release(self, streams: list[int], events: list[int]) -> None:
        """Give streams and events back, after their work is done."""
        ...

    def lock(self, array: NDArray[Any]) -> bool:
        """Page-lock host memory, which is copied several times faster; say whether it was."""
        ...

    def unlock(self, array: NDArray[Any]) -> None:
        """Undo `lock`."""
        ...


class CudaRuntime:
    """`Runtime` on the first NVIDIA GPU."""

    def __init__(self) -> None:
        import onnxruntime as ort

        major = str(ort.cuda_version).split(".")[0]
        windows = sys.platform == "win32"
        self._library = ctypes.CDLL(
            f"cudart64_{major}.dll" if windows else f"libcudart.so.{major}"
        )
        size, pointer, flags = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint
        out = ctypes.POINTER(pointer)
        for name, arguments in {
            "cudaHostRegister": [pointer, size, flags],
            "cudaHostUnregister": [pointer],
            "cudaMemcpy": [pointer, pointer, size, ctypes.c_int],
            "cudaMemcpyAsync": [pointer, pointer, size, ctypes.c_int, pointer],
            "cudaStreamCreateWithFlags": [out, flags],
            "cudaStreamDestroy": [pointer],
            "cudaStreamWaitEvent": [pointer, pointer, flags],
            "cudaEventCreateWithFlags": [out, flags],
            "cudaEventDestroy": [pointer],
            "cudaEventRecord": [pointer, pointer],
            "cudaEventSynchronize": [pointer],
        }.items():
            getattr(self._library, name).argtypes = arguments

    def lock(self, array: NDArray[Any]) -> bool:
        """See `Runtime`; where memory cannot be locked, ordinary memory serves."""
        status = int(self._library.cudaHostRegister(array.ctypes.data, array.nbytes, 0))
        if status:
            logger.info(
                "host memory is not page-locked (CUDA error %d): copies are slower", status
            )
        return status == 0

    def unlock(self, array: NDArray[Any]) -> None:
        """See `Runtime`."""
        self._library.cudaHostUnregister(array.ctypes.data)

    def copy(self, target: int, source: int, size: int) -> None:
        """See `Runtime`."""
        self._call("cudaMemcpy", target, source, size, _TO_WHEREVER_THE_ADDRESSES_SAY)

    def copy_later(self, target: int, source: int, size: int, stream: int) -> None:
        """See `Runtime`."""
        kind = _TO_WHEREVER_THE_ADDRESSES_SAY
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def stream(self) -> int:
        """See `Runtime`."""
        return self._made("cudaStreamCreateWithFlags", _NON_BLOCKING)

    def event(self) -> int:
        """See `Runtime`."""
        return self._made("cudaEventCreateWithFlags", _WITHOUT_TIMING)

    def record(self, event: int, stream: int) -> None:
        """See `Runtime`."""
        self._call("cudaEventRecord", event, stream)

    def let_wait(self, stream: int, event: int) -> None:
        """See `Runtime`."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def wait(self, event: int) -> None:
        """See `Runtime`."""
        self._call("cudaEventSynchronize", event)

    def release(self, streams: list[int], events: list[int]) -> None:
        """See `Runtime`."""
        for event in events:
            self._library.cudaEventDestroy(event)
        for stream in streams:
            self._library.cudaStreamDestroy(stream)

    def _made(self, function: str, flags: int) -> int:
        made = ctypes.c_void_p()
        self._call(function, ctypes.byref(made), flags)
        return int(made.value or 0)

    def _call(self, function: str, *arguments: Any) -> None:
        status = int(getattr(self._library, function)(*arguments))
        if status:
            raise InferenceError(
                f"the GPU refused {function} (CUDA error {status}); restart the program, or pass "
                "--provider cpu"
            )
