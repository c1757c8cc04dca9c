"""Which frames of a Zarr array are really there.

Owns the question for chunks of any layout: nested or flat names, several frames to a chunk,
several chunks to a frame, shards, folders, zip files and object stores. Reading pixels is not its
business; Zarr itself answers a missing chunk with zeros, which no camera ever took.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NO_CHUNK = 2**64 - 1
"""What a shard's index says of a chunk that was never written (Zarr ZEP 2)."""
_INDEX_ENTRY_BYTES = 16
_CHECKSUM_BYTES = 4

MOST_CHUNKS = 5_000_000
"""Asked for one by one: beyond it, opening would take minutes."""

Chunks = NDArray[np.bool_]
Sizes = Callable[[str], int]


def absence(array: Any, axes: Sequence[str]) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Tell which frames of a Zarr array have all of their chunks.

    A place in the frame of which no frame has a chunk is taken as empty in all of them (a mask),
    not as missing.

    Parameters
    ----------
    array
        With any number of axes.
    axes
        Their names, y and x among them.

    Returns
    -------
    present
        Booleans over the axes that are neither y nor x; None where all are there.
    remarks
        What a person has to know about it.
    """
    if array.ndim == 2:
        return None, ()
    outer = array.shards or array.chunks
    if prod(-(-n // c) for n, c in zip(array.shape, outer, strict=True)) > MOST_CHUNKS:
        return None, ("it has too many chunks to look for missing ones: gaps would read as zeros",)
    stored = _stored_bytes(array)
    if stored is None:
        return None, ("where it lies nobody can list what is there: gaps would read as zeros",)
    plane = (axes.index("y"), axes.index("x"))
    chunks = np.moveaxis(_written_chunks(array, stored), plane, (-2, -1))
    leading = [place for place in range(array.ndim) if place not in plane]
    needed = chunks.any(axis=tuple(range(chunks.ndim - 2)))
    some = np.asarray(chunks.any(axis=(-2, -1)))
    whole = np.asarray((chunks | ~needed).all(axis=(-2, -1))) & some
    partly = int((some & ~whole).sum())
    for axis, place in enumerate(leading):
        whole = np.repeat(whole, array.chunks[place], axis=axis)
        whole = whole.take(range(array.shape[place]), axis=axis)
    if whole.all():
        return None, ()
    remark = f"parts of {partly} frames or groups of frames are missing, so they count as absent"
    return whole, (remark,) if partly else ()


def _written_chunks(array: Any, stored: Sizes) -> Chunks:
    """Return which chunks were written, one boolean for each in the grid of chunks."""
    outer = array.shards or array.chunks
    grid = tuple(-(-length // size) for length, size in zip(array.shape, outer, strict=True))
    written = np.zeros(grid, dtype=np.bool_)
    for place in np.ndindex(*grid):
        # A power cut leaves files whose content had not reached the disk: empty ones.
        written[place] = stored(array.metadata.encode_chunk_key(place)) > 0
    if array.shards is None:
        return written
    return _within_shards(array, written)


def _within_shards(array: Any, shards: Chunks) -> Chunks:
    per_shard = tuple(s // c for s, c in zip(array.shards, array.chunks, strict=True))
    chunks = np.zeros([n * k for n, k in zip(shards.shape, per_shard, strict=True)], np.bool_)
    for place in np.argwhere(shards):
        key = array.metadata.encode_chunk_key(tuple(int(i) for i in place))
        where = tuple(slice(i * k, (i + 1) * k) for i, k in zip(place, per_shard, strict=True))
        chunks[where] = _shard_index(array, key, per_shard)
    inside = (-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
    return chunks[tuple(slice(n) for n in inside)]


def _shard_index(array: Any, key: str, per_shard: tuple[int, ...]) -> Chunks:
    """Read which chunks a shard holds from its index, at its end or its start."""
    codec = array.metadata.codecs[0]
    length = prod(per_shard) * _INDEX_ENTRY_BYTES
    checked = any(type(c).__name__ == "Crc32cCodec" for c in codec.index_codecs)
    whole = length + (_CHECKSUM_BYTES if checked else 0)
    index = _read_part(array, key, whole, from_end=str(codec.index_location.value) == "end")
    if len(index) < length:
        return np.zeros(per_shard, dtype=np.bool_)
    offsets = [offset for offset, _ in struct.iter_unpack("<QQ", index[:length])]
    return np.array([offset != _NO_CHUNK for offset in offsets]).reshape(per_shard)


def _read_part(array: Any, key: str, length: int, *, from_end: bool) -> bytes:
    from zarr.abc.store import RangeByteRequest, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    request = SuffixByteRequest(length) if from_end else RangeByteRequest(0, length)
    found = sync((array.store_path / key).get(default_buffer_prototype(), request))
    return b"" if found is None else bytes(found.to_bytes())


# -------------------------------------------------------------------------- what is stored


def _stored_bytes(array: Any) -> Sizes | None:
    """Return what tells how many bytes lie under a chunk's key; None if nobody can tell."""
    from zarr.storage import LocalStore, WrapperStore, ZipStore

    store, path = array.store_path.store, array.store_path.path
    if isinstance(store, WrapperStore):
        store = store._store
    if isinstance(store, LocalStore):
        return _sizes_in_folder(Path(store.root) / path, nested="/" in _some_key(array))
    if isinstance(store, ZipStore):
        return _sizes_listed(_zip_entries(store), path)
    if not store.supports_listing or getattr(store, "path", "").startswith("http"):
        return None
    return _sizes_listed(((key, 1) for key in _listed(store, path)), path)


def _some_key(array: Any) -> str:
    key: str = array.metadata.encode_chunk_key((0,) * array.ndim)
    return key


def _sizes_in_folder(folder: Path, *, nested: bool) -> Sizes:
    if nested:
        return lambda key: _size(folder / key)
    if not folder.is_dir():
        return lambda key: 0
    with os.scandir(folder) as files:
        sizes = {file.name: file.stat().st_size for file in files}
    return lambda key: sizes.get(key, 0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _sizes_listed(entries: Iterable[tuple[str, int]], path: str) -> Sizes:
    prefix = f"{path}/" if path else ""
    sizes = {key.removeprefix(prefix): size for key, size in entries if key.startswith(prefix)}
    return lambda key: sizes.get(key, 0)


def _zip_entries(store: Any) -> Iterable[tuple[str, int]]:
    import zipfile

    with zipfile.ZipFile(store.path) as file:
        return [(entry.filename, entry.file_size) for entry in file.infolist()]


def _listed(store: Any, path: str) -> list[str]:
    from zarr.core.sync import sync

    async def collect() -> list[str]:
        return [key async for key in store.list_prefix(f"{path}/" if path else "")]

    keys: list[str] = sync(collect())
    return keys
