"""Read images back that are still being saved as NDTiff, by pycro-manager or by Micro-Manager.

Owns the reading from files that grow, and knows when the program that writes them has finished.
ndstorage's own readers keep a few kilobytes ahead in memory; where the next image is written
after that, they give zeros in its place. So files are read here without such a memory.
"""

from __future__ import annotations

import functools
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..stream.frame import Image

_BLOCK = 64 * 1024
"""Of the index, read at a time: most of its 25 MB are zeros while it is written."""
_WRITTEN_BYTES = 4 * 2**30
"""ndstorage and Micro-Manager give a file this length ahead, and cut it when they close it."""


class SavedImages:
    """The images of NDTiff datasets, straight from the disk. Any thread may read."""

    def __init__(self) -> None:
        self._readers: dict[Path, Any] = {}
        self._lock = threading.Lock()

    def read(self, dataset: Any, axes: Mapping[str, int | str]) -> Image:
        """Return pixels (Y, X) and metadata of an image of pycro-manager's dataset.

        Images that pycro-manager keeps in memory are read from there.
        """
        full_resolution = getattr(dataset, "res_levels", {0: dataset})[0]
        folder = getattr(full_resolution, "path", None)
        entry = getattr(full_resolution, "index", {}).get(frozenset(axes.items()))
        if folder is None or not hasattr(entry, "pix_offset"):
            return dataset.read_image(**axes), dataset.read_metadata(**axes) or {}
        return self.read_entry(Path(folder), entry)

    def read_entry(self, folder: Path, entry: Any) -> Image:
        """Return pixels and metadata of an index entry of the dataset in `folder`."""
        from ndstorage.ndtiff_file import SingleNDTiffReader

        with self._lock:
            path = folder / entry.filename
            if path not in self._readers:
                self._readers[path] = SingleNDTiffReader(str(path), file_io=_unbuffered())
            reader = self._readers[path]
            return reader.read_image(entry), reader.read_metadata(entry)

    def summary(self) -> dict[str, Any]:
        """Return the dataset's summary metadata, empty before an image was read."""
        readers = list(self._readers.values())
        return dict(readers[0].summary_md) if readers else {}

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()


class GrowingIndex:
    """The index of an NDTiff dataset that another program is writing.

    Parameters
    ----------
    folder
        The dataset's; its `NDTiff.index` is there with the first image.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "NDTiff.index"
        self._read = 0
        self._last: Any = None

    def new_entries(self) -> Iterator[tuple[dict[str, int | str], Any]]:
        """Yield axes and index entry of every image that was saved since the last call."""
        from ndstorage.ndtiff_index import NDTiffIndexEntry

        with self._path.open("rb", buffering=0) as file:
            while True:
                file.seek(self._read)
                block = file.read(_BLOCK)
                position = 0
                while length := _entry_length(block, position):
                    _, axes, self._last = NDTiffIndexEntry.unpack_single_index_entry(
                        block, position
                    )
                    position += length
                    self._read += length
                    yield axes, self._last
                if position == 0:
                    return

    def changed_s(self) -> float:
        """Return when the index was last written to, seconds since the epoch."""
        return self._path.stat().st_mtime

    def finished(self) -> bool:
        """Whether nothing more comes: the program that writes has cut its files to length.

        The index is closed after the images, so its last entries may come a moment later.
        """
        if self._last is None or self._path.stat().st_size > self._read:
            return False
        return all(file.stat().st_size < _WRITTEN_BYTES for file in self.folder.glob("*.tif"))


def _entry_length(data: bytes, position: int) -> int:
    """Return the bytes of the entry at `position`, 0 if it is not wholly written yet.

    Micro-Manager fills the index with zeros beforehand; pycro-manager writes it in blocks that
    end within an entry.
    """
    end = position
    for _ in ("axes", "file name"):
        if len(data) < end + 4:
            return 0
        (length,) = struct.unpack_from("I", data, end)
        text = data[end + 4 : end + 4 + length]
        if not length or len(text) < length or b"\0" in text:
            return 0
        end += 4 + length
    if len(data) < end + 32:
        return 0
    (metadata_length,) = struct.unpack_from("I", data, end + 24)
    return end + 32 - position if metadata_length else 0


@functools.cache
def _unbuffered() -> Any:
    from ndstorage.file_io import NDTiffFileIO

    return NDTiffFileIO(open_function=functools.partial(open, buffering=0))


def meaningful_axes(
    axes: Mapping[str, int | str], summary: Mapping[str, Any]
) -> dict[str, int | str]:
    """Return axes as a script would give them.

    Micro-Manager's own engine numbers the channels, whose names stand in the summary, and gives
    an image a position where there is only one.
    """
    named = dict(axes)
    names, channel = summary.get("ChNames"), axes.get("channel")
    if isinstance(names, list) and isinstance(channel, int) and channel < len(names):
        named["channel"] = str(names[channel])
    if summary.get("Positions") in (0, 1):
        named.pop("position", None)
    return named
