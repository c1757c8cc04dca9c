"""Open any image stack lazily, with named axes.

Owns the reading side of OME-Zarr 0.4 and 0.5, plain Zarr, TIFF, OME-TIFF and NDTiff, on disk or,
but for NDTiff, at a URL. A stack is a list of two-dimensional frames in a known order; pixels are
read only when asked for. Writing lives in `acquisition` and `inference`.
"""

from __future__ import annotations

import contextlib
import io
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QuietscopeError, one_line
from .readers.zarr_chunks import present_frames
from .urls import UrlPath, exists, is_url, joined, local_path, open_file, query_apart

PIXEL_TYPES = ("uint8", "uint16", "float32")
"""What a frame may be made of. Anything else is refused by name."""
TIFF_SUFFIXES = (".tif", ".tiff")
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")
LARGEST_BLOCK_BYTES = 64 * 2**20
BLOCKS_HELD = 4
"""A channel, its context and other channels lie in blocks of their own, and are read in turns."""
RAW = "raw.ome.zarr"
"""What a run directory records."""

FrameAxes = Mapping[str, int]


class StackError(QuietscopeError, ValueError):
    """A file or array that is no usable image stack."""


class AbsentFrameError(StackError):
    """A frame that the recording has a place for but does not hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Frames (Y, X) in a fixed order, read one at a time.

    Attributes
    ----------
    path
        Where the pixels come from; only for messages and provenance. Of a URL without credentials.
    sizes
        Axis name to length for every axis but y and x, in storage order. Names are `time`,
        `channel`, `z`, `position`, as in Micro-Manager.
    frame_shape
        (Y, X) in pixels.
    dtype
        One of PIXEL_TYPES.
    read
        Reads one frame, given an index per axis of `sizes`, in that order.
    pixel_size_um, channel_names, attributes
        What the file says; None, () and {} where it says nothing.
    present
        Which frames are there, of the shape of `sizes`; None where all are. A killed or aborted
        recording has places without a frame: they are never read as images, and everything that
        goes through a stack leaves them out.
    """

    path: Path
    sizes: Mapping[str, int]
    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    read: Callable[[tuple[int, ...]], NDArray[Any]]
    pixel_size_um: float | None = None
    channel_names: tuple[str, ...] = ()
    attributes: Mapping[str, Any] | None = None
    present: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Return the size of the whole grid, absent frames included."""
        return prod(self.sizes.values())

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self.frame(int(index)) for index in self.present_indices)

    def is_present(self, index: int) -> bool:
        """Whether frame `index` is there."""
        return self.present is None or bool(self.present.flat[index])

    @property
    def present_indices(self) -> NDArray[np.intp]:
        """The indices of the frames that are there, in order."""
        return np.arange(len(self)) if self.present is None else np.flatnonzero(self.present)

    @property
    def absent(self) -> int:
        """How many frames of the grid are not there."""
        return 0 if self.present is None else int(self.present.size - self.present.sum())

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """What its channels are called: their names, or their numbers where they have none."""
        return self.channel_names or tuple(str(i) for i in range(self.sizes.get("channel", 1)))

    @property
    def bytes(self) -> int:
        """Size of all frames in memory."""
        return len(self) * prod(self.frame_shape) * self.dtype.itemsize

    def axes(self, index: int) -> dict[str, int]:
        """Return the axes of frame `index`: {'time': 3, 'channel': 0, …}."""
        position = np.unravel_index(index, tuple(self.sizes.values()))
        return {name: int(i) for name, i in zip(self.sizes, position, strict=True)}

    def index(self, axes: FrameAxes) -> int:
        """Return the place of the frame with these axes in the stack's order."""
        position = tuple(axes[name] for name in self.sizes)
        return int(np.ravel_multi_index(position, tuple(self.sizes.values())))

    def frame(self, index: int) -> NDArray[Any]:
        """Read frame `index` as (Y, X).

        Raises
        ------
        IndexError
            If there is no such frame.
        AbsentFrameError
            If the recording has a place for it but does not hold it.
        StackError
            If it cannot be read, or holds NaN or infinity.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: no frame {index}, there are {len(self)}")
        if not self.is_present(index):
            raise AbsentFrameError(
                f"{self.path}: frame {index} ({self.axes(index)}) was never recorded; leave it "
                f"out, {len(self) - self.absent} of {len(self)} frames are there"
            )
        try:
            pixels = self.read(tuple(self.axes(index).values()))
        except QuietscopeError:
            raise
        except Exception as error:  # a disk, a network or a decoder, each with errors of its own
            raise StackError(
                f"{self.path}: frame {index} cannot be read ({_reason(error, self.path)}); check "
                "the disk or the connection, or copy the recording anew"
            ) from error
        if self.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise StackError(
                f"{self.path}: frame {index} holds NaN or infinite pixels; a camera never "
                "writes those, so give the raw recording or replace them first"
            )
        return pixels

    def frames(self, indices: Sequence[int]) -> NDArray[Any]:
        """Read several frames as one array (N, Y, X)."""
        out = np.empty((len(indices), *self.frame_shape), dtype=self.dtype)
        for row, index in enumerate(indices):
            out[row] = self.frame(index)
        return out

    def preceding(self, index: int, count: int) -> list[int | None]:
        """Return the `count` frames before `index` in time, newest first.

        Same channel, plane and position; None where the recording had not begun, or the frame is
        absent.
        """
        if "time" not in self.sizes:
            return [None] * count
        names, lengths = list(self.sizes), list(self.sizes.values())
        stride = prod(lengths[names.index("time") + 1 :])
        now = index // stride % self.sizes["time"]
        earlier = (index - back * stride if back <= now else None for back in range(1, count + 1))
        return [i if i is not None and self.is_present(i) else None for i in earlier]

    def observations(self, index: int, context_frames: int) -> NDArray[Any]:
        """Read frame `index` and what came before it as (1 + T, Y, X), newest first.

        Frames that are not there are zeros, as `Denoiser.denoise` expects them.
        """
        out = np.zeros((1 + context_frames, *self.frame_shape), dtype=self.dtype)
        out[0] = self.frame(index)
        for row, earlier in enumerate(self.preceding(index, context_frames), start=1):
            if earlier is not None:
                out[row] = self.frame(earlier)
        return out

    def channel(self, channel: int) -> Stack:
        """Return the frames of one channel as a stack without that axis."""
        if "channel" not in self.sizes:
            return self
        names = list(self.sizes)
        place = names.index("channel")
        read = self.read

        def read_channel(position: tuple[int, ...]) -> NDArray[Any]:
            return read((*position[:place], channel, *position[place:]))

        return replace(
            self,
            sizes={n: s for n, s in self.sizes.items() if n != "channel"},
            read=read_channel,
            channel_names=self.channel_names[channel : channel + 1],
            present=None if self.present is None else self.present.take(channel, axis=place),
        )


def stack_from_array(
    pixels: NDArray[Any],
    *,
    path: Path | str = "array",
    axes: Sequence[str] = ("time",),
    present: NDArray[np.bool_] | None = None,
) -> Stack:
    """Wrap an array (…, Y, X) whose leading axes are named by `axes`."""
    if pixels.ndim != len(axes) + 2:
        raise StackError(
            f"{path}: an array of shape {pixels.shape} does not have the axes {(*axes, 'y', 'x')}"
        )
    return _checked(
        Stack(
            path=Path(path),
            sizes=dict(zip(axes, pixels.shape, strict=False)),
            frame_shape=(pixels.shape[-2], pixels.shape[-1]),
            dtype=pixels.dtype,
            read=lambda position: np.asarray(pixels[position]),
            present=present,
        )
    )


def open_stack(path: Path | str) -> Stack:
    """Open the image stack at `path`.

    Accepts an OME-Zarr image (0.4, 0.5; several positions in the bioformats2raw layout), a plain
    Zarr array, a TIFF or OME-TIFF file, an NDTiff folder of Micro-Manager, or a run directory
    (its `raw.ome.zarr`). All but NDTiff may also lie at a URL that fsspec can open, as s3:// or
    https://, given as a string; credentials in it are used and kept nowhere.

    Raises
    ------
    StackError
        If nothing is there, it holds no frames, or its pixels are of another type.
    UrlError
        If fsspec cannot open such URLs here.
    """
    url = None
    if is_url(path):
        path = local_path(str(path)) or (url := str(path))
    if url is not None:
        return _opened(UrlPath(url), lambda place: _open_url(place, url))
    path = Path(path)
    if not path.exists():
        raise StackError(f"{path}: no such file or folder; give an OME-Zarr, Zarr, TIFF or NDTiff")
    return _opened(path, _reader_for(path))


def _opened(path: Path, reader: Callable[[Path], Stack]) -> Stack:
    try:
        return _checked(reader(path))
    except QuietscopeError:
        raise
    except Exception as error:  # a broken file can fail anywhere inside a reader
        raise StackError(
            f"{path}: cannot be read as an image stack ({_reason(error, path)}); expected "
            "OME-Zarr, Zarr, TIFF or NDTiff"
        ) from error


def _reason(error: Exception, path: Path) -> str:
    name = type(error).__name__
    quotes = isinstance(path, UrlPath) and path.hides_credentials
    return name if quotes else f"{name}: {one_line(error)}"


def _open_url(place: Path, url: str) -> Stack:
    if place.suffix.lower() in TIFF_SUFFIXES:
        return _open_tiff(place, open_file(url))
    for zarr in (url, joined(url, RAW)):
        if any(exists(zarr, name) for name in ZARR_FILES):
            return _open_zarr(place if zarr == url else place / RAW, zarr)
    raise StackError(
        f"{place}: neither a Zarr, a TIFF nor a recorded run is there, or it may not be read: "
        "check address, connection and credentials"
    )


def _reader_for(path: Path) -> Callable[[Path], Stack]:
    if path.is_file():
        if path.suffix.lower() in TIFF_SUFFIXES:
            return lambda path: _open_tiff(path, path)
        raise StackError(f"{path}: expected a TIFF file or a folder holding Zarr or NDTiff")
    if (path / RAW).is_dir():
        return lambda run: open_stack(run / RAW)
    if (path / "NDTiff.index").is_file():
        return _open_ndtiff
    if any((path / name).is_file() for name in ZARR_FILES):
        return lambda path: _open_zarr(path, str(path))
    raise StackError(f"{path}: this folder holds no Zarr, no NDTiff and no recorded run")


def _checked(stack: Stack) -> Stack:
    if stack.dtype.name not in PIXEL_TYPES:
        raise StackError(
            f"{stack.path}: pixels are {stack.dtype.name}, expected one of "
            f"{', '.join(PIXEL_TYPES)}; convert the stack first"
        )
    if len(stack) == 0 or 0 in stack.frame_shape:
        raise StackError(f"{stack.path}: the stack is empty; record at least one frame first")
    if stack.present is not None and stack.present.shape != tuple(stack.sizes.values()):
        raise StackError(
            f"{stack.path}: which frames are there is told for {stack.present.shape}, expected "
            f"{tuple(stack.sizes.values())}"
        )
    if stack.absent == len(stack):
        raise StackError(f"{stack.path}: holds no frame; record at least one frame first")
    return stack


# ---------------------------------------------------------------------------------- TIFF

_TIFF_AXES = {"T": "time", "C": "channel", "Z": "z", "R": "position", "I": "time", "Q": "time"}


def _open_tiff(path: Path, source: Path | IO[bytes]) -> Stack:
    import tifffile
    import zarr

    with tifffile.TiffFile(_rewound(source)) as file:
        series = file.series[0]
        letters, shape = series.axes, series.shape
        dtype = np.dtype(series.dtype)
        if "S" in letters:
            raise StackError(f"{path}: an RGB image; give the camera's own single-channel pixels")
        names = _named_tiff_axes(path, letters)
        pixel_size = _tiff_pixel_size_um(file)
        store: Any = file.aszarr(read_only=True)
    if names:
        array: Any = zarr.open_array(store=store, mode="r")
        # The file is let go with the stack: Windows cannot move or delete what is open.
        weakref.finalize(array, store.close)

    def read(position: tuple[int, ...]) -> NDArray[Any]:
        pixels = array[position] if names else tifffile.imread(_rewound(source))
        return np.ascontiguousarray(pixels, dtype.newbyteorder("="))

    return Stack(
        path=path,
        sizes=dict(zip(names, shape, strict=False)) if names else {"time": 1},
        frame_shape=(shape[-2], shape[-1]),
        dtype=dtype.newbyteorder("="),
        read=read,
        pixel_size_um=pixel_size,
    )


def _rewound(source: Path | IO[bytes]) -> Path | IO[bytes]:
    if not isinstance(source, Path):
        source.seek(0)
    return source


def _named_tiff_axes(path: Path, letters: str) -> list[str]:
    if not letters.endswith("YX"):
        raise StackError(f"{path}: its axes are {letters}, expected frames (…YX)")
    names = [_TIFF_AXES.get(letter, letter.lower()) for letter in letters[:-2]]
    if len(set(names)) != len(names):
        raise StackError(f"{path}: its axes {letters} name one dimension twice")
    return names


def _tiff_pixel_size_um(file: Any) -> float | None:
    metadata = file.imagej_metadata or {}
    resolution = file.pages[0].tags.get("XResolution")
    if metadata.get("unit") not in {"um", "micron", "µm", "\\u00B5m"} or resolution is None:
        return None
    numerator, denominator = resolution.value
    return denominator / numerator if numerator else None


# ---------------------------------------------------------------------------------- Zarr

_OME_AXES = {"t": "time", "c": "channel", "z": "z", "p": "position"}
_PLAIN_AXES: dict[int, tuple[str, ...]] = {
    2: (),
    3: ("time",),
    4: ("time", "channel"),
    5: ("time", "channel", "z"),
}


def _open_zarr(path: Path, place: str) -> Stack:
    import zarr

    bare, options = query_apart(place)
    node = zarr.open(bare, mode="r", storage_options=options)
    if isinstance(node, zarr.Array):
        return _from_zarr_array(path, node, _plain_axes(path, node.ndim))
    attributes = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    if "multiscales" in ome:
        return _from_multiscale(path, node, attributes)
    if "bioformats2raw.layout" in ome:
        return _from_positions(path, node)
    raise StackError(f"{path}: a Zarr group without OME metadata; give the array inside it")


def _plain_axes(path: Path, dimensions: int) -> tuple[str, ...]:
    if dimensions not in _PLAIN_AXES:
        raise StackError(f"{path}: a Zarr array of {dimensions} dimensions, expected 2 to 5")
    return _PLAIN_AXES[dimensions]


def _from_zarr_array(path: Path, array: Any, names: Sequence[str], **details: Any) -> Stack:
    return Stack(
        path=path,
        sizes=dict(zip(names, array.shape, strict=False)) if names else {"time": 1},
        frame_shape=(array.shape[-2], array.shape[-1]),
        dtype=np.dtype(array.dtype).newbyteorder("="),
        read=_frame_reader(array) if names else lambda _: np.asarray(array[...]),
        present=present_frames(array) if names else None,
        **details,
    )


def _frame_reader(array: Any) -> Callable[[tuple[int, ...]], NDArray[Any]]:
    """Return what reads one frame of a Zarr array (…, Y, X).

    Where a chunk holds several frames, all are decoded for one: they are kept for the next ones.
    """
    block = array.chunks[:-2]
    frames = prod(block)
    block_bytes = int(frames * prod(array.shape[-2:]) * array.dtype.itemsize)
    if frames == 1 or block_bytes > LARGEST_BLOCK_BYTES:
        return lambda position: np.asarray(array[position])

    # Two of the largest blocks at most, more of smaller ones.
    @lru_cache(maxsize=min(BLOCKS_HELD, 2 * LARGEST_BLOCK_BYTES // block_bytes))
    def read_block(corner: tuple[int, ...]) -> NDArray[Any]:
        where = (slice(start, start + size) for start, size in zip(corner, block, strict=True))
        return np.asarray(array[tuple(where)])

    def read(position: tuple[int, ...]) -> NDArray[Any]:
        corner = tuple(i // size * size for i, size in zip(position, block, strict=True))
        within = tuple(i - start for i, start in zip(position, corner, strict=True))
        return np.array(read_block(corner)[within])

    return read


def _from_multiscale(path: Path, group: Any, attributes: Mapping[str, Any]) -> Stack:
    ome = attributes.get("ome", attributes)
    multiscale = ome["multiscales"][0]
    letters = [axis["name"] if isinstance(axis, dict) else axis for axis in multiscale["axes"]]
    if letters[-2:] != ["y", "x"]:
        raise StackError(f"{path}: its axes are {letters}, expected … y x")
    dataset = multiscale["datasets"][0]
    array = group[dataset["path"]]
    return _from_zarr_array(
        path,
        array,
        [_OME_AXES.get(letter, letter) for letter in letters[:-2]],
        pixel_size_um=_ome_pixel_size_um(multiscale, dataset),
        channel_names=tuple(
            str(channel.get("label", "")) for channel in ome.get("omero", {}).get("channels", [])
        ),
        attributes=attributes,
    )


def _ome_pixel_size_um(multiscale: Mapping[str, Any], dataset: Mapping[str, Any]) -> float | None:
    axis = multiscale["axes"][-1]
    if not isinstance(axis, dict) or axis.get("unit") != "micrometer":
        return None
    scales = [t["scale"] for t in dataset["coordinateTransformations"] if t["type"] == "scale"]
    return float(scales[0][-1]) if scales else None


def _from_positions(path: Path, group: Any) -> Stack:
    names = sorted((name for name, _ in group.groups() if name != "OME"), key=_natural)
    images = [_from_multiscale(path / n, group[n], dict(group[n].attrs)) for n in names]
    if not images:
        raise StackError(f"{path}: holds no image; record at least one frame first")
    first = images[0]
    if any(_kind(image) != _kind(first) for image in images):
        raise StackError(
            f"{path}: its positions differ in frame shape, pixel type or axes; give one of them: "
            f"{', '.join(islice(names, 4))} …"
        )
    # A recording that was stopped in mid-round has positions of unequal length.
    sizes = {name: max(image.sizes[name] for image in images) for name in first.sizes}
    present = np.stack([_padded(image, sizes) for image in images])
    return Stack(
        path=path,
        sizes={"position": len(images), **sizes},
        frame_shape=first.frame_shape,
        dtype=first.dtype,
        read=lambda position: images[position[0]].read(position[1:]),
        pixel_size_um=first.pixel_size_um,
        channel_names=max((image.channel_names for image in images), key=len),
        attributes=dict(group.attrs),
        present=None if present.all() else present,
    )


def _kind(image: Stack) -> tuple[object, ...]:
    return tuple(image.sizes), image.frame_shape, image.dtype


def _padded(image: Stack, sizes: Mapping[str, int]) -> NDArray[np.bool_]:
    """Return which frames of an image are there, in a grid that may be larger than its own."""
    there = np.zeros(tuple(sizes.values()), dtype=np.bool_)
    there[tuple(slice(n) for n in image.sizes.values())] = (
        True if image.present is None else image.present
    )
    return there


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 30, name)


# -------------------------------------------------------------------------------- NDTiff


def _open_ndtiff(path: Path) -> Stack:
    from ndstorage import Dataset

    # The library reports its progress on standard output, which belongs to --json.
    with contextlib.redirect_stdout(io.StringIO()):
        dataset: Any = Dataset(str(path))
    values = _axes_in_order(dataset)
    names = list(values)

    def read(position: tuple[int, ...]) -> NDArray[Any]:
        axes = {name: values[name][i] for name, i in zip(names, position, strict=False)}
        if not dataset.has_image(**axes):
            raise StackError(f"{path}: has no image at {axes}; the acquisition is incomplete")
        return np.asarray(dataset.read_image(**axes))

    weakref.finalize(read, dataset.close)
    first = read(tuple(0 for _ in names))
    return Stack(
        path=path,
        sizes={name: len(found) for name, found in values.items()} or {"time": 1},
        frame_shape=(first.shape[0], first.shape[1]),
        dtype=first.dtype,
        read=read,
        channel_names=tuple(str(name) for name in values.get("channel", [])),
        attributes=dict(dataset.summary_metadata or {}),
    )


def _axes_in_order(dataset: Any) -> dict[str, list[int | str]]:
    """Return what each axis holds: numbers by size, names as they arrived.

    The library sorts names and, of a recording on disk, tells no channel names; its list of images
    is in the order in which they were saved.
    """
    # Recordings of the format's first two versions have no such list.
    images: list[Mapping[str, int | str]] = getattr(dataset, "get_image_coordinates_list", list)()
    return {
        name: _in_order(found, [axes[name] for axes in images if name in axes])
        for name, found in dataset.axes.items()
    }


def _in_order(values: Iterable[int | str], arrived: Sequence[int | str]) -> list[int | str]:
    found = list(values)
    if all(isinstance(value, int) for value in found):
        return sorted(found)
    return list(dict.fromkeys([*arrived, *sorted(found, key=str)]))
