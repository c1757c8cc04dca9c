"""A TIFF of Micro-Manager that was never finished: each page says where it belongs.

Owns the grid that the pages' own tags tell. A finished file has OME-XML, which `ome_tiff` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..open_options import OpenOptions
from ..stack import Stack, require_sizes
from .tiff_pages import TiffPages
from .tiff_tags import micro_manager_tag, with_tags

_INDICES = {
    "position": ("PositionIndex",),
    "time": ("FrameIndex", "Frame"),
    "z": ("SliceIndex", "Slice"),
    "channel": ("ChannelIndex",),
}


def from_micro_manager(path: Path, own: TiffPages, options: OpenOptions) -> Stack | None:
    """Open a file of Micro-Manager whose OME-XML was never written, by what each page says.

    None where its pages do not say where they belong.
    """
    if options.axes is not None or "FrameIndex" not in micro_manager_tag(own.first):
        return None
    own.look_at_each()
    said = [micro_manager_tag(own.page(number)) for number in range(own.count)]
    places = [tuple(int(_first_of(tag, keys) or 0) for keys in _INDICES.values()) for tag in said]
    lengths = [max(along) + 1 for along in zip(*places, strict=True)]
    sizes = {n: size for n, size in zip(_INDICES, lengths, strict=True) if size > 1} or {"time": 1}
    require_sizes(path, tuple(sizes.values()), own.first.shape, np.dtype(own.first.dtype))
    whole, page_of = own.present(own.count), {}
    present = np.zeros(tuple(sizes.values()), dtype=np.bool_)
    for number, place in enumerate(places):
        kept = tuple(i for i, size in zip(place, lengths, strict=True) if size > 1) or (0,)
        if whole[number]:
            page_of[kept], present[kept] = number, True
    names = {tag.get("ChannelIndex"): str(tag.get("Channel") or "") for tag in said}
    stack = Stack(
        path=path,
        sizes=sizes,
        frame_shape=own.first.shape,
        dtype=np.dtype(own.first.dtype).newbyteorder("="),
        read=lambda position: own.read(page_of[position]),
        present=None if present.all() else present,
        remarks=("its OME-XML is missing: frames are placed by what each page says",),
    )
    described = with_tags(stack, own.file, own.first)
    channels = tuple(names.get(number, "") for number in range(sizes.get("channel", 1)))
    return replace(described, channel_names=described.channel_names or channels)


def _first_of(said: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((said[key] for key in keys if said.get(key) is not None), None)
