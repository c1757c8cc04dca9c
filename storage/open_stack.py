"""Open any recording lazily: one function for every format, on disk or at a URL.

Owns the choice of the reader and what is refused before anything is read. A new format is one
file in `readers` (with `claims` and `read`) and one line in `READERS`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from ..errors import QuietscopeError
from .open_options import DEFAULTS, OpenOptions, converted
from .output_kinds import RAW, ZARR_FILES
from .readers import folder, ndtiff, ome_zarr, tiff, vendor
from .readers.tiff_pages import SUFFIXES
from .stack import Stack, StackError, checked, reason
from .urls import UrlPath, exists, is_url, joined, local_path, open_file

FORMATS = "OME-Zarr, Zarr, TIFF, NDTiff, a folder of images, or a vendor's file"
LFS_POINTER = b"version https://git-lfs"


class Reader(Protocol):
    """A format: whether a path is of it, and the stack that lies there."""

    def claims(self, path: Path) -> bool:
        """Whether a path is of this format."""

    def read(self, path: Path, options: OpenOptions) -> Stack:
        """Open it; may fail with whatever its library fails with."""


READERS: tuple[Reader, ...] = (ndtiff, ome_zarr, tiff, vendor, folder)
"""The first that claims a path reads it."""


def open_stack(path: Path | str, options: OpenOptions = DEFAULTS) -> Stack:
    """Open the image stack at `path`.

    Accepts an OME-Zarr image (0.1 to 0.5; several positions in the bioformats2raw layout, plates,
    zip files), a plain Zarr array, a TIFF or OME-TIFF file or set of files, an NDTiff folder of
    Micro-Manager, a folder of images or a pattern of their names, a vendor's file, or a run
    directory (its `raw.ome.zarr`). Zarr and TIFF may also lie at a URL that fsspec can open, as
    s3:// or https://, given as a string; credentials in it are used and kept nowhere.

    Parameters
    ----------
    path
        Where it is.
    options
        What the file leaves open; see `OpenOptions`.

    Raises
    ------
    StackError
        If nothing is there, it holds no frames, or its pixels are of another type.
    UrlError
        If fsspec cannot open such URLs here.
    """
    if is_url(path):
        local = local_path(str(path))
        if local is None:
            url = str(path)
            return _opened(UrlPath(url), partial(_read_url, url), options)
        path = local
    path = Path(path)
    _require_readable(path)
    run = path / RAW
    if path.is_dir() and run.is_dir():
        return open_stack(run, options)
    for reader in READERS:
        if reader.claims(path):
            return _opened(path, reader.read, options)
    if path.is_dir():
        raise StackError(f"{path}: this folder holds no Zarr, no NDTiff and no recorded run")
    raise StackError(
        f"{path}: {path.suffix or 'a name without an ending'} is no format that is read; save it "
        f"as OME-TIFF with Fiji, or give {FORMATS}"
    )


def _require_readable(path: Path) -> None:
    """Refuse what is not there, and what might never end: pipes, devices, sockets."""
    if folder.is_pattern(path):
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        found = isinstance(error, FileNotFoundError | NotADirectoryError)
        why = "no such file or folder" if found else f"cannot be read ({error.strerror})"
        raise StackError(f"{path}: {why}; give {FORMATS}") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise StackError(f"{path}: is no file and no folder; copy the recording to a disk first")
    if stat.S_ISREG(mode) and _is_pointer(path):
        raise StackError(
            f"{path}: is a pointer of Git LFS, not the recording; fetch it first (git lfs pull)"
        )


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:  # its reader says why
        return False


def _opened(path: Path, read: Callable[[Path, OpenOptions], Stack], options: OpenOptions) -> Stack:
    try:
        return checked(converted(read(path, options), options))
    except QuietscopeError:
        raise
    except Exception as error:  # a broken file can fail anywhere inside a reader
        if path.is_file() and not path.stat().st_size:
            raise StackError(f"{path}: is empty; copy the recording anew") from error
        raise StackError(
            f"{path}: cannot be read as an image stack ({reason(error, path)}); expected {FORMATS}"
        ) from error


def _read_url(url: str, place: Path, options: OpenOptions) -> Stack:
    if place.suffix.lower() in SUFFIXES:
        return tiff.read_source(place, open_file(url), options)
    for zarr in (url, joined(url, RAW)):
        if any(exists(zarr, name) for name in ZARR_FILES):
            return ome_zarr.read_url(place if zarr == url else place / RAW, zarr, options)
    raise StackError(
        f"{place}: neither a Zarr, a TIFF nor a recorded run is there, or it may not be read: "
        "check address, connection and credentials"
    )
