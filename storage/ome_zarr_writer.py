"""Write frames to OME-Zarr as they come: any coordinates, any order, any number.

Owns the OME-NGFF 0.5 layout (Zarr version 3, axes t c z y x, one frame per chunk, positions as
series of the bioformats2raw layout), the mapping of Micro-Manager's axes onto it, and the bound on
writes in flight. ome-writers and its tensorstore backend create and fill the arrays. Reading is
the business of `stacks`; what is written, and when, that of `acquisition` and `inference`.

A chunk file appears under its name in one step and exists only if its frame was written, also
when every pixel is zero. So a killed program loses at most the frames in flight, and
`written_frames` tells what is there. A power cut can also cost what the operating system had not
yet put on the disk; when to ask it to is up to those who write.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray
from ome_writers import AcquisitionSettings, Dimension, OmeZarrFormat
from ome_writers._backends._tensorstore import TensorstoreBackend
from ome_writers._router import FrameRouter

from .atomic_output import (
    MovedAside,
    OutputError,
    jsonable,
    recover,
    require_absent,
    require_zarr_name,
    write_json,
)
from .output_kinds import kind_of_store

Axes = Mapping[str, int | str]
Compression = Literal["blosc-lz4", "blosc-zstd", "zstd", "none"]

MAX_BLOCK = 32
"""Time points by which a fast recording grows at once: each growth rewrites the metadata."""

FAST_GROWTH_S = 0.2
"""Two growths within this time make the next block larger; a slow time-lapse grows one by one."""

MAX_JUMP = 100_000
"""An axis value this far beyond the last one is a label (a time stamp), not an index."""

_AXES_OF_ONE_IMAGE = frozenset({"time", "channel", "camera", "z"})
_Others = tuple[tuple[str, int | str], ...]
_TCZ = tuple[int, int, int]

_CONTEXT = ts.Context({"file_io_sync": False, "cache_pool": {"total_bytes_limit": 0}})
_CHUNK_FILE = re.compile(r"c\.(\d+)\.(\d+)\.(\d+)\.0\.0")
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")


class Place(NamedTuple):
    """Where a frame lies in a store. `position` is None in a store of a single image."""

    position: int | None
    time: int
    channel: int
    z: int

    @property
    def tcz(self) -> tuple[int, int, int]:
        """The index into the image's first three axes."""
        return self.time, self.channel, self.z


