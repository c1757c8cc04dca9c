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
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AcquisitionError
from .mailbox_file import (
    ABOUT_AT,
    ABOUT_BYTES,
    DOCUMENT_AT,
    DOCUMENT_BYTES,
    MAGIC,
    PIXELS_AT,
    PREFIX,
    READER_AT,
    READER_FIELDS,
    SUFFIX,
    WRITER_FIELDS,
    Layout,
    allocate,
    fields_at,
    mapped,
    places,
    plane_at,
    remove_file,
    sweep_orphans,
)

MAX_PIXELS = 6_000_000
"""Larger frames are thinned to every second (third …) pixel: no screen shows more."""
MIN_PIXELS = 1_000_000
"""Room kept in any case, so that a region of interest can grow during a run."""


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


class MailboxWriter:
    """The acquisition's side. Used from one thread at a time; no call waits for the reader."""

    def __init__(self, path: Path, layout: Layout, about: Mapping[str, Any]) -> None:
        self.path = path
        self._layout = layout
        self._document: dict[str, Any] = {}
        self._map = mapped(path)
        self._writer = fields_at(self._map, WRITER_FIELDS, 0)
        self._reader = fields_at(self._map, READER_FIELDS, READER_AT)
        text = json.dumps(about, default=str).encode("utf-8")[:ABOUT_BYTES]
        self._map[ABOUT_AT : ABOUT_AT + len(text)] = text
        self._writer["about_bytes"] = len(text)
        self._writer["pixels"] = layout.pixels
        self._writer["raw_bytes_per_pixel"] = layout.raw_bytes_per_pixel
        self._writer["writer_pid"] = os.getpid()
        self._writer["magic"] = MAGIC  # last: from here on a reader accepts the file

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
        layout = Layout(pixels, max(np.dtype(pixel_type).itemsize, 2))
        sweep_orphans()
        problems = []
        for place in [directory] if directory else places():
            path = place / f"{PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
            try:
                allocate(path, layout.size)
                return cls(path, layout, about)
            except OSError as error:
                remove_file(path)
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
        np.copyto(plane_at(self._map, PIXELS_AT, raw.shape, raw_type), raw, casting="unsafe")
        for image, offset in (
            (denoised, self._layout.denoised_at),
            (uncertainty, self._layout.uncertainty_at),
        ):
            if image is not None:
                np.copyto(
                    plane_at(self._map, offset, raw.shape, np.dtype(np.float32)),
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
        self._map[DOCUMENT_AT : DOCUMENT_AT + len(text)] = text
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
        """What the reader last said of itself; what it cannot have said is a failure."""
        try:
            return ReaderState(int(self._reader["state"]))
        except ValueError:
            return ReaderState.FAILED

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

    @property
    def wants_all_channels(self) -> bool:
        """Whether the reader shows all channels as one picture."""
        return bool(self._reader["wants_all_channels"])

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
            remove_file(self.path)


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
            self._map = mapped(path)
        except (OSError, ValueError) as error:
            raise MailboxError(
                f"{path}: cannot be opened ({error}); expected the mailbox of a running preview"
            ) from error
        if len(self._map) < PIXELS_AT or self._map[:8] != MAGIC:
            self._map.close()
            raise MailboxError(f"{path}: not a preview mailbox; give the file a preview made")
        self._writer = fields_at(self._map, WRITER_FIELDS, 0)
        self._reader = fields_at(self._map, READER_FIELDS, READER_AT)
        self._layout = Layout(
            int(self._writer["pixels"]), int(self._writer["raw_bytes_per_pixel"])
        )
        self.writer_pid = int(self._writer["writer_pid"])
        about = self._map[ABOUT_AT : ABOUT_AT + int(self._writer["about_bytes"])]
        self.about: Mapping[str, Any] = json.loads(about)
        self._taken = 0

    def take(self) -> Picture | None:
        """Return the newest picture, copied out; None if there is none newer, or none whole.

        After None for a torn copy the next call tries again.
        """
        generation = int(self._writer["generation"])
        if generation % 2 or generation == self._taken:
            return None
        end = DOCUMENT_AT + min(int(self._writer["document_bytes"]), DOCUMENT_BYTES)
        text = self._map[DOCUMENT_AT:end]
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
            return plane_at(self._map, offset, shape, np.dtype(pixel_type)).copy()

        layout = self._layout
        return Picture(
            raw=copied(PIXELS_AT, document["raw_type"]),
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

    def want_all_channels(self, wanted: bool) -> None:
        """Ask the writer for the frames of all channels, each in its turn."""
        self._reader["wants_all_channels"] = wanted

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
            remove_file(self.path)


def _encoded(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, default=_plain).encode("utf-8")
    if len(text) > DOCUMENT_BYTES:
        raise ValueError(f"figures take {len(text)} bytes, at most {DOCUMENT_BYTES} fit")
    return text


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
