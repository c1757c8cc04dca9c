"""Which frames of a store are really on the disk.

Owns the count that reports state: it is taken from the chunk files of the store itself, not from
what a program believed to have written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .ngff_metadata import array_folder, image_folders

_CHUNK_FILE = re.compile(r"c\.(\d+)\.(\d+)\.(\d+)\.0\.0")


def written_frames(path: Path | str) -> NDArray[np.bool_] | None:
    """Tell which frames of a store were really written.

    A recording that was killed or aborted has places without a frame; readers see zeros there.

    Returns
    -------
    (T, C, Z) or, with several series, (P, T, C, Z) booleans in the order of `Stack.sizes`, as long
    as the longest of them; None if the store was not written by `OmeZarrWriter`, so that nobody
    can tell.
    """
    try:
        images = image_folders(Path(path))
        found = [
            written_chunks(array_folder(images[number])) for number in sorted(images, key=_order)
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    if None in images:
        return found[0]
    longest = np.max([image.shape for image in found], axis=0)
    written = np.zeros((len(found), *longest), dtype=np.bool_)
    for position, image in zip(written, found, strict=True):
        position[tuple(slice(length) for length in image.shape)] = image
    return written


def count_written(path: Path | str) -> int:
    """Count the frames that are in a store, 0 where there is none: what a report may state."""
    written = written_frames(path)
    return 0 if written is None else int(written.sum())


def written_chunks(array: Path) -> NDArray[np.bool_]:
    """Tell which frames of an array (t, c, z, y, x) have their chunk file.

    Raises
    ------
    OSError, ValueError, KeyError
        If it is no array, or not one of `OmeZarrWriter`.
    """
    description = json.loads((array / "zarr.json").read_text(encoding="utf-8"))
    separator = description["chunk_key_encoding"]["configuration"]["separator"]
    if separator != "." or len(description["shape"]) != 5:
        raise ValueError(f"{array}: not written by OmeZarrWriter")
    written = np.zeros(description["shape"][:3], dtype=np.bool_)
    for place in chunk_places(array):
        if all(i < n for i, n in zip(place, written.shape, strict=True)):
            written[place] = True
    return written


def chunk_places(array: Path) -> Iterator[tuple[int, int, int]]:
    """Yield (t, c, z) of every chunk file with content."""
    with os.scandir(array) as files:
        for file in files:
            found = _CHUNK_FILE.fullmatch(file.name)
            # A power cut leaves files whose content had not reached the disk: empty ones.
            if found and file.stat().st_size:
                t, c, z = (int(number) for number in found.groups())
                yield t, c, z


def _order(position: int | None) -> int:
    return position or 0
