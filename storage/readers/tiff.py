"""TIFF of every kind that microscopes write: OME-TIFF and sets of it, ImageJ, MMStack, plain.

Owns which of these a file is. What its pages mean is told in `ome_tiff`, `mmstack` and
`tiff_series`; single pages are read in `tiff_pages`.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import IO

from ..open_options import OpenOptions
from ..stack import Stack, StackError
from .mmstack import from_micro_manager
from .ome_tiff import from_ome
from .ome_xml import read_ome_xml
from .tiff_pages import SUFFIXES, TiffPages, quietly
from .tiff_series import from_series

COMPANION = ".companion.ome"


def claims(path: Path) -> bool:
    """Whether this is a TIFF file, or the companion of a set of them, by its name."""
    return path.is_file() and path.name.lower().endswith((*SUFFIXES, COMPANION))


def read(path: Path, options: OpenOptions) -> Stack:
    """Open a TIFF file on this computer, with the files of its set."""
    if path.name.lower().endswith(COMPANION):
        file = _first_of_set(path)
        return replace(read_source(file, file, options), path=path)
    return read_source(path, path, options)


def _first_of_set(path: Path) -> Path:
    """Return a file of the set that a companion describes."""
    images = read_ome_xml(path.read_text(encoding="utf-8"), path)
    named = dict.fromkeys(plane.file for image in images for plane in image.planes if plane.file)
    files = [path.with_name(PureWindowsPath(name).name) for name in named]
    there = next((file for file in files if file.is_file()), None)
    if there is None:
        raise StackError(
            f"{path}: none of its {len(files)} files is beside it; copy the whole set into one "
            "folder"
        )
    return there


def read_source(path: Path, source: Path | IO[bytes], options: OpenOptions) -> Stack:
    """Open a TIFF file, or one that is open already; `path` names it in messages."""
    with quietly():
        own = TiffPages(source, path)
        try:
            stack = (
                from_ome(path, own, options)
                or from_micro_manager(path, own, options)
                or from_series(path, own, options)
            )
        except BaseException:
            own.close()
            raise
    # The file is let go with the stack: Windows cannot move or delete what is open.
    weakref.finalize(stack.read, own.close)
    return stack