class OmeZarrWriter:
    """Write frames (Y, X) to one OME-Zarr store. Used from one thread at a time.

    The store appears with the first frame.

    Parameters
    ----------
    path
        The store to create.
    frame_shape, dtype
        Of every frame: (Y, X) and `uint8`, `uint16` or `float32`.
    pixel_size_um
        Edge of a pixel in the specimen; left out of the metadata when None.
    channel_names
        Channels known beforehand, in the order of their index. Others are added as they come.
    attributes
        Further attributes of every image group, next to `ome`.
    overwrite
        Replace a store of the same kind (a recording, or what was made of one) that is already
        there: it is moved aside when the first frame is written, and goes when this is on the
        disk.
    resume
        Go on with a store that is already there (also one that a killed program left behind).
    max_in_flight
        Writes under way at the same time. More wait in `write`, which bounds the memory.
    compression
        `blosc-lz4`, `blosc-zstd`, `zstd` or `none`; all without loss.
    axis_map
        Numbers the axes; two stores that share one put a frame at the same place. By default
        positions keep the number that they have.

    Raises
    ------
    OutputError
        If the place cannot be written, or holds something that may not be replaced.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        frame_shape: tuple[int, int],
        dtype: str | np.dtype[Any],
        pixel_size_um: float | None = None,
        channel_names: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        max_in_flight: int = 16,
        compression: Compression = "blosc-lz4",
        axis_map: AxisMap | None = None,
    ) -> None:
        self.path = Path(path)
        self.frame_shape = (int(frame_shape[0]), int(frame_shape[1]))
        self.dtype = np.dtype(dtype)
        self.frames_written = 0
        self._axis_map = axis_map or AxisMap(number_as_they_appear=False)
        self._axis_map.know_channels(channel_names)
        self._pixel_size_um = pixel_size_um
        self._attributes = dict(attributes or {})
        self._compression = compression
        self._in_flight = _InFlight(max_in_flight, self._write_error)
        self._images: dict[int, _Image] = {}
        self._closed = False
        try:
            require_zarr_name(self.path)
            recover(self.path, holds_something=_holds_frames(self.path))
            if resume and (self.path / "zarr.json").is_file():
                self._open_existing()
            else:
                kind = kind_of_store(self._attributes)
                require_absent(self.path, overwrite=overwrite, kind=kind)
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names of the channels so far, in the order of their index."""
        return tuple(self._axis_map.channel_names)

    # ------------------------------------------------------------------------- writing

    def write(
        self,
        pixels: NDArray[Any],
        axes: Axes | Place,
        *,
        unchanging: bool = False,
    ) -> None:
        """Write one frame, or wait while too many writes are in flight.

        Parameters
        ----------
        pixels
            (Y, X), not changed.
        axes
            Micro-Manager's axes: `time`, `channel`, `z` become t, c, z; `position` and any other
            axis make a series each; a `camera` counts as part of the channel. Or a place.
        unchanging
            The caller promises never to write to `pixels` again: saves a copy.

        Raises
        ------
        OutputError
            If the frame does not fit, or this or an earlier frame could not be written.
        """
        self._require_fitting(pixels, axes)
        place = self._place(axes)
        begins = not self._images
        try:
            replaced = MovedAside.of(self.path) if begins else None
            self._image(place).write(pixels, place.tcz, unchanging=unchanging)
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error
        self.frames_written += 1
        if replaced is not None:  # it is kept until this frame is there
            self.flush()
            replaced.let_go()

    def holds(self, axes: Axes | Place) -> bool:
        """Whether a frame was written there already."""
        place = self._place(axes)
        image = self._images.get(place.position or 0)
        return image is not None and image.holds(place.tcz)

    def read(self, axes: Axes | Place) -> NDArray[Any] | None:
        """Read back a frame (Y, X) that was written, None if there is none.

        Also after `close`.
        """
        place = self._place(axes)
        if not self.holds(place):
            return None
        if not self._closed:  # then all is there that will ever be
            self._in_flight.wait()
        return self._images[place.position or 0].read(place.tcz)

    def frames_on_disk(self) -> int:
        """Count the frames that are really there, also after a write has failed."""
        return sum(image.frames_on_disk() for image in self._images.values())

    def flush(self) -> None:
        """Wait until every frame is written. Raises OutputError if one could not be."""
        self._in_flight.wait()

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add or replace attributes of every image group, in one visible step each."""
        self._attributes.update(attributes)
        try:
            for image in self._images.values():
                image.update_attributes(self._attributes)
            if self._is_collection:
                self._write_collection()
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error

    def close(self) -> None:
        """Wait for the writes, cut the arrays to the frames there are, release everything.

        May be called more than once. Raises OutputError if a frame could not be written; what was
        written is readable all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._in_flight.wait()
        finally:
            try:
                for image in self._images.values():
                    image.close()
            except (OSError, ValueError) as error:
                raise self._write_error(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except OutputError:
            if error is None:  # the error that is already on its way says more
                raise

    # ----------------------------------------------------------------- images and series

    @property
    def _is_collection(self) -> bool:
        return any(image.path != self.path for image in self._images.values())

    def _place(self, axes: Axes | Place) -> Place:
        return axes if isinstance(axes, Place) else self._axis_map.place(axes)

    def _image(self, place: Place) -> _Image:
        number = place.position or 0
        if place.position is not None and self._images and not self._is_collection:
            self._become_collection()
        if number not in self._images:
            self._add_image(number, alone=place.position is None and not self._images)
        image = self._images[number]
        image.name_channels(self._axis_map.channel_names)
        return image

    def _add_image(self, number: int, *, alone: bool) -> None:
        if number in self._axis_map.position_names:
            attributes = {**self._attributes, "position": self._axis_map.position_names[number]}
        else:
            attributes = self._attributes
        self._images[number] = _Image.create(
            self.path if alone else self.path / str(number),
            self._in_flight,
            frame_shape=self.frame_shape,
            dtype=self.dtype,
            pixel_size_um=self._pixel_size_um,
            attributes=attributes,
            compression=self._compression,
        )
        if not alone:
            self._write_collection()

    def _become_collection(self) -> None:
        """Turn a single image into the first series, when a second position appears."""
        self.flush()
        self._images[0].move(self.path / "0")
        self._write_collection()

    def _write_collection(self) -> None:
        series = [str(number) for number in sorted(self._images)]
        _write_group(self.path / "OME", {"ome": {"version": "0.5", "series": series}})
        _write_group(
            self.path, {"ome": {"version": "0.5", "bioformats2raw.layout": 3}, **self._attributes}
        )

    def _open_existing(self) -> None:
        attributes = _read_attributes(self.path)
        folders = {0: self.path}
        if "bioformats2raw.layout" in attributes.get("ome", {}):
            folders = {int(name): self.path / name for name in _series_names(self.path)}
        for number, folder in folders.items():
            image = _Image.open(folder, self._in_flight)
            if (image.frame_shape, image.dtype) != (self.frame_shape, self.dtype):
                raise OutputError(
                    f"{self.path}: holds frames of {image.frame_shape} {image.dtype}, cannot go "
                    f"on with {self.frame_shape} {self.dtype}; choose another --out"
                )
            self._images[number] = image
            self._axis_map.know_channels(image.channel_names)
            self.frames_written += image.frames
        kept = {k: v for k, v in attributes.items() if k not in {"ome", "ome_writers", "position"}}
        self._attributes = {**kept, **self._attributes}

    # ---------------------------------------------------------------------------- checks

    def _require_fitting(self, pixels: NDArray[Any], axes: Axes | Place) -> None:
        if self._closed:
            raise OutputError(f"{self.path}: is closed; open it again to write more frames")
        if pixels.shape != self.frame_shape or pixels.dtype != self.dtype:
            raise OutputError(
                f"{self.path}: frame {axes} is {pixels.shape} {pixels.dtype}, expected "
                f"{self.frame_shape} {self.dtype}; write frames of another kind to another store"
            )

    def _write_error(self, error: BaseException) -> OutputError:
        if isinstance(error, OutputError):
            return error
        found = _OS_ERROR.search(str(error))
        known = os.strerror(int(found.group(1))) if found else getattr(error, "strerror", None)
        reason = known or str(error)
        return OutputError(
            f"{self.path}: cannot be written ({' '.join(reason.split())}); check the disk's "
            "free space and your right to write there. Frames before this one are kept"
        )


def channel_of(axes: Axes) -> int | str | None:
    """Return the channel of a frame, with its camera's name where there are several cameras."""
    channel, camera = axes.get("channel"), axes.get("camera")
    if camera is None:
        return channel
    return str(camera) if channel is None else f"{channel} {camera}"


class AxisMap:
    """Gives every frame its place, from Micro-Manager's axes.

    Parameters
    ----------
    number_as_they_appear
        Number positions in the order in which they first appear, without gaps. Otherwise a
        position that is a number keeps it.

    Attributes
    ----------
    channel_names
        In the order of their index. A channel that is a number has no name.
    position_names
        Index to a label, for positions that are more than their number.
    """

    def __init__(self, *, number_as_they_appear: bool = True) -> None:
        self.channel_names: list[str] = []
        self.position_names: dict[int, str] = {}
        self._as_they_appear = number_as_they_appear
        self._positions: dict[_Others, int] = {}
        self._next_position = 0
        self._labels: dict[str, dict[int | str, int]] = {}
        self._sizes: dict[str, int] = {}

    def know_channels(self, names: Sequence[str]) -> None:
        """Add channel names that are not known yet."""
        self.channel_names += [str(name) for name in names if str(name) not in self.channel_names]

    def place(self, axes: Axes) -> Place:
        """Return the place of a frame with these axes; the same axes, the same place."""
        others = tuple(
            sorted((k, _plain(v)) for k, v in axes.items() if k not in _AXES_OF_ONE_IMAGE)
        )
        return Place(
            position=self._position(others),
            time=self._index("time", axes.get("time", 0)),
            channel=self._channel(channel_of(axes)),
            z=self._index("z", axes.get("z", 0)),
        )

    def _position(self, others: _Others) -> int | None:
        value = others[0][1] if len(others) == 1 and others[0][0] == "position" else None
        is_index = isinstance(value, int) and value >= 0 and not self._as_they_appear
        if is_index and value not in self._positions.values():
            self._next_position = max(self._next_position, int(value or 0) + 1)
            return int(value or 0)
        if others not in self._positions:
            number = self._next_position
            self._positions[others] = number
            self._next_position = number + 1
            if value != number and others:
                self.position_names[number] = ", ".join(f"{k} {v}" for k, v in others)
        only_one = self._next_position == 1
        return None if not others and only_one else self._positions[others]

    def _channel(self, name: int | str | None) -> int:
        if not isinstance(name, str):
            return self._index("channel", name or 0)
        if name not in self.channel_names:
            # A channel that so far was but a number keeps its place.
            numbered = range(len(self.channel_names), self._sizes.get("channel", 0))
            self.know_channels([*(str(number) for number in numbered), name])
        return self.channel_names.index(name)

    def _index(self, axis: str, value: int | str) -> int:
        """Return a number as it is; a label gets the next number when it first appears."""
        size = self._sizes.get(axis, 0)
        labels = self._labels.setdefault(axis, {})
        plain = _plain(value)
        is_index = isinstance(plain, int) and 0 <= plain < size + MAX_JUMP
        if is_index and plain not in labels and plain not in labels.values():
            self._sizes[axis] = max(size, int(plain) + 1)
            return int(plain)
        if plain not in labels:
            labels[plain] = size
            self._sizes[axis] = size + 1
        return labels[plain]


# ------------------------------------------------------------------------------- reading


def written_frames(path: Path | str) -> NDArray[np.bool_] | None:
    """Tell which frames of a store were really written.

    A recording that was killed or aborted has places without a frame; readers see zeros there.

    Returns
    -------
    (T, C, Z) or, with several series, (P, T, C, Z) booleans in the order of `stacks.Stack.sizes`;
    None if the store was not written by `OmeZarrWriter`, so that nobody can tell.
    """
    path = Path(path)
    try:
        ome = _read_attributes(path).get("ome", {})
        if "bioformats2raw.layout" in ome:
            parts = [_written_chunks(path / n / "0") for n in sorted(_series_names(path), key=int)]
            return np.stack(parts)
        return _written_chunks(path / "0")
    except (OSError, ValueError, KeyError):
        return None


def _holds_frames(path: Path) -> bool:
    written = written_frames(path)
    return path.exists() and (written is None or bool(written.any()))


def _written_chunks(array: Path) -> NDArray[np.bool_]:
    description = json.loads((array / "zarr.json").read_text(encoding="utf-8"))
    separator = description["chunk_key_encoding"]["configuration"]["separator"]
    if separator != "." or len(description["shape"]) != 5:
        raise ValueError(f"{array}: not written by OmeZarrWriter")
    written = np.zeros(description["shape"][:3], dtype=np.bool_)
    for place in _chunk_places(array):
        if all(i < n for i, n in zip(place, written.shape, strict=True)):
            written[place] = True
    return written


def _chunk_places(array: Path) -> Iterator[_TCZ]:
    with os.scandir(array) as files:
        for file in files:
            found = _CHUNK_FILE.fullmatch(file.name)
            # A power cut leaves files whose content had not reached the disk: empty ones.
            if found and file.stat().st_size:
                t, c, z = (int(number) for number in found.groups())
                yield t, c, z


# ------------------------------------------------------------------------------ one image


class _Image:
    """One image group: five axes, and which of its frames were written."""

    def __init__(self, path: Path, backend: _Backend, written: NDArray[np.bool_]) -> None:
        self.path = path
        self._backend = backend
        self._written = written
        self._named_channels = 0
        self._closed_array: Any = None

    @classmethod
    def create(
        cls,
        path: Path,
        in_flight: _InFlight,
        *,
        frame_shape: tuple[int, int],
        dtype: np.dtype[Any],
        pixel_size_um: float | None,
        attributes: Mapping[str, Any],
        compression: Compression,
    ) -> _Image:
        space: dict[str, Any] = {"type": "space"}
        if pixel_size_um:
            space |= {"unit": "micrometer", "scale": pixel_size_um}
        settings = AcquisitionSettings(
            root_path=str(path),
            # The path is a series of a collection as often as a store of its own.
            format=OmeZarrFormat(backend="tensorstore", suffix=path.suffix and ".ome.zarr"),
            dimensions=(
                Dimension(name="t", count=None, type="time"),
                Dimension(name="c", count=1, type="channel"),
                Dimension(name="z", count=1, type="space"),
                Dimension(name="y", count=frame_shape[0], **space),
                Dimension(name="x", count=frame_shape[1], **space),
            ),
            dtype=dtype.name,
            compression=compression,
        )
        backend = _Backend(in_flight, path)
        backend.prepare(settings, FrameRouter(settings))
        image = cls(path, backend, np.zeros((1, 1, 1), dtype=np.bool_))
        image.update_attributes(attributes)
        return image

    @classmethod
    def open(cls, path: Path, in_flight: _InFlight) -> _Image:
        try:
            written = _written_chunks(path / "0")
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(
                f"{path}: cannot be resumed, it was not written by quietscope or is damaged "
                f"({error}); choose another --out"
            ) from error
        backend = _Backend(in_flight, path)
        backend.reopen()
        return cls(path, backend, written)

    @property
    def frames(self) -> int:
        return int(self._written.sum())

    @property
    def frame_shape(self) -> tuple[int, int]:
        y, x = self._backend.array.shape[-2:]
        return int(y), int(x)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._backend.array.dtype.numpy_dtype)
        return dtype

    @property
    def channel_names(self) -> list[str]:
        channels = self._backend.get_metadata()["."]["ome"].get("omero", {}).get("channels", [])
        return [str(channel["label"]) for channel in channels]

    def holds(self, place: _TCZ) -> bool:
        inside = all(i < n for i, n in zip(place, self._written.shape, strict=True))
        return inside and bool(self._written[place])

    def write(self, pixels: NDArray[Any], place: _TCZ, *, unchanging: bool) -> None:
        # Noted first: writing may raise for an earlier frame, and this one gets to the disk yet.
        if any(i >= n for i, n in zip(place, self._written.shape, strict=True)):
            self._make_room(place)
        self._written[place] = True
        self._backend.unchanging = unchanging
        self._backend.write(0, place, pixels)

    def read(self, place: _TCZ) -> NDArray[Any]:
        array = self._backend.array if self._closed_array is None else self._closed_array
        return np.asarray(array[place].read().result())

    def frames_on_disk(self) -> int:
        return sum(1 for _ in _chunk_places(self.path / "0"))

    def name_channels(self, names: Sequence[str]) -> None:
        if len(names) <= self._named_channels:
            return
        self._named_channels = len(names)
        attributes = self._backend.get_metadata()["."]
        attributes["ome"]["omero"] = {"channels": [_omero(name, self.dtype) for name in names]}
        self._backend.update_metadata({".": attributes})

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        self._backend.update_metadata(
            {".": {**self._backend.get_metadata()["."], **jsonable(attributes)}}
        )

    def move(self, target: Path) -> None:
        """Move this image, the only one of its store, into a folder of that store."""
        source = self.path
        attributes = self._backend.get_metadata()["."]
        staging = source / ".moving"
        (source / "0").replace(staging)
        target.mkdir()
        staging.replace(target / "0")
        _write_group(target, attributes)
        self.path = target
        self._backend.relocate(target)

    def close(self) -> None:
        extent = np.argwhere(self._written).max(axis=0, initial=0) + 1
        self._backend.trim([int(n) for n in extent])
        self._closed_array = self._backend.array
        self._backend.finalize()

    def _make_room(self, place: _TCZ) -> None:
        """Double an axis that is too short, so that a frame costs no copy of what is known."""
        needed = [
            max(n, 2 * i) if i >= n else n for i, n in zip(place, self._written.shape, strict=True)
        ]
        larger = np.zeros([max(n, i + 1) for n, i in zip(needed, place, strict=True)], np.bool_)
        larger[tuple(slice(n) for n in self._written.shape)] = self._written
        self._written = larger


