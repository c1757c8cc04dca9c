"""The pages of one TIFF file, also of one that ends too early.

Owns which of its pages are whole, and the reading of one. What the pages mean, and how several
files make a set, is told in `tiff`.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..stack import StackError, require_sizes

SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".stk")
ALIGNMENT_BYTES = 4096
"""Between the pixels of a file and what follows them, writers leave at most this."""
CHECKED_PAGES = 4096
"""Of a file whose chain of pages is whole, so many pages are asked for the end of their pixels."""
UNCOMPRESSED = 1
MOST_TAGS = 4096


class _Quiet:
    """How many are at work whose damaged files tifffile shall not remark on."""

    lock = threading.Lock()
    depth = 0


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the library's own remarks on damaged files to itself: ours say what to do."""
    logger = logging.getLogger("tifffile")
    with _Quiet.lock:
        _Quiet.depth += 1
        logger.disabled = True
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.depth -= 1
            logger.disabled = _Quiet.depth > 0


class TiffPages:
    """A TIFF file, open for reading. Pages may be read from several threads.

    Parameters
    ----------
    source
        A path, or an open file.
    name
        For messages.
    alike
        Whether all pages have the geometry of the first: then each costs far less to look up.

    Raises
    ------
    StackError
        If a page is larger than any camera's.
    """

    def __init__(self, source: Path | IO[bytes], name: Path, *, alike: bool = True) -> None:
        self.name = name
        self._source = source
        self._lock = threading.Lock()
        with quietly():
            try:
                self._open(alike=alike)
            except RuntimeError:  # pages of several kinds
                self._open(alike=False)

    def _open(self, *, alike: bool) -> None:
        import tifffile

        if not isinstance(self._source, Path):
            self._source.seek(0)
        self.file: Any = tifffile.TiffFile(self._source)
        try:
            first = self.file.pages.first
            require_sizes(self.name, (1,), first.shape, np.dtype(first.dtype or "u1"))
            if alike:
                self.file.pages.useframes = True
                self.file.pages.set_keyframe(0)
            self.count = len(self.file.pages)
            self._size = int(self.file.filehandle.size)
            self._following = self._offset_after(self._page(self.count - 1))
            self._require_an_end()
        except BaseException:
            self.file.close()
            raise

    def _require_an_end(self) -> None:
        """Refuse a list of pages that runs in a circle: tifffile leaves it with a few of them."""
        if not 0 < self._following < self._size:
            return
        layout, handle = self.file.tiff, self.file.filehandle
        handle.seek(self._following)
        try:
            (tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
        except struct.error:  # the file ends there
            return
        end = self._following + layout.tagnosize + tags * layout.tagsize + layout.offsetsize
        if 0 < tags < MOST_TAGS and end <= self._size:
            raise StackError(
                f"{self.name}: its pages follow each other in a circle; the file is damaged, copy "
                "it anew"
            )

    def look_at_each(self) -> None:
        """Take every page with a geometry of its own from now on."""
        self.file.close()
        self._open(alike=False)

    @property
    def ends_early(self) -> bool:
        """Whether a further page is announced that the file does not hold."""
        return self._following != 0

    def close(self) -> None:
        """Let the file go."""
        self.file.close()

    @property
    def first(self) -> Any:
        """The first page, as tifffile has it."""
        return self.file.pages.first

    def page(self, number: int) -> Any:
        """Return a page, as tifffile has it; its tags only after `look_at_each`."""
        return self._page(number)

    def expected(self) -> int:
        """Return how many pages the file was meant to have, as far as it tells; at least so many.

        Where pixels of all pages lie in one run and their directories behind it, the first of
        these directories tells how long the run is.
        """
        if not self.ends_early:
            return self.count
        run = self._run()
        if run is None:
            return self.count + 1
        start, frame_bytes = run
        frames, rest = divmod(self._following - start, frame_bytes)
        in_one_run = frames > 1 and rest < ALIGNMENT_BYTES
        return self.count - 1 + frames if in_one_run else self.count + 1

    def present(self, total: int) -> NDArray[np.bool_]:
        """Tell which of the first `total` pages are whole."""
        there = np.zeros(total, dtype=np.bool_)
        known = min(self.count, total)
        there[:known] = True
        for page in self._suspects(known):
            there[page] = self._is_whole(page)
        run = self._run() if total > self.count else None
        if run is not None and (self.count == 1 or self.expected() > self.count + 1):
            start, frame_bytes = run
            whole = max(0, self._size - start) // frame_bytes
            there[self.count - 1 : self.count - 1 + whole] = True
        return there

    def read(self, page: int) -> NDArray[Any]:
        """Read one page as it lies in the file, in this machine's byte order.

        Raises
        ------
        StackError
            If the file holds fewer.
        """
        with self._lock, quietly():
            pixels = self._page(page).asarray() if page < self.count else self._in_run(page)
        return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))

    def _in_run(self, page: int) -> NDArray[Any]:
        run = self._run()
        if run is None:
            raise StackError(f"{self.name}: has no page {page}, it holds {self.count}")
        start, frame_bytes = run
        last = self._page(self.count - 1)
        handle = self.file.filehandle
        handle.seek(start + (page - self.count + 1) * frame_bytes)
        raw = handle.read(frame_bytes)
        dtype = np.dtype(self.file.byteorder + last.dtype.char)
        return np.frombuffer(raw, dtype).reshape(self.file.pages.first.shape)

    def _page(self, page: int) -> Any:
        return self.file.pages[page]

    def _run(self) -> tuple[int, int] | None:
        """Return where the pixels of the last page begin, and their size; None if in pieces."""
        last, first = self._page(self.count - 1), self.file.pages.first
        offsets, counts = last.dataoffsets, last.databytecounts
        frame_bytes = int(first.nbytes)
        if first.compression != UNCOMPRESSED or not offsets or first.is_tiled:
            return None
        together = all(a + n == b for a, n, b in zip(offsets, counts, offsets[1:], strict=False))
        return (int(offsets[0]), frame_bytes) if together and sum(counts) == frame_bytes else None

    def _suspects(self, known: int) -> list[int]:
        if known <= CHECKED_PAGES or self.ends_early:
            return list(range(known))
        spread = np.linspace(0, known - 1, CHECKED_PAGES).astype(int)
        return [int(page) for page in np.unique(spread)]

    def _is_whole(self, page: int) -> bool:
        try:
            found = self._page(page)
            ends = [o + n for o, n in zip(found.dataoffsets, found.databytecounts, strict=True)]
            missing = not ends or 0 in found.databytecounts
        except Exception:  # a directory that the file's end cuts through fails in many ways
            return False
        return not missing and max(ends) <= self._size

    def _offset_after(self, page: Any) -> int:
        """Return where the directory after a page's lies; 0 if it is the last."""
        layout, handle = self.file.tiff, self.file.filehandle
        try:
            handle.seek(page.offset)
            (tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
            handle.seek(page.offset + layout.tagnosize + tags * layout.tagsize)
            (following,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
        except struct.error:  # the file ends within this directory
            return self._size
        return int(following)
