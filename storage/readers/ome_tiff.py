"""OME-TIFF: what the OME-XML of a file says of its pages, and of those of the files of its set.

Owns the finding of each plane. A file that belongs to a set stands for the whole set, whichever of
its files was named; files that are missing are absent frames. The XML is read in `ome_xml`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..open_options import OpenOptions
from ..stack import Stack, StackError, reason
from . import micro_manager
from .ome_xml import OmeImage, companion, own_uuid, read_ome_xml
from .positions import without_thumbnails
from .tiff_axes import renamed, with_samples
from .tiff_pages import SUFFIXES, TiffPages
from .tiff_series import from_series
from .tiff_tags import micro_manager_tags


@dataclass(eq=False)
class _Files:
    """The files of a set, opened when one of their planes is asked for."""

    path: Path
    own: TiffPages
    uuid: str | None
    alike: bool

    def __post_init__(self) -> None:
        self.opened: dict[str, TiffPages | None] = {}
        self.missing: dict[str, str] = {}

    def of(self, name: str | None, uuid: str | None) -> TiffPages | None:
        """Return the file of that name in the set; None if it is missing or damaged."""
        if name is None or uuid == self.uuid is not None:
            return self.own
        name = PureWindowsPath(name).name  # of both kinds of path: a set lies in one folder
        if name.lower() == self.path.name.lower():
            return self.own
        if name not in self.opened:
            self.opened[name] = self._open(name)
        return self.opened[name]

    def _open(self, name: str) -> TiffPages | None:
        place = self.path.with_name(name)
        if not place.is_file():
            self.missing[name] = "is not there"
            return None
        try:
            found = TiffPages(place, place, alike=self.alike)
        except Exception as error:  # whatever is wrong with it, its frames are absent
            self.missing[name] = f"cannot be read ({reason(error, place)})"
            return None
        weakref.finalize(self, found.close)
        return found


def from_ome(path: Path, own: TiffPages, options: OpenOptions) -> Stack | None:
    """Open what OME-XML describes; None where the file has none."""
    text = own.file.ome_metadata
    if not text:
        return None
    remarks: tuple[str, ...] = ()
    uuid = own_uuid(text)
    if (master := companion(text)) is not None:
        place = path.with_name(PureWindowsPath(master).name)
        if not place.is_file():
            return from_series(path, own, options).with_remarks(
                f"its axes and names are in {place.name}, which is not there"
            )
        text = _master_text(place)
    try:
        images = read_ome_xml(text, path)
    except StackError as error:
        if "cannot be read" not in str(error):
            raise
        return from_series(path, own, options).with_remarks("its OME-XML cannot be read")
    if not images:
        return None
    alike = len({image.frame_shape for image in images}) == 1
    if not alike:
        own.look_at_each()
    files = _Files(path, own, uuid, alike)
    stacks = [_ome_image(path, image, files, options) for image in images]
    names = [image.name or f"image {number}" for number, image in enumerate(images)]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names)]
    if len(files.opened):
        remarks += (f"one of a set of {1 + len(files.opened)} files: the whole set is read",)
    stack = without_thumbnails(path, stacks, names, options)
    said = [f"absent: {name} {why}" for name, why in files.missing.items()]
    shown = said[:3] + ([f"and {len(said) - 3} more files of the set"] if len(said) > 3 else [])
    stack = replace(stack, path=path, remarks=(*remarks, *shown, *stack.remarks))
    return micro_manager.described(stack, *micro_manager_tags(own.file, own.first))


def _master_text(place: Path) -> str:
    import tifffile

    if place.suffix.lower() in SUFFIXES:
        with tifffile.TiffFile(place) as file:
            return str(file.ome_metadata or "")
    return place.read_text(encoding="utf-8")


def _ome_image(path: Path, image: OmeImage, files: _Files, options: OpenOptions) -> Stack:
    count = prod(image.lengths)
    source: list[tuple[TiffPages, int] | None] = [None] * count
    present = np.zeros(count, dtype=np.bool_)
    whole: dict[int, NDArray[np.bool_]] = {}
    for plane in image.planes:
        start = int(np.ravel_multi_index(plane.first, image.lengths, mode="clip"))
        pages = files.of(plane.file, plane.uuid)
        if pages is None:
            continue
        room = count - start
        planes = min(room, plane.count if plane.count is not None else room)
        if id(pages) not in whole:
            whole[id(pages)] = pages.present(max(pages.expected(), _planned(image)))
        for step in range(planes):
            page = plane.page + step
            if page < len(whole[id(pages)]) and whole[id(pages)][page]:
                source[start + step], present[start + step] = (pages, page), True
    lengths = dict(zip(image.order, image.lengths, strict=True))
    kept = {name: length for name, length in lengths.items() if length > 1} or {"time": 1}
    present = present.reshape(tuple(kept.values()))

    def read_plane(position: tuple[int, ...]) -> NDArray[Any]:
        found = source[int(np.ravel_multi_index(position, tuple(kept.values())))]
        if found is None:
            raise StackError(f"{path}: has no frame at {position}")
        return found[0].read(found[1])

    # The files of the set are let go with what reads them.
    read_frame = partial(_held, read_plane, files)
    stack = Stack(
        path=path,
        sizes=kept,
        frame_shape=image.frame_shape,
        dtype=np.dtype(image.pixel_type),
        read=read_frame,
        pixel_size_yx_um=image.pixel_size_yx_um,
        z_step_um=image.z_step_um,
        time_interval_s=image.time_interval_s,
        channel_names=image.channel_names
        if len(image.channel_names) == lengths["channel"]
        else (),
        camera=image.camera,
        exposure_ms=image.exposure_ms,
        present=None if present.all() else present,
    )
    return with_samples(renamed(stack, options), image.samples, options)


def _held(
    read_plane: Callable[[tuple[int, ...]], NDArray[Any]],
    files: _Files,
    position: tuple[int, ...],
) -> NDArray[Any]:
    return read_plane(position)


def _planned(image: OmeImage) -> int:
    """Return how many pages the file itself has to hold for an image without TiffData's help."""
    furthest = (plane.page + (plane.count or prod(image.lengths)) for plane in image.planes)
    return max(furthest, default=0)
