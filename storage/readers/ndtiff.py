"""NDTiff, the dataset of Micro-Manager 2 and pycro-manager: a folder with an index of images.

Owns the grid that the images lie in, which of it is there, and what the index, the summary and the
images' metadata say. The index is parsed, and pixels are read, by `ndstorage`; the format's first
two versions wholly by it.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..open_options import OpenOptions, chosen_series
from ..stack import AxisValue, Stack, StackError, reason, require_sizes
from . import micro_manager

INDEX = "NDTiff.index"
FULL_RESOLUTION = "Full resolution"
LARGEST_INDEX_BYTES = 2**30
_RGB, _EIGHT_BIT = 2, 0
_NO_VALUE = "none"
"""What images without an axis that others have are called along it."""


def claims(path: Path) -> bool:
    """Whether this is an NDTiff dataset, or one of its files."""
    folder = _folder(path)
    return (folder / INDEX).is_file() or (folder / FULL_RESOLUTION).is_dir()


def _folder(path: Path) -> Path:
    return path.parent if path.is_file() and "NDTiff" in path.name else path


def read(path: Path, options: OpenOptions) -> Stack:
    """Open an NDTiff dataset."""
    folder = _folder(path)
    if (folder / FULL_RESOLUTION / INDEX).is_file():
        folder = folder / FULL_RESOLUTION
    if not (folder / INDEX).is_file() or _major_version(folder) < 3:
        return _by_library(path, folder, options)
    entries, remarks = _entries(folder)
    if not entries:
        raise StackError(f"{path}: its {INDEX} lists no image; record at least one frame first")
    if path.is_file():
        remarks += (f"{path.name} is one of a dataset's files: the whole dataset is read",)
    kind, others = _one_kind(path, entries, options)
    return _from_entries(path, folder, kind, (*remarks, *others))


def _major_version(folder: Path) -> int:
    """Return the format's major version by the head of its first file; 3 if none tells."""
    for file in sorted(folder.glob("*.tif")):
        head = _head(file)
        if head[:2] in {b"II", b"MM"} and len(head) >= 16:
            return int(np.frombuffer(head[12:16], "<u4")[0])
    return 3


