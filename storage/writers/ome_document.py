"""The OME-XML of a file that is written: which page is which frame, and what is known beside them.

Owns the document, by `ome-types`. One image for each position; a frame that was never recorded has
no page, and the document names none; a position without any says `MetadataOnly`, so that those
after it keep their place. Pages are written in `tiff`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..atomic_output import jsonable
from ..axis_map import Place
from ..stack import Stack

if TYPE_CHECKING:
    from ome_types import OME


def ome_document(
    pages: Mapping[Place, int],
    stack: Stack,
    *,
    pixel_type: str,
    channel_names: Sequence[str],
    attributes: Mapping[str, Any],
) -> OME:
    """Return the OME-XML of a file whose page `pages[place]` holds the frame at `place`.

    One image for each position. Frames without a page are not mentioned, which by the OME data
    model means that they are not in the file.
    """
    from ome_types import OME
    from ome_types.model import Image

    names = position_names(stack)
    images = []
    by_position = groupby(sorted(pages, key=_position), key=_position)
    found = {
        position: {place: pages[place] for place in places} for position, places in by_position
    }
    for position in sorted({*range(len(stack.image_places)), *found}):
        images.append(
            Image(
                id=f"Image:{position}",
                name=names.get(position, f"Position {position}"),
                pixels=_pixels(
                    position, found.get(position, {}), stack, pixel_type, channel_names
                ),
            )
        )
    return OME(
        images=images, creator="quietscope", structured_annotations=_annotations(attributes)
    )


def position_names(stack: Stack) -> dict[int, str]:
    """Return what each position is called, where it is more than its number."""
    names = {}
    for number, values in enumerate(stack.image_places):
        if list(values.values()) == [number]:
            continue
        alone = len(values) == 1 and "position" in values
        names[number] = (
            str(values["position"])
            if alone
            else ", ".join(f"{axis} {value}" for axis, value in values.items())
        )
    return names


def _position(place: Place) -> int:
    return place.position or 0


def _pixels(
    number: int,
    pages: Mapping[Place, int],
    stack: Stack,
    pixel_type: str,
    channel_names: Sequence[str],
) -> Any:
    from ome_types.model import Channel, MetadataOnly, Pixels, Pixels_DimensionOrder, PixelType

    times, channels, planes = (
        max(
            stack.sizes.get(axis, 1), 1 + max((getattr(place, axis) for place in pages), default=0)
        )
        for axis in ("time", "channel", "z")
    )
    height, width = stack.pixel_size_yx_um or (None, None)
    known: dict[str, Any] = {
        "physical_size_x": width,
        "physical_size_y": height,
        "physical_size_z": stack.z_step_um,
        "time_increment": stack.time_interval_s,
    }
    return Pixels(
        id=f"Pixels:{number}",
        dimension_order=Pixels_DimensionOrder.XYTZC,
        type=PixelType({"float32": "float"}.get(pixel_type, pixel_type)),
        size_x=stack.frame_shape[1],
        size_y=stack.frame_shape[0],
        size_t=times,
        size_c=channels,
        size_z=planes,
        channels=[
            Channel(
                id=f"Channel:{number}:{index}",
                name=channel_names[index] if index < len(channel_names) else None,
                samples_per_pixel=1,
            )
            for index in range(channels)
        ],
        tiff_data_blocks=_blocks(pages, times, planes),
        metadata_only=None if pages else MetadataOnly(),
        **{name: value for name, value in known.items() if value},
    )


def _blocks(pages: Mapping[Place, int], times: int, planes: int) -> list[Any]:
    """Return the TiffData elements: one for each run of frames whose pages follow each other.

    In the order XYTZC frames of one channel and plane follow each other in time.
    """
    from ome_types.model import TiffData

    def order(place: Place) -> int:
        return (place.channel * planes + place.z) * times + place.time

    in_order = sorted(pages, key=order)
    runs = groupby(enumerate(in_order), key=lambda item: (
        order(item[1]) - item[0], pages[item[1]] - item[0]
    ))  # fmt: skip
    blocks = []
    for _, run in runs:
        places = [place for _, place in run]
        first = places[0]
        blocks.append(
            TiffData(
                ifd=pages[first],
                first_t=first.time,
                first_c=first.channel,
                first_z=first.z,
                plane_count=len(places),
            )
        )
    return blocks


def _annotations(attributes: Mapping[str, Any]) -> Any:
    from ome_types.model import MapAnnotation, StructuredAnnotations

    if not attributes:
        return StructuredAnnotations()
    kept = {
        str(name): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in jsonable(attributes).items()
    }
    return StructuredAnnotations(
        map_annotations=[
            MapAnnotation(id="Annotation:0", namespace="quietscope", value=kept)  # type: ignore[arg-type]
        ]
    )
