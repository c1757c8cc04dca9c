"""An array as a recording, and a result in the form of the array.

Owns which dimension is which. Arrays are read frame by frame, so that those of zarr and dask need
not fit into memory; nothing is known here of denoising.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..storage.open_options import OpenOptions, axis_words
from ..storage.open_stack import open_stack
from ..storage.stack import FEW_ROWS, PIXEL_TYPES, Stack, checked
from .errors import ArrayError, ArrayTypeError

DEFAULT_AXES = {2: ("y", "x"), 3: ("time", "y", "x")}
IN_MEMORY = Path("array in memory")
"""In place of a file's name in messages and in the records of models."""

Axes = str | Sequence[str]


@runtime_checkable
class ArrayLike(Protocol):
    """What numpy, zarr, dask and xarray have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        ...

    @property
    def dtype(self) -> Any:
        """Of the elements."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Return a part."""
        ...


Recording = ArrayLike | Stack | Path | str
"""What functions take as a recording: an array, something opened, or where it lies."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayStack:
    """A recording and how to give a result the form that it came in.

    Attributes
    ----------
    stack
        Its frames.
    axes
        Name of each dimension of the array; those of `stack`, y and x for what was no array.
    array
        The array itself; None for what was none.
    """

    stack: Stack
    axes: tuple[str, ...]
    array: Any = None

    def shaped(self, pixels: Any) -> Any:
        """Return a result (…, Y, X) along the stack's axes with the array's order of dimensions.

        xarray's keep names, coordinates and attributes.
        """
        if pixels.ndim > len(self.axes):
            pixels = pixels[0]  # the time point that a single image was given
        own = [name for name in (*self.stack.sizes, "y", "x") if name in self.axes]
        if own != list(self.axes):
            pixels = pixels.transpose([own.index(name) for name in self.axes])
        if not _is_xarray(self.array):
            return pixels
        return self.array.copy(data=pixels)


def as_stack(recording: Recording, axes: Axes | None = None) -> ArrayStack:
    """Return a recording that is an array, a stack or a path.

    Parameters
    ----------
    recording
        An array of numpy, zarr, dask or xarray of uint8, uint16 or float32 in the camera's units;
        a `Stack`; or the path or URL of anything that `open_stack` opens.
    axes
        What the dimensions of an array or a file are: "tzyx", or ("time", "z", "y", "x"). Without
        it xarray's own names count; two dimensions are y and x, three are time, y and x. A `Stack`
        knows its own.

    Raises
    ------
    ArrayTypeError
        If it is none of these.
    ArrayError
        If its pixels or dimensions cannot be a recording's.
    """
    if isinstance(recording, Stack):
        own = (*recording.sizes, "y", "x")
        if axes is not None and tuple(_words(axes)) != own:
            raise ArrayError(
                f"axes are {', '.join(_words(axes))}, those of {recording.path} are "
                f"{', '.join(own)}; leave axes out for what is opened already"
            )
        return ArrayStack(recording, own)
    if isinstance(recording, Path | str):
        said = None if axes is None else ",".join(_words(axes))
        opened = open_stack(recording, OpenOptions(axes=said))
        return ArrayStack(opened, (*opened.sizes, "y", "x"))
    if not isinstance(recording, ArrayLike):
        raise ArrayTypeError(
            f"expected an array (numpy, zarr, dask, xarray), a Stack or a path, given "
            f"{type(recording).__name__}; make an array of it with numpy.asarray"
        )
    _require_known_shape(recording)
    names = _names(recording, axes)
    dtype = _pixel_type(recording)
    outer = [name for name in names if name not in {"y", "x"}]
    # xarray's own indexing keeps names that nobody here needs.
    source: Any = recording.data if _is_xarray(recording) else recording  # type: ignore[attr-defined]
    turned = names.index("x") < names.index("y")

    def read(position: tuple[int, ...]) -> NDArray[Any]:
        at = dict(zip(outer, position, strict=True))
        frame = np.asarray(source[tuple(at.get(name, slice(None)) for name in names)], dtype)
        return frame.T if turned else frame

    sizes = dict(zip(names, map(int, recording.shape), strict=True))
    stack = Stack(
        path=IN_MEMORY,
        sizes={name: sizes[name] for name in outer} or {"time": 1},
        frame_shape=(sizes["y"], sizes["x"]),
        dtype=dtype,
        read=read if outer else lambda position: read(()),
        channel_names=_channel_names(recording, names),
    )
    return ArrayStack(checked(stack), tuple(names), recording)


def _names(array: ArrayLike, axes: Axes | None) -> list[str]:
    own = getattr(array, "dims", None) if _is_xarray(array) else None
    given: Any = axes if axes is not None else own
    if given is None:
        given = DEFAULT_AXES.get(len(array.shape))
        _require_no_colours(array)
    if given is None:
        raise ArrayError(
            f"an array of shape {array.shape} has {len(array.shape)} dimensions, and only two or "
            'three explain themselves; say what they are, as axes="tzyx"'
        )
    names = _words(given)
    if (
        len(names) != len(array.shape)
        or len(set(names)) < len(names)
        or not {"y", "x"} <= set(names)
    ):
        raise ArrayError(
            f"axes are {', '.join(map(str, given))} for an array of shape {array.shape}, expected "
            'one name for each dimension, y and x among them; say what they are, as axes="tyx"'
        )
    return names


def _words(axes: Axes) -> list[str]:
    """Return the names of dimensions, letters as the words that they stand for."""
    if not isinstance(axes, str | Sequence):
        raise ArrayTypeError(
            f'axes is {axes!r}, expected a word for each dimension, as "tzyx" or '
            '("time", "y", "x")'
        )
    return axis_words(axes)


def _require_known_shape(array: ArrayLike) -> None:
    """Refuse what has no sizes yet, or pixels that are said not to be there."""
    if not all(isinstance(size, int | np.integer) for size in array.shape):
        raise ArrayError(
            f"an array of shape {array.shape} does not know its sizes yet; compute them first, as "
            "array.compute_chunk_sizes()"
        )
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ArrayError(
            f"{int(np.ma.getmaskarray(array).sum())} pixels are masked, and a camera's frames "
            "hold them all; fill them (array.filled(value)) or leave those frames out"
        )


def _require_no_colours(array: ArrayLike) -> None:
    """Refuse an image in colours: without axes it would pass for many frames a few pixels wide."""
    if len(array.shape) == 3 and array.shape[-1] <= FEW_ROWS < min(array.shape[:-1]):
        raise ArrayError(
            f"an array of shape {array.shape} looks like one image in {array.shape[-1]} colours "
            'or channels; say so with axes="yxc", or axes="tyx" if its frames are that narrow'
        )


def _pixel_type(array: ArrayLike) -> np.dtype[Any]:
    """Return the type of the pixels in this machine's order of bytes."""
    try:
        dtype: np.dtype[Any] = np.dtype(array.dtype)
    except TypeError:  # of torch and others, whose types are their own
        raise ArrayTypeError(
            f"pixels are {array.dtype} of {type(array).__module__.partition('.')[0]}, expected an "
            "array of numpy, zarr, dask or xarray; make one of it with numpy.asarray"
        ) from None
    if dtype.name not in PIXEL_TYPES:
        raise ArrayError(
            f"pixels are {dtype.name}, expected {', '.join(PIXEL_TYPES)} in the camera's own "
            'units; convert them, as array.astype("float32")'
        )
    return dtype.newbyteorder("=")


