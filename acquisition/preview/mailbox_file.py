"""The file behind the mailbox: where it lies, how it is laid out, how it gets its room.

Owns the bytes and their places. What they mean, and how both sides keep from reading a torn
picture, is in `mailbox`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

MAGIC = b"QSMAIL01"


PREFIX = "quietscope-preview-"


SUFFIX = ".mailbox"


ABOUT_AT, ABOUT_BYTES = 1024, 3072


DOCUMENT_AT, DOCUMENT_BYTES = 4096, 12288


PIXELS_AT = 16384


# The two sides write to different cache lines, each field aligned to its size.
WRITER_FIELDS = np.dtype(
    [
        ("magic", "S8"),
        ("generation", "<u8"),
        ("pixels", "<u8"),
        ("raw_bytes_per_pixel", "<u4"),
        ("writer_pid", "<u4"),
        ("about_bytes", "<u4"),
        ("document_bytes", "<u4"),
        ("ended", "<u4"),
        ("please_close", "<u4"),
    ]
)


READER_AT = 256


READER_FIELDS = np.dtype(
    [
        ("seen_generation", "<u8"),
        ("state", "<u4"),
        ("wants_uncertainty", "<u4"),
        ("reason", "S496"),
        ("wanted_channel", "S128"),
        ("wants_all_channels", "<u4"),
    ]
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the three planes of the slot begin, for a given capacity."""

    pixels: int
    raw_bytes_per_pixel: int

    @property
    def denoised_at(self) -> int:
        """Where the denoised image begins, bytes."""
        return PIXELS_AT + _rounded(self.pixels * self.raw_bytes_per_pixel)

    @property
    def uncertainty_at(self) -> int:
        """Where the uncertainty begins, bytes."""
        return self.denoised_at + _rounded(self.pixels * 4)

    @property
    def size(self) -> int:
        """Of the whole file, bytes."""
        return self.uncertainty_at + _rounded(self.pixels * 4)

    def step_that_fits(self, shape: tuple[int, ...], itemsize: int) -> int:
        """Return how far to thin images of `shape` so that they have room."""
        room = min(self.pixels, self.pixels * self.raw_bytes_per_pixel // itemsize)
        step = 1
        while -(-shape[0] // step) * -(-shape[1] // step) > room:
            step += 1
        return step


def places() -> Iterator[Path]:
    """Yield folders for the file, the fastest first."""
    # Not on a disk where memory will do: while the recorder saturates that disk, the kernel makes
    # everyone wait who touches a mapped page of it.
    memory = Path("/dev/shm")
    if sys.platform == "linux" and memory.is_dir() and os.access(memory, os.W_OK):
        yield memory
    yield Path(tempfile.gettempdir())


def allocate(path: Path, size: int) -> None:
    """Create the file with all of its blocks."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    # Windows: binary, and a hint to keep the file in memory.
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_SHORT_LIVED", 0)
    zeros = bytes(2**20)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        for start in range(0, size, len(zeros)):
            file.write(zeros[: size - start])


def sweep_orphans() -> None:
    """Remove mailboxes of programs that were killed; one that is still mapped stays usable."""
    for place in places():
        for path in place.glob(f"{PREFIX}*{SUFFIX}"):
            pid = path.name.removeprefix(PREFIX).split("-")[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                remove_file(path)


def mapped(path: Path) -> mmap.mmap:
    """Map the file into memory."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)


def fields_at(mapping: mmap.mmap, fields: np.dtype[Any], offset: int) -> NDArray[Any]:
    """Return the fields of one side, as they lie in the file."""
    return np.ndarray((), fields, buffer=mapping, offset=offset)


def plane_at(
    mapping: mmap.mmap, offset: int, shape: tuple[int, ...], pixel_type: np.dtype[Any]
) -> NDArray[Any]:
    """Return an image, as it lies in the file."""
    return np.ndarray(shape, pixel_type, buffer=mapping, offset=offset)


def _rounded(size: int) -> int:
    return -(-size // 4096) * 4096


def remove_file(path: Path) -> None:
    """Remove the file, unless somebody still has it mapped."""
    # Windows keeps a file that another process has mapped; whoever leaves last removes it.
    with contextlib.suppress(OSError):
        path.unlink()