def _head(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        return opened.read(28)


# ----------------------------------------------------------------------------- the index


def _entries(folder: Path) -> tuple[list[tuple[dict[str, Any], Any]], tuple[str, ...]]:
    """Return the axes and the entry of every image, in the order in which they were saved."""
    from ndstorage.ndtiff_index import NDTiffIndexEntry

    index = folder / INDEX
    if index.stat().st_size > LARGEST_INDEX_BYTES:
        raise StackError(
            f"{index}: {index.stat().st_size / 2**30:.1f} GiB, expected at most 1; check the file"
        )
    data, position = index.read_bytes(), 0
    found: dict[tuple[Any, ...], tuple[dict[str, Any], Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an index that was never finished ends in zeros
        while position < len(data):
            try:
                entry = NDTiffIndexEntry.unpack_single_index_entry(data, position)
            except Exception:  # cut off in the middle of an entry
                return list(found.values()), (f"its {INDEX} ends in the middle of an entry",)
            if entry is None:
                break
            position, axes, image = entry
            found[tuple(sorted(axes.items()))] = (axes, image)
    return list(found.values()), ()


def _one_kind(
    path: Path, entries: Sequence[tuple[dict[str, Any], Any]], options: OpenOptions
) -> tuple[list[tuple[dict[str, Any], Any]], tuple[str, ...]]:
    """Return the images of one frame size and pixel type."""
    kinds: dict[tuple[int, int, int], list[tuple[dict[str, Any], Any]]] = {}
    for axes, image in entries:
        kind = image.image_height, image.image_width, image.pixel_type
        kinds.setdefault(kind, []).append((axes, image))
    names = [f"{h}×{w}, {len(found)} images" for (h, w, _), found in kinds.items()]
    if options.series is not None:
        return list(kinds.values())[chosen_series(options, names, path)], ()
    if len(kinds) > 1:
        shown = "; ".join(f"{number}: {name}" for number, name in enumerate(names[:8]))
        raise StackError(
            f"{path}: its frames are of {len(kinds)} sizes or types ({shown}); choose one with "
            "--series"
        )
    return entries if isinstance(entries, list) else list(entries), ()


def _grid(
    entries: Sequence[tuple[dict[str, Any], Any]],
) -> tuple[dict[str, list[AxisValue]], tuple[str, ...]]:
    """Return what each axis holds: numbers by size, names as they arrived."""
    names = dict.fromkeys(name for axes, _ in entries for name in axes)
    grid = {name: _in_order([axes.get(name, _NO_VALUE) for axes, _ in entries]) for name in names}
    partial = [name for name, values in grid.items() if _NO_VALUE in values]
    remarks = tuple(
        f"some images have no {name}: along it they are called {_NO_VALUE}" for name in partial
    )
    return grid, remarks


def _in_order(values: Iterable[AxisValue]) -> list[AxisValue]:
    found = list(dict.fromkeys(values))
    numbers = [value for value in found if isinstance(value, int | float)]
    return [*sorted(numbers), *(value for value in found if isinstance(value, str))]


# ------------------------------------------------------------------------------ the stack


class _Readers:
    """The files of a dataset, opened when one of their images is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Any] = {}
        self._lock = threading.Lock()

    def image(self, entry: Any) -> NDArray[Any]:
        with self._lock:
            return np.asarray(self._reader(entry.filename).read_image(entry))

    def metadata(self, entry: Any) -> dict[str, Any]:
        try:
            with self._lock:
                found = self._reader(entry.filename).read_metadata(entry)
        except Exception:  # what is said of an image is less than the image
            return {}
        return found if isinstance(found, dict) else {}

    def summary(self, entry: Any) -> dict[str, Any]:
        with self._lock:
            found = self._reader(entry.filename).summary_md
        return dict(found or {})

    def close(self) -> None:
        for reader in self._open.values():
            reader.close()

    def _reader(self, name: str) -> Any:
        from ndstorage.ndtiff_file import SingleNDTiffReader

        if name not in self._open:
            self._open[name] = SingleNDTiffReader(str(self._folder / Path(name).name))
        return self._open[name]


def _from_entries(
    path: Path,
    folder: Path,
    entries: Sequence[tuple[dict[str, Any], Any]],
    remarks: tuple[str, ...],
) -> Stack:
    grid, grid_remarks = _grid(entries)
    sizes = {name: len(values) for name, values in grid.items()} or {"time": 1}
    first = entries[0][1]
    dtype = np.dtype("uint8" if first.pixel_type == _EIGHT_BIT else "uint16")
    frame_shape = (int(first.image_height), int(first.image_width))
    require_sizes(path, tuple(sizes.values()), frame_shape, dtype)
    if first.pixel_type == _RGB:
        raise StackError(f"{path}: RGB images; give the camera's own single-channel pixels")
    file_bytes, damaged = _files(folder, entries)
    place_of = {name: {v: i for i, v in enumerate(values)} for name, values in grid.items()}
    images: dict[tuple[int, ...], Any] = {}
    present = np.zeros(tuple(sizes.values()), dtype=np.bool_)
    for axes, image in entries:
        where = tuple(place_of[name][axes.get(name, _NO_VALUE)] for name in grid) or (0,)
        end = image.pix_offset + prod(frame_shape) * dtype.itemsize
        if end <= file_bytes.get(image.filename, 0):
            images[where], present[where] = image, True
    if not images:
        raise StackError(
            f"{path}: none of its {len(entries)} images is there "
            f"({'; '.join(damaged) or 'its files are empty'}); copy the dataset anew"
        )
    readers = _Readers(folder)
    stack = Stack(
        path=path,
        sizes=sizes,
        frame_shape=frame_shape,
        dtype=dtype,
        read=lambda position: readers.image(images[position]),
        present=None if present.all() else present,
        remarks=(*remarks, *grid_remarks, *damaged),
    )
    weakref.finalize(stack.read, readers.close)
    return _described(stack, grid, readers, images)


def _files(
    folder: Path, entries: Sequence[tuple[dict[str, Any], Any]]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the sizes of the files that can be opened, and what is wrong with the others."""
    sizes, remarks = {}, []
    for name in dict.fromkeys(image.filename for _, image in entries):
        file = folder / Path(name).name
        if not file.is_file():
            remarks.append(f"absent: {name} is not there")
        elif len(_head(file)) < 28 or not any(_head(file)):
            remarks.append(f"absent: {name} is empty")
        else:
            sizes[name] = file.stat().st_size
    return sizes, tuple(remarks)


def _described(
    stack: Stack,
    grid: Mapping[str, Sequence[AxisValue]],
    readers: _Readers,
    images: Mapping[tuple[int, ...], Any],
) -> Stack:
    """Add what the dataset says of pixel size, names, camera and times."""
    first = next(iter(images.values()))
    try:
        summary = readers.summary(first)
    except Exception as error:  # its head is damaged: pixels are found by the index all the same
        summary = {}
        stack = replace(
            stack,
            remarks=(*stack.remarks, f"its summary cannot be read ({reason(error, stack.path)})"),
        )
    channels = grid.get("channel", ())
    named = any(isinstance(value, str) for value in channels)
    found = replace(
        stack,
        channel_names=tuple(str(value) for value in channels)
        if named
        else micro_manager.channel_names(summary, len(channels))
        or _names_in_images(readers, images, grid),
        axis_values={
            name: tuple(values)
            for name, values in grid.items()
            if name != "channel" and list(values) != list(range(len(values)))
        },
        attributes=summary,
    )
    return micro_manager.described(found, readers.metadata(first), summary)


def _names_in_images(
    readers: _Readers,
    images: Mapping[tuple[int, ...], Any],
    grid: Mapping[str, Sequence[AxisValue]],
) -> tuple[str, ...]:
    """Return the channels' names by an image of each: before version 3.2 only these have them."""
    if "channel" not in grid:
        return ()
    along = list(grid).index("channel")
    one_of_each = {place[along]: image for place, image in reversed(list(images.items()))}
    said = {i: readers.metadata(image).get("Channel") for i, image in one_of_each.items()}
    names = tuple(str(said.get(i) or "") for i in range(len(grid["channel"])))
    return names if all(names) else ()


# ----------------------------------------------------------------------- versions 1 and 2


def _by_library(path: Path, folder: Path, options: OpenOptions) -> Stack:
    """Open a dataset of the first two versions by the readers that `ndstorage` keeps for them."""
    from ndstorage import Dataset

    top = folder.parent if folder.name == FULL_RESOLUTION else folder
    # The library reports its progress on standard output, which belongs to --json.
    with contextlib.redirect_stdout(io.StringIO()):
        dataset: Any = Dataset(str(top))
    grid = {name: _in_order(found) for name, found in dataset.axes.items()}
    sizes = {name: len(values) for name, values in grid.items()} or {"time": 1}
    require_sizes(path, tuple(sizes.values()), (1, 1), np.dtype("u1"))

    def axes_at(position: tuple[int, ...]) -> dict[str, AxisValue]:
        return {name: grid[name][i] for name, i in zip(grid, position, strict=False)}

    present = np.zeros(tuple(sizes.values()), dtype=np.bool_)
    for position in np.ndindex(*sizes.values()):
        present[position] = bool(dataset.has_image(**axes_at(position)))
    if not present.any():
        raise StackError(f"{path}: lists no image; record at least one frame first")
    start = tuple(int(i) for i in np.argwhere(present)[0])

    def read_image(position: tuple[int, ...]) -> NDArray[Any]:
        return np.asarray(dataset.read_image(**axes_at(position)))

    weakref.finalize(read_image, dataset.close)
    first = read_image(start)
    summary = dict(dataset.summary_metadata or {})
    names = tuple(str(name) for name in dataset.get_channel_names() or ())
    found = Stack(
        path=path,
        sizes=sizes,
        frame_shape=(first.shape[0], first.shape[1]),
        dtype=first.dtype,
        read=read_image,
        channel_names=names if all(names) else (),
        attributes=json.loads(json.dumps(summary, default=str)),
        present=None if present.all() else present,
    )
    return micro_manager.described(found, {}, summary)