def _is_xarray(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] == "xarray"


def _channel_names(array: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the coordinates of xarray's channels, if they are words."""
    if not _is_xarray(array) or "channel" not in names:
        return ()
    dimension = array.dims[names.index("channel")]
    values = array.coords[dimension].values if dimension in array.coords else np.array([])
    return tuple(map(str, values)) if values.dtype.kind in "UO" else ()


def is_dask(recording: Recording) -> bool:
    """Whether a recording is computed by dask, or an xarray's that is."""
    data = recording.data if _is_xarray(recording) else recording  # type: ignore[union-attr]
    return type(data).__module__.partition(".")[0] == "dask"


def lazy_frames(stack: Stack, frame: Callable[[int], NDArray[np.float32]]) -> Any:
    """Return a dask array (…, Y, X) along a stack's axes whose frames are computed on demand.

    Parameters
    ----------
    stack
        Gives shape and axes.
    frame
        Called with an index; returns (Y, X).
    """
    array, delayed = importlib.import_module("dask.array"), importlib.import_module("dask").delayed
    blocks = [
        array.from_delayed(delayed(frame)(index), stack.frame_shape, np.float32)
        for index in range(len(stack))
    ]
    return array.stack(blocks).reshape((*stack.sizes.values(), *stack.frame_shape))
