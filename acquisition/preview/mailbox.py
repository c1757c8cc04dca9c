"""The mailbox between the acquisition and the preview window: one slot, the newest picture wins.

Owns a plain temporary file that both processes map into memory, and the sequence lock that tells
a whole picture from one that is being overwritten. It knows neither processes nor windows.

The writer never waits for the reader: it makes the generation odd, overwrites the slot, makes it
even again. The reader copies the slot out and keeps the copy only if the generation was even and
the same before and after (Lameter 2005, "Effective synchronization on Linux/NUMA systems"). A
plain file works alike on Windows, macOS and Linux and needs no relation between the processes.
Its blocks are written once when it is created, because a page that finds the disk full later
would kill the process that touches it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from ..errors import AcquisitionError

MAX_PIXELS = 6_000_000
"""Larger frames are thinned to every second (third …) pixel: no screen shows more."""
MIN_PIXELS = 1_000_000
"""Room kept in any case, so that a region of interest can grow during a run."""

_MAGIC = b"QSMAIL01"
_PREFIX = "quietscope-preview-"
_SUFFIX = ".mailbox"
_ABOUT_AT, _ABOUT_BYTES = 1024, 3072
_DOCUMENT_AT, _DOCUMENT_BYTES = 4096, 12288
_PIXELS_AT = 16384

# The two sides write to different cache lines, each field aligned to its size.
_WRITER_FIELDS = np.dtype(
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
_READER_AT = 256
_READER_FIELDS = np.dtype(
    [
        ("seen_generation", "<u8"),
        ("state", "<u4"),
        ("wants_uncertainty", "<u4"),
        ("reason", "S496"),
        ("wanted_channel", "S128"),
    ]
)


class ReaderState(IntEnum):
    """What the reading side has said of itself."""

    ABSENT = 0
    SHOWN = 1
    CLOSED_BY_USER = 2
    FAILED = 3


class MailboxError(AcquisitionError):
    """A file that is no preview mailbox, or no room for one."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture as the reader copied it out.

    Attributes
    ----------
    raw
        (Y, X) uint8, uint16 or float32, ADU.
    denoised, uncertainty
        (Y, X) float32, ADU; None where the writer had none.
    figures
        What was said of this frame: numbers and words by name.
    step
        Every `step`-th pixel of the camera frame, in both directions.
    channels
        All channels of the run so far; this frame is of one of them.
    """

    raw: NDArray[Any]
    denoised: NDArray[np.float32] | None
    uncertainty: NDArray[np.float32] | None
    figures: Mapping[str, Any]
    step: int = 1
    channels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the three planes of the slot begin, for a given capacity."""

    pixels: int
    raw_bytes_per_pixel: int

    @property
    def denoised_at(self) -> int:
        return _PIXELS_AT + _rounded(self.pixels * self.raw_bytes_per_pixel)

    @property
    def uncertainty_at(self) -> int:
        return self.denoised_at + _rounded(self.pixels * 4)

    @property
    def size(self) -> int:
        return self.uncertainty_at + _rounded(self.pixels * 4)

    def step_that_fits(self, shape: tuple[int, ...], itemsize: int) -> int:
        """Return how far to thin images of `shape` so that they have room."""
        room = min(self.pixels, self.pixels * self.raw_bytes_per_pixel // itemsize)
        step = 1
        while -(-shape[0] // step) * -(-shape[1] // step) > room:
            step += 1
        return step


class MailboxWriter:
    """The acquisition's side. Used from one thread at a time; no call waits for the reader."""

    def __init__(self, path: Path, layout: _Layout, about: Mapping[str, Any]) -> None:
        self.path = path
        self._layout = layout
        self._document: dict[str, Any] = {}
        self._map = _mapped(path)
        self._writer = _fields(self._map, _WRITER_FIELDS, 0)
        self._reader = _fields(self._map, _READER_FIELDS, _READER_AT)
        text = json.dumps(about, default=str).encode("utf-8")[:_ABOUT_BYTES]
        self._map[_ABOUT_AT : _ABOUT_AT + len(text)] = text
        self._writer["about_bytes"] = len(text)
        self._writer["pixels"] = layout.pixels
        self._writer["raw_bytes_per_pixel"] = layout.raw_bytes_per_pixel
        self._writer["writer_pid"] = os.getpid()
        self._writer["magic"] = _MAGIC  # last: from here on a reader accepts the file

    @classmethod
    def create(
        cls,
        frame_shape: tuple[int, int],
        pixel_type: str,
        about: Mapping[str, Any],
        *,
        directory: Path | None = None,
    ) -> MailboxWriter:
        """Create the file in the fastest place that has room for it.

        Parameters
        ----------
        frame_shape
            (Y, X) of the frames to come. Other shapes may follow; they are thinned if they
            do not fit.
        pixel_type
            The camera's: "uint8" or "uint16".
        about
            What holds for the whole run (title, saturation); at most 3 kB as JSON.
        directory
            Where to put it; by default memory-backed storage, else the temporary folder.

        Raises
        ------
        MailboxError
            If no place has room for it.
        """
        pixels = min(max(frame_shape[0] * frame_shape[1], MIN_PIXELS), MAX_PIXELS)
        layout = _Layout(pixels, max(np.dtype(pixel_type).itemsize, 2))
        _sweep_orphans()
        problems = []
        for place in [directory] if directory else _places():
            path = place / f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
            try:
                _allocate(path, layout.size)
                return cls(path, layout, about)
            except OSError as error:
                _unlink(path)
                problems.append(f"{place}: {error.strerror}")
        raise MailboxError(
            f"no room for the preview's {layout.size / 2**20:.0f} MB of shared memory "
            f"({'; '.join(problems)}); free some space there"
        )

    def put(
        self,
        raw: NDArray[Any],
        denoised: NDArray[Any] | None,
        uncertainty: NDArray[Any] | None,
        figures: Mapping[str, Any],
        channels: Sequence[str] = (),
    ) -> None:
        """Overwrite the slot with this picture. Copies; the arrays are the caller's again.

        Raises
        ------
        ValueError
            If the arrays are not two-dimensional and of one shape.
        """
        planes = [plane for plane in (denoised, uncertainty) if plane is not None]
        if raw.ndim != 2 or any(plane.shape != raw.shape for plane in planes):
            shapes = [plane.shape for plane in (raw, *planes)]
            raise ValueError(f"images of shapes {shapes}; expected one (Y, X) for all of them")
        raw_type = raw.dtype if raw.dtype in (np.uint8, np.uint16) else np.dtype(np.float32)
        step = self._layout.step_that_fits(raw.shape, raw_type.itemsize)
        thinned = (slice(None, None, step), slice(None, None, step))
        raw = raw[thinned]
        document = {
            "shape": raw.shape,
            "raw_type": raw_type.str,
            "step": step,
            "denoised": denoised is not None,
            "uncertainty": uncertainty is not None,
            "figures": dict(figures),
            "channels": list(channels),
        }
        text = _encoded(document)

        generation = self.generation | 1
        self._writer["generation"] = generation
        self._write_document(text)
        # np.copyto gives up the GIL and takes it again: a memory barrier, also on ARM.
        np.copyto(_plane(self._map, _PIXELS_AT, raw.shape, raw_type), raw, casting="unsafe")
        for image, offset in (
            (denoised, self._layout.denoised_at),
            (uncertainty, self._layout.uncertainty_at),
        ):
            if image is not None:
                np.copyto(
                    _plane(self._map, offset, raw.shape, np.dtype(np.float32)),
                    image[thinned],
                    casting="unsafe",
                )
        self._document = document
        self._writer["generation"] = generation + 1

    def correct(self, figures: Mapping[str, Any]) -> None:
        """Replace figures of the picture in the slot, for counts that are final only later."""
        if not self._document:
            return
        self._document["figures"] |= figures
        text = _encoded(self._document)
        generation = self.generation | 1
        self._writer["generation"] = generation
        self._write_document(text)
        self._writer["generation"] = generation + 1

    def _write_document(self, text: bytes) -> None:
        self._map[_DOCUMENT_AT : _DOCUMENT_AT + len(text)] = text
        self._writer["document_bytes"] = len(text)

    @property
    def generation(self) -> int:
        """Twice the number of pictures put in so far (odd while one is written)."""
        return int(self._writer["generation"])

    @property
    def taken(self) -> bool:
        """Whether the reader has taken the newest picture."""
        return int(self._reader["seen_generation"]) == self.generation

    @property
    def reader_state(self) -> ReaderState:
        """What the reader last said of itself."""
        return ReaderState(int(self._reader["state"]))

    @property
    def reader_reason(self) -> str:
        """Why the reader failed, in its own words."""
        return bytes(self._reader["reason"].item()).decode("utf-8", "replace")

    @property
    def wants_uncertainty(self) -> bool:
        """Whether the reader is showing the uncertainty just now."""
        return bool(self._reader["wants_uncertainty"])

    @property
    def wanted_channel(self) -> str:
        """The channel that is being looked at; "" as long as nobody chose."""
        return bytes(self._reader["wanted_channel"].item()).decode("utf-8", "replace")

    def end(self, *, please_close: bool = False) -> None:
        """Say that no further picture will come, and whether the reader should go."""
        self._writer["please_close"] = please_close
        self._writer["ended"] = 1

    def close(self, *, remove: bool) -> None:
        """Unmap the file, and remove it unless the reader still needs it."""
        del self._writer, self._reader
        with contextlib.suppress(BufferError):
            self._map.close()
        if remove:
            _unlink(self.path)


class MailboxReader:
    """The window's side.

    Raises
    ------
    MailboxError
        If the file is missing or is no mailbox.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._map = _mapped(path)
        except (OSError, ValueError) as error:
            raise MailboxError(
                f"{path}: cannot be opened ({error}); expected the mailbox of a running preview"
            ) from error
        if len(self._map) < _PIXELS_AT or self._map[:8] != _MAGIC:
            self._map.close()
            raise MailboxError(f"{path}: not a preview mailbox; give the file a preview made")
        self._writer = _fields(self._map, _WRITER_FIELDS, 0)
        self._reader = _fields(self._map, _READER_FIELDS, _READER_AT)
        self._layout = _Layout(
            int(self._writer["pixels"]), int(self._writer["raw_bytes_per_pixel"])
        )
        self.writer_pid = int(self._writer["writer_pid"])
        about = self._map[_ABOUT_AT : _ABOUT_AT + int(self._writer["about_bytes"])]
        self.about: Mapping[str, Any] = json.loads(about)
        self._taken = 0

    def take(self) -> Picture | None:
        """Return the newest picture, copied out; None if there is none newer, or none whole.

        After None for a torn copy the next call tries again.
        """
        generation = int(self._writer["generation"])
        if generation % 2 or generation == self._taken:
            return None
        end = _DOCUMENT_AT + min(int(self._writer["document_bytes"]), _DOCUMENT_BYTES)
        text = self._map[_DOCUMENT_AT:end]
        if int(self._writer["generation"]) != generation:
            return None
        document = json.loads(text)
        picture = self._copy(document)
        if int(self._writer["generation"]) != generation:
            return None
        self._taken = generation
        self._reader["seen_generation"] = generation
        return picture

    def _copy(self, document: Mapping[str, Any]) -> Picture:
        shape = (int(document["shape"][0]), int(document["shape"][1]))

        def copied(offset: int, pixel_type: str) -> NDArray[Any]:
            return _plane(self._map, offset, shape, np.dtype(pixel_type)).copy()

        layout = self._layout
        return Picture(
            raw=copied(_PIXELS_AT, document["raw_type"]),
            denoised=copied(layout.denoised_at, "<f4") if document["denoised"] else None,
            uncertainty=copied(layout.uncertainty_at, "<f4") if document["uncertainty"] else None,
            figures=document["figures"],
            step=int(document["step"]),
            channels=document["channels"],
        )

    @property
    def ended(self) -> bool:
        """Whether the writer has said that no further picture will come."""
        return bool(self._writer["ended"])

    @property
    def please_close(self) -> bool:
        """Whether the writer asked the reader to go."""
        return bool(self._writer["please_close"])

    def want_uncertainty(self, wanted: bool) -> None:
        """Tell the writer whether the uncertainty is being looked at: it costs a copy."""
        self._reader["wants_uncertainty"] = wanted

    def want_channel(self, channel: str) -> None:
        """Ask the writer for the frames of this channel only."""
        self._reader["wanted_channel"] = channel.encode("utf-8")[:128]

    def report(self, state: ReaderState, reason: str = "") -> None:
        """Tell the writer how this side is doing."""
        self._reader["reason"] = reason.encode("utf-8")[:496]
        self._reader["state"] = state

    def close(self, *, remove: bool = False) -> None:
        """Unmap the file, and remove it if the writer is done with it."""
        del self._writer, self._reader
        with contextlib.suppress(BufferError):
            self._map.close()
        if remove:
            _unlink(self.path)


def _places() -> Iterator[Path]:
    # Not on a disk where memory will do: while the recorder saturates that disk, the kernel makes
    # everyone wait who touches a mapped page of it.
    memory = Path("/dev/shm")
    if sys.platform == "linux" and memory.is_dir() and os.access(memory, os.W_OK):
        yield memory
    yield Path(tempfile.gettempdir())


def _allocate(path: Path, size: int) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    # Windows: binary, and a hint to keep the file in memory.
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_SHORT_LIVED", 0)
    zeros = bytes(2**20)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        for start in range(0, size, len(zeros)):
            file.write(zeros[: size - start])


def _sweep_orphans() -> None:
    """Remove mailboxes of programs that were killed; one that is still mapped stays usable."""
    for place in _places():
        for path in place.glob(f"{_PREFIX}*{_SUFFIX}"):
            pid = path.name.removeprefix(_PREFIX).split("-")[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                _unlink(path)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)


def _fields(mapping: mmap.mmap, fields: np.dtype[Any], offset: int) -> NDArray[Any]:
    return np.ndarray((), fields, buffer=mapping, offset=offset)


def _plane(
    mapping: mmap.mmap, offset: int, shape: tuple[int, ...], pixel_type: np.dtype[Any]
) -> NDArray[Any]:
    return np.ndarray(shape, pixel_type, buffer=mapping, offset=offset)


def _rounded(size: int) -> int:
    return -(-size // 4096) * 4096


def _encoded(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, default=_plain).encode("utf-8")
    if len(text) > _DOCUMENT_BYTES:
        raise ValueError(f"figures take {len(text)} bytes, at most {_DOCUMENT_BYTES} fit")
    return text


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def _unlink(path: Path) -> None:
    # Windows keeps a file that another process has mapped; whoever leaves last removes it.
    with contextlib.suppress(OSError):
        path.unlink()
