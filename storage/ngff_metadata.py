"""The JSON of a store: what OME-NGFF 0.5 wants to know of images and of their collections.

Owns the group files (`zarr.json`) that are written and read back, each in one visible step. Does
not know frames; arrays are `tensorstore_backend`'s.

A store that may get further positions later is laid out for them from the beginning: the group at
the top describes the image in `0/0`, and so does the group `0`. When a second position appears the
top becomes a collection of `0` and `1`, in one step, and nothing has to move.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .atomic_output import OutputError, jsonable, write_json
from .stack import DisplayRange

GROUP = "zarr.json"
ARRAY = "0"
"""The only resolution of every image, within the image's own group."""

_OF_THE_FORMAT = frozenset({"ome", "ome_writers", "position"})


def image_metadata(
    array: str,
    dtype: np.dtype[Any],
    *,
    channel_names: Sequence[str] = (),
    pixel_size_um: float | None = None,
    z_step_um: float | None = None,
    interval_s: float | None = None,
    display_ranges: Sequence[DisplayRange] = (),
) -> dict[str, Any]:
    """Return the `ome` attribute of an image group.

    Parameters
    ----------
    array
        Where its array lies, from the group's folder.
    dtype
        Of its pixels; says where viewers' contrast may end.
    channel_names
        In the order of their index.
    pixel_size_um, z_step_um, interval_s
        Distances along the axes; None leaves the unit away.
    display_ranges
        Of the channels, in the order of their index.
    """
    scales = {"t": interval_s, "c": None, "z": z_step_um, "y": pixel_size_um, "x": pixel_size_um}
    transformation = {"type": "scale", "scale": [scale or 1.0 for scale in scales.values()]}
    described: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [_axis(name, known=bool(scale)) for name, scale in scales.items()],
                "datasets": [{"path": array, "coordinateTransformations": [transformation]}],
            }
        ],
    }
    if channel_names or display_ranges:
        described["omero"] = omero(channel_names, dtype, display_ranges)
    return described


def _axis(name: str, *, known: bool) -> dict[str, str]:
    kinds = {"t": ("time", "second"), "c": ("channel", "")}
    kind, unit = kinds.get(name, ("space", "micrometer"))
    return {"name": name, "type": kind} | ({"unit": unit} if known else {})


def omero(
    channel_names: Sequence[str],
    dtype: np.dtype[Any],
    display_ranges: Sequence[DisplayRange] = (),
) -> dict[str, Any]:
    """Describe channels as `omero` wants it: without a window viewers guess or fail."""
    top = 65535.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    count = max(len(channel_names), len(display_ranges))
    ranges = [*display_ranges, *[(0.0, top)] * (count - len(display_ranges))]
    channels = [
        {
            "color": "FFFFFF",
            "active": True,
            "window": {
                "min": min(0.0, low),
                "max": max(top, high),
                "start": low,
                "end": high,
            },
        }
        for low, high in ranges
    ]
    for channel, name in zip(channels, channel_names, strict=False):
        channel["label"] = name
    return {"channels": channels}


def write_collection(store: Path, positions: Iterable[int], attributes: Mapping[str, Any]) -> None:
    """Make `store` a collection of the images in its folders of these numbers."""
    series = [str(number) for number in sorted(positions)]
    listed = {"ome": {"version": "0.5", "series": series}}
    write_group(store / "OME", listed, store=store)
    layout = {"version": "0.5", "bioformats2raw.layout": 3}
    write_group(store, {"ome": layout, **attributes}, store=store)


def write_group(folder: Path, attributes: Mapping[str, Any], *, store: Path) -> None:
    """Write a group of `store` with these attributes in one visible step.

    Before it, the file lies beside the store: inside, what a kill leaves would disturb readers.
    """
    content = {"zarr_format": 3, "node_type": "group", "attributes": jsonable(attributes)}
    write_json(folder / GROUP, content, beside=store)


def read_group(folder: Path) -> dict[str, Any]:
    """Return the attributes of a group.

    Raises
    ------
    OSError, ValueError
        If there is none that can be read.
    """
    description = json.loads((folder / GROUP).read_text(encoding="utf-8"))
    attributes = description.get("attributes", {}) if isinstance(description, dict) else None
    if not isinstance(attributes, dict):
        raise ValueError(f"{folder}: its {GROUP} is no Zarr group")
    return attributes


def store_attributes(store: Path) -> dict[str, Any]:
    """Return what a store says of itself besides the format's own.

    Raises
    ------
    OutputError
        If it is no store or damaged.
    """
    try:
        found = read_group(store)
    except (OSError, ValueError) as error:
        raise OutputError(f"{store}: is no OME-Zarr that can be read ({error})") from error
    return {key: value for key, value in found.items() if key not in _OF_THE_FORMAT}


def image_folders(store: Path) -> dict[int | None, Path]:
    """Return the group of each image by its position; None for a store of a single image.

    Raises
    ------
    OSError, ValueError, KeyError
        If the store is none, or not one of ours.
    """
    ome = read_group(store).get("ome", {})
    if "bioformats2raw.layout" not in ome:
        return {None: store}
    series = read_group(store / "OME")["ome"]["series"]
    return {int(name): store / str(name) for name in series}


def array_folder(image: Path) -> Path:
    """Return the folder of the array of an image group. Raises as `image_folders`."""
    datasets = read_group(image)["ome"]["multiscales"][0]["datasets"]
    if len(datasets) != 1:
        raise ValueError(f"{image}: has several resolutions, so it is of another program")
    return image / str(datasets[0]["path"])