class _Backend(TensorstoreBackend):
    """ome-writers' backend with bounded writes, flat chunk names and growth in blocks."""

    def __init__(self, in_flight: _InFlight, path: Path) -> None:
        super().__init__()
        self.unchanging = False
        self._bounded = in_flight
        self._folder = path
        self._block = 1
        self._last_growth_s = -FAST_GROWTH_S

    @property
    def array(self) -> Any:
        return self._arrays[0]

    def reopen(self) -> None:
        """Take up an image that exists."""
        self._finalized = False
        self._root = self._folder
        self._image_group_paths = ["."]
        self._arrays = [_open_array(self._folder / "0")]
        self._cache_metadata_from_arrays(self._folder)
        self._cache_root_meta_mirror(self._folder)

    def relocate(self, folder: Path) -> None:
        self._folder = folder
        self.reopen()

    def trim(self, extent: Sequence[int]) -> None:
        """Cut the axes t, c, z to the frames that were written; named channels stay."""
        channels = self.get_metadata()["."]["ome"].get("omero", {}).get("channels", ())
        t, c, z = extent
        shape = [t, max(c, len(channels)), z, *self.array.shape[-2:]]
        if shape != list(self.array.shape):
            self._resize(self.array, shape)

    def _get_yaozarrs_writer(self) -> Callable[..., Any]:  # type: ignore[override]
        return _create_array

    def _write(self, array: Any, index: tuple[int, ...], frame: NDArray[Any]) -> None:
        writing = array[index].write(frame, can_reference_source_data_indefinitely=self.unchanging)
        if not self.unchanging:
            writing.copy.result()
        self._bounded.add(writing)

    def _resize(self, array: Any, new_shape: Sequence[int]) -> None:
        # The handle that resize() returns knows the new shape; the old one would shrink it again.
        resized = array.resize(exclusive_max=new_shape, resize_metadata_only=True)
        self._arrays[0] = resized.result()

    def _ensure_array_size(self, position_index: int, indices: Sequence[tuple[int, ...]]) -> None:
        shape = self.array.shape
        needed = [max(at) + 1 for at in zip(*indices, strict=True)]
        if all(n <= size for n, size in zip(needed, shape, strict=False)):
            return
        now = time.monotonic()
        fast = now - self._last_growth_s < FAST_GROWTH_S
        self._block = min(2 * self._block, MAX_BLOCK) if fast else 1
        self._last_growth_s = now
        if needed[0] > shape[0]:
            needed[0] += self._block - 1
        larger = [max(n, size) for n, size in zip(needed, shape, strict=False)]
        self._resize(self.array, [*larger, *shape[-2:]])


