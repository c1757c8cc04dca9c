"""A Zarr store that hands out no chunk which would unpack to more than any chunk has.

Owns the look into compressed chunks before a codec unpacks them: a few megabytes of deflate can
hold gigabytes of zeros. What a chunk should unpack to is known to Zarr only afterwards.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.storage import WrapperStore

from ..stack import StackError

LARGEST_CHUNK_BYTES = 2 * 2**30
"""What codecs themselves take at most (Blosc)."""
DEFLATE_RATIO = 1032
"""Deflate cannot hold more than this in a byte (RFC 1951)."""
STEP_BYTES = 16 * 2**20
HEAD_BYTES = 32

_GZIP = b"\x1f\x8b"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


class BoundedStore(WrapperStore[Any]):  # type: ignore[misc]
    """Any store, with a limit on what its chunks may unpack to."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return what lies under a key, if it does not unpack to too much.

        Raises
        ------
        StackError
            If it would.
        """
        found = await super().get(key, prototype, byte_range)
        if found is not None and byte_range is None:
            _require_bounded(key, found.as_numpy_array())
        return found


def _require_bounded(key: str, packed: NDArray[np.uint8]) -> None:
    head = packed[:HEAD_BYTES].tobytes()  # the whole of it is not copied for nothing
    if head.startswith(_ZSTANDARD):
        unpacked = _zstandard_size(head)
    elif head.startswith((_GZIP, *_ZLIB)):
        unpacked = _deflated_size(packed.data)
    else:
        return
    if unpacked > LARGEST_CHUNK_BYTES:
        raise StackError(
            f"chunk {key}: {len(packed) / 2**20:.1f} MiB would unpack to more than "
            f"{LARGEST_CHUNK_BYTES // 2**30} GiB; check the file"
        )


def _deflated_size(packed: memoryview) -> int:
    """Return what deflate unpacks to, counted without keeping it, up to just beyond the limit."""
    if len(packed) * DEFLATE_RATIO <= LARGEST_CHUNK_BYTES:
        return 0
    stream, size = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS), 0
    rest: memoryview | bytes = packed
    try:
        while rest and not stream.eof and size <= LARGEST_CHUNK_BYTES:
            size += len(stream.decompress(rest, STEP_BYTES))
            rest = stream.unconsumed_tail
    except zlib.error:  # pixels that only look like it
        return 0
    return size


def _zstandard_size(head: bytes) -> int:
    """Return the size that a Zstandard frame states; 0 where it states none (RFC 8878, 3.1.1)."""
    descriptor = head[4] if len(head) > 4 else 0
    kind, single = descriptor >> 6, bool(descriptor & 0x20)
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    start = 5 + (0 if single else 1) + dictionary
    length = (1 if single else 0, 2, 4, 8)[kind]
    stated = int.from_bytes(head[start : start + length], "little")
    return stated + 256 if kind == 1 else stated
