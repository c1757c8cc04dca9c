"""Vendors' own formats: Nikon ND2, Zeiss CZI and Leica LIF, by libraries of the extra `vendor`.

Owns what those libraries say, put into a stack's words. They are `nd2` and `liffile` (both BSD)
and Zeiss' own `pylibCZIrw` (LGPL-3.0): lazy, kept, and without Java. Olympus' OIR has no such
reader; Bio-Formats turns it into OME-TIFF.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import require_extra
from ..open_options import OpenOptions
from ..stack import Stack, StackError, require_sizes
from .positions import one_of

SUFFIXES = (".nd2", ".czi", ".lif", ".oir", ".vsi", ".oib", ".oif", ".ims")
_UNREADABLE = {".oir", ".vsi", ".oib", ".oif", ".ims"}
_METRES_TO_UM = 1e6
MOST_PROBED = 5000
"""Planes of a CZI that are asked for one by one whether they are there."""


def claims(path: Path) -> bool:
    """Whether this is a vendor's file, by its name."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path, options: OpenOptions) -> Stack:
    """Open a vendor's file."""
    suffix = path.suffix.lower()
    if suffix in _UNREADABLE:
        raise StackError(
            f"{path}: {suffix[1:].upper()} is not read; save it as OME-TIFF with Fiji "
            "(Bio-Formats Exporter) or bfconvert, and give that"
        )
    require_extra("vendor", f"{path}: {suffix[1:].upper()}")
    return {".nd2": _read_nd2, ".czi": _read_czi, ".lif": _read_lif}[suffix](path, options)


# ------------------------------------------------------------------------------------ ND2

_ND2_AXES = {"T": "time", "P": "position", "Z": "z", "C": "channel"}


def _read_nd2(path: Path, options: OpenOptions) -> Stack:
    import nd2

    file = nd2.ND2File(path)
    try:
        sizes = {name: int(n) for name, n in file.sizes.items() if name not in {"Y", "X"}}
        if sizes.pop("S", 1) > 1:
            raise StackError(f"{path}: an RGB image; give the camera's own single-channel pixels")
        channels = sizes.pop("C", 1)
        named = {_ND2_AXES.get(name, name.lower()): n for name, n in sizes.items()}
        shape = (int(file.sizes["Y"]), int(file.sizes["X"]))
        require_sizes(path, (*named.values(), channels), shape, np.dtype(file.dtype))
        stack = _nd2_stack(path, file, named, channels, shape)
    except BaseException:
        file.close()
        raise
    weakref.finalize(stack.read, file.close)
    return stack


def _nd2_stack(
    path: Path, file: Any, loops: Mapping[str, int], channels: int, shape: tuple[int, int]
) -> Stack:
    sizes = {**loops, "channel": channels} if channels > 1 else dict(loops) or {"time": 1}
    lengths, lock = tuple(loops.values()), threading.Lock()

    def read_frame(position: tuple[int, ...]) -> NDArray[Any]:
        where = position[: len(lengths)]
        number = int(np.ravel_multi_index(where, lengths)) if lengths else 0
        with lock:
            pixels = np.asarray(file.read_frame(number))  # (C, Y, X), or (Y, X)
        return np.array(pixels.reshape(-1, *shape)[position[-1] if channels > 1 else 0])

    voxel = file.voxel_size()
    frames = int(np.prod(lengths)) if lengths else 1
    recorded = int(getattr(file.attributes, "sequenceCount", frames) or frames)
    present = np.arange(frames) < recorded
    if channels > 1:
        present = np.repeat(present[:, None], channels, axis=1)
    metadata = getattr(file.metadata, "channels", None) or []
    whole = present.reshape(tuple(sizes.values()))
    return Stack(
        path=path,
        sizes=sizes,
        frame_shape=shape,
        dtype=np.dtype(file.dtype),
        read=read_frame,
        pixel_size_yx_um=(voxel.y, voxel.x) if voxel.x > 0 else None,
        z_step_um=voxel.z if voxel.z > 0 and "z" in sizes else None,
        channel_names=tuple(str(found.channel.name) for found in metadata),
        present=None if whole.all() else whole,
    )


# ------------------------------------------------------------------------------------ CZI

_CZI_AXES = {"T": "time", "C": "channel", "Z": "z"}


def _read_czi(path: Path, options: OpenOptions) -> Stack:
    czi: Any = importlib.import_module("pylibCZIrw.czi")
    file = czi.CziReader(str(path))
    try:
        scenes = dict(file.scenes_bounding_rectangle) or {None: file.total_bounding_rectangle}
        stacks = [_czi_scene(path, file, scene, tuple(box)) for scene, box in scenes.items()]
        names = [f"scene {scene or 0}" for scene in scenes]
        stack = one_of(path, stacks, names, options)
    except BaseException:
        file.close()
        raise
    weakref.finalize(stack.read, file.close)
    return stack