class _InFlight:
    """Writes under way; adding one too many waits for the oldest.

    The first error is raised again in every thread that comes later: the one that meets it may
    only have read a frame back.
    """

    def __init__(self, limit: int, on_error: Callable[[BaseException], OutputError]) -> None:
        self._limit = max(1, limit)
        self._on_error = on_error
        self._futures: deque[Any] = deque()
        self._error: OutputError | None = None

    def add(self, future: Any) -> None:
        self._futures.append(future)
        while len(self._futures) > self._limit:
            self._finish_oldest()
        self._require_no_error()

    def wait(self) -> None:
        """Wait for all; raises the first error after every other write has ended too."""
        while self._futures:
            self._finish_oldest()
        self._require_no_error()

    def _finish_oldest(self) -> None:
        try:
            oldest = self._futures.popleft()
        except IndexError:
            return  # another thread that reads back waits for it
        try:
            oldest.result()
        except Exception as error:  # tensorstore raises what its drivers raise
            if self._error is None:
                self._error = self._on_error(error)
                self._error.__cause__ = error

    def _require_no_error(self) -> None:
        if self._error is not None:
            raise self._error


# ----------------------------------------------------------------------- Zarr's own files


def _create_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    *,
    compression: str,
    dimension_names: list[str] | None,
    **_: Any,
) -> Any:
    """Create an array whose chunks are files of one folder.

    The nested default costs four folders per frame, half the speed for small frames.
    """
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if compression.startswith("blosc-"):
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
    metadata = {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "codecs": codecs,
        "fill_value": 0,
        "dimension_names": dimension_names,
    }
    return _open_array(path, metadata=metadata, create=True)


def _open_array(path: Path, **details: Any) -> Any:
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path)},
        "store_data_equal_to_fill_value": True,
        **details,
    }
    return ts.open(spec, context=_CONTEXT, open=not details).result()


def _write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    write_json(
        folder / "zarr.json",
        {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)},
    )


def _read_attributes(folder: Path) -> dict[str, Any]:
    description = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    attributes: dict[str, Any] = description.get("attributes", {})
    return attributes


def _series_names(path: Path) -> list[str]:
    return [str(name) for name in _read_attributes(path / "OME")["ome"]["series"]]


def _omero(name: str, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Describe a channel as `omero` wants it: without a window viewers guess or fail."""
    top = 65535.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    window = {"min": 0.0, "max": top, "start": 0.0, "end": top}
    return {"label": name, "color": "FFFFFF", "active": True, "window": window}


def _plain(value: int | str) -> int | str:
    return value if isinstance(value, str) else int(value)
