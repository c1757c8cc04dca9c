"""Arrays from an npz file that may come from anywhere.

Owns the limits: nothing is unpacked before the archive's directory and the header of each array
say that it is small enough, no pickle is read, and whatever is wrong ends in one line. What the
arrays mean is the business of `noise_files`.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .errors import CalibrationError

MAX_MEMBERS = 64
MAX_TABLE_BYTES = 16 * 2**20
MAX_MAP_BYTES = 512 * 2**20
"""Of one array with a value per pixel: 8192 × 8192 in double precision."""
MAX_EXPANSION = 200
"""No large array of measured pixels unpacks to more than this many times its size on disk."""

_REMEDY = "give an npz that quietscope calibrate or fit-noise wrote"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(
    path: Path, names: Collection[str], *, per_pixel: str | None = None
) -> dict[str, NDArray[Any]]:
    """Return those arrays of `names` that an npz file holds.

    Parameters
    ----------
    path
        The file. Anything but an ordinary file (a folder, a pipe, a device) is refused unread.
    names
        What may be read; other members stay unread.
    per_pixel
        Arrays whose names begin so have a value per pixel and may be large; None: there are none.

    Raises
    ------
    CalibrationError
        If the file is missing, no npz, damaged, or holds more than a noise model can.
    """
    if path.exists() and not path.is_file():
        raise CalibrationError(f"{path}: no ordinary file, expected a noise model; {_REMEDY}")
    try:
        with path.open("rb") as opened:
            if opened.read(6) == b"\x93NUMPY":
                raise CalibrationError(
                    f"{path}: a single array, expected an npz noise model; {_REMEDY}"
                )
            with zipfile.ZipFile(opened) as archive:
                return _members(archive, names, per_pixel)
    except OSError as error:
        raise CalibrationError(
            f"{path}: no readable noise model ({error.strerror or error}); {_REMEDY}"
        ) from error
    except (
        ValueError,
        SyntaxError,  # of an array's header
        EOFError,
        RuntimeError,  # encrypted
        NotImplementedError,  # an unknown compression
        zipfile.BadZipFile,
        zlib.error,
        MemoryError,
        OverflowError,
    ) as error:
        if isinstance(error, CalibrationError):
            raise
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise CalibrationError(f"{path}: no noise model ({first}); {_REMEDY}") from error


def _members(
    archive: zipfile.ZipFile, names: Collection[str], per_pixel: str | None
) -> dict[str, NDArray[Any]]:
    listed = archive.infolist()
    if len(listed) > MAX_MEMBERS:
        raise ValueError(f"{len(listed)} arrays, a noise model has at most {MAX_MEMBERS}")
    found = {}
    for member in listed:
        name = member.filename.removesuffix(".npy")
        if name in names:
            is_map = per_pixel is not None and name.startswith(per_pixel)
            limit = MAX_MAP_BYTES if is_map else MAX_TABLE_BYTES
            _require_small(member, limit)
            with archive.open(member) as opened:
                found[name] = _array(opened, name, member.file_size)
    return found


def _require_small(member: zipfile.ZipInfo, limit: int) -> None:
    expansion = member.file_size / max(member.compress_size, 1)
    large = member.file_size > MAX_TABLE_BYTES and expansion > MAX_EXPANSION
    if member.file_size > limit or large:
        raise ValueError(f"{member.filename} unpacks to {member.file_size} bytes")


def _array(opened: IO[bytes], name: str, size: int) -> NDArray[Any]:
    version = np.lib.format.read_magic(opened)
    if version not in _HEADERS:
        raise ValueError(f"{name} is of npy version {version}")
    shape, fortran, dtype = _HEADERS[version](opened)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are not read")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > size:
        raise ValueError(f"{name} claims {wanted} bytes and has {size}")
    content = opened.read(wanted)
    if len(content) != wanted:
        raise ValueError(f"{name} ends early")
    flat = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