def _czi_scene(path: Path, file: Any, scene: int | None, box: tuple[int, ...]) -> Stack:
    pixel_type = file.get_channel_pixel_type(0)
    if pixel_type.lower().startswith("bgr"):
        raise StackError(f"{path}: an RGB image; give the camera's own single-channel pixels")
    dtype = {"Gray8": "uint8", "Gray16": "uint16", "Gray32Float": "float32"}.get(pixel_type)
    if dtype is None:
        raise StackError(f"{path}: pixels are {pixel_type}, expected Gray8, Gray16 or Gray32Float")
    bounds = file.total_bounding_box
    starts = {letter: int(bounds[letter][0]) for letter in _CZI_AXES if letter in bounds}
    sizes = {_CZI_AXES[k]: int(bounds[k][1]) - starts[k] for k in starts}
    kept = {name: n for name, n in sizes.items() if n > 1} or {"time": 1}
    _, _, width, height = box
    lock = threading.Lock()

    def read_frame(position: tuple[int, ...]) -> NDArray[Any]:
        at = dict(zip(kept, position, strict=True))
        plane = {k: starts[k] + at.get(_CZI_AXES[k], 0) for k in starts}
        with lock:
            pixels = file.read(plane=plane, scene=scene, roi=box)
        return np.ascontiguousarray(np.asarray(pixels)[..., 0])

    scaling, names = _czi_metadata(file.metadata)
    present, remarks = _czi_present(file, scene, box, starts, kept)
    return Stack(
        path=path,
        sizes=kept,
        frame_shape=(height, width),
        dtype=np.dtype(dtype),
        read=read_frame,
        pixel_size_yx_um=(scaling["Y"], scaling["X"]) if {"Y", "X"} <= {*scaling} else None,
        z_step_um=scaling.get("Z"),
        channel_names=names if len(names) == sizes.get("channel", 1) else (),
        present=present,
        remarks=remarks,
    )


def _czi_present(
    file: Any,
    scene: int | None,
    box: tuple[int, ...],
    starts: Mapping[str, int],
    sizes: Mapping[str, int],
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Tell which planes are there: of one that is not, a pixel is the background asked for."""
    if prod(sizes.values()) > MOST_PROBED:
        return None, ("it has too many planes to look for missing ones: gaps would read as zeros",)
    x, y, width, height = box
    pixel = (x + width // 2, y + height // 2, 1, 1)
    present = np.zeros(tuple(sizes.values()), dtype=np.bool_)
    for place in np.ndindex(*sizes.values()):
        at = dict(zip(sizes, place, strict=True))
        plane = {k: start + at.get(_CZI_AXES[k], 0) for k, start in starts.items()}
        dark, bright = (
            np.asarray(file.read(plane=plane, scene=scene, roi=pixel, background_pixel=(b, b, b)))
            for b in (0, 1)
        )
        present[place] = bool((dark == bright).all())
    return (None if present.all() else present), ()


def _czi_metadata(metadata: Any) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the scaling in µm by axis, and the channels' names."""
    top = ((metadata or {}).get("ImageDocument") or {}).get("Metadata") or {}
    items = ((top.get("Scaling") or {}).get("Items") or {}).get("Distance") or []
    scaling = {
        str(item["@Id"]): float(item["Value"]) * _METRES_TO_UM
        for item in ([items] if isinstance(items, Mapping) else items)
        if item.get("Value")
    }
    image = ((top.get("Information") or {}).get("Image") or {}).get("Dimensions") or {}
    channels = (image.get("Channels") or {}).get("Channel") or []
    channels = [channels] if isinstance(channels, Mapping) else channels
    names = tuple(str(c.get("@Name") or c.get("@Id") or "") for c in channels)
    return scaling, names if any(names) else ()


# ------------------------------------------------------------------------------------ LIF

_LIF_AXES = {"T": "time", "C": "channel", "Z": "z", "M": "position", "P": "position"}


def _read_lif(path: Path, options: OpenOptions) -> Stack:
    import liffile

    file = liffile.LifFile(path)
    try:
        images = list(file.images)
        if not images:
            raise StackError(f"{path}: holds no image")
        stacks = [_lif_image(path, image) for image in images]
        stack = one_of(path, stacks, [str(image.name) for image in images], options)
    except BaseException:
        file.close()
        raise
    weakref.finalize(stack.read, file.close)
    return stack


def _lif_image(path: Path, image: Any) -> Stack:
    dims, shape = tuple(image.dims), tuple(int(n) for n in image.shape)
    if "S" in dims:
        raise StackError(f"{path}: an RGB image; give the camera's own single-channel pixels")
    if dims[-2:] != ("Y", "X"):
        raise StackError(f"{path}: image {image.name} has the axes {dims}, expected … Y X")
    names = [_LIF_AXES.get(name, name.lower()) for name in dims[:-2]]
    sizes = dict(zip(names, shape, strict=False)) or {"time": 1}
    require_sizes(path, tuple(sizes.values()), shape[-2:], np.dtype(image.dtype))
    steps = {
        axis: abs(float(places[1] - places[0]))
        for axis, places in image.coords.items()
        if axis in {"Y", "X", "Z", "T"} and len(places) > 1
    }

    def read_frame(position: tuple[int, ...]) -> NDArray[Any]:
        where = {name: int(i) for name, i in zip(dims[:-2], position, strict=False)}
        return np.array(image.frame(**where))

    z_step = steps.get("Z", 0.0) * _METRES_TO_UM
    return Stack(
        path=path,
        sizes=sizes,
        frame_shape=(shape[-2], shape[-1]),
        dtype=np.dtype(image.dtype),
        read=read_frame,
        pixel_size_yx_um=(steps["Y"] * _METRES_TO_UM, steps["X"] * _METRES_TO_UM)
        if {"Y", "X"} <= {*steps}
        else None,
        z_step_um=z_step or None,
        time_interval_s=steps.get("T") or None,
        attributes={"name": str(image.name)},
    )
