"""OME-Zarr 0.1 to 0.5 and plain Zarr: images, positions, plates; folders, zip files and URLs.

Owns the NGFF metadata (https://ngff.openmicroscopy.org/0.5): axes, units, the product of the
transformations, channels, wells and fields. Which frames are there is told by `zarr_chunks`.
"""

from __future__ import annotations

import warnings
import weakref
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..display_range import of_windows
from ..open_options import AXIS_NAMES, OpenOptions, chosen_series
from ..output_kinds import ZARR_FILES
from ..stack import FINISHED, LARGEST_FRAME_BYTES, RECORDING, Stack, StackError, require_sizes
from ..units import length_um, time_s
from ..urls import query_apart
from .ome_xml import OmeImage, read_ome_xml
from .positions import arranged, joined, one_of
from .zarr_chunks import absence

ZIP_SUFFIXES = (".zip", ".ozx")
LARGEST_BLOCK_BYTES = 64 * 2**20
BLOCKS_HELD = 4
"""A channel, its context and other channels lie in blocks of their own, and are read in turns."""
LARGEST_DOCUMENT_BYTES = 256 * 2**20

_PLAIN_AXES: dict[int, tuple[str, ...]] = {
    2: (),
    3: ("time",),
    4: ("time", "channel"),
    5: ("time", "channel", "z"),
}
_FIVE = ("t", "c", "z", "y", "x")


def claims(path: Path) -> bool:
    """Whether this is a Zarr: a folder with its files, or a zip file of one."""
    if path.is_file():
        return path.suffix.lower() in ZIP_SUFFIXES and zipfile.is_zipfile(path)
    return any((path / name).is_file() for name in ZARR_FILES)


def read(path: Path, options: OpenOptions) -> Stack:
    """Open a Zarr on this computer."""
    import zarr

    from .bounded_store import BoundedStore

    if not path.is_file():
        for name in ZARR_FILES:
            _require_document(path / name)
        local = BoundedStore(zarr.storage.LocalStore(path, read_only=True))
        return _from_node(path, zarr.open(local, mode="r"), options)
    root = _root_in_zip(path)
    store = BoundedStore(zarr.storage.ZipStore(path, mode="r"))
    stack = _from_node(path, zarr.open(store, path=root, mode="r"), options)
    # The file is let go with the stack: Windows cannot move or delete what is open.
    weakref.finalize(stack.read, store.close)
    return stack


def read_url(path: Path, url: str, options: OpenOptions) -> Stack:
    """Open a Zarr at a URL; `path` stands for it in messages."""
    import zarr

    bare, storage = query_apart(url)
    return _from_node(path, zarr.open(bare, mode="r", storage_options=storage), options)


def _require_document(path: Path) -> None:
    """Refuse metadata that are no file, or one that no Zarr has: reading them might never end."""
    if not path.exists():
        return
    if not path.is_file():
        raise StackError(f"{path}: is no regular file; copy the recording to a disk first")
    if path.stat().st_size > LARGEST_DOCUMENT_BYTES:
        raise StackError(
            f"{path}: {path.stat().st_size / 2**20:.0f} MiB of metadata, expected at most "
            f"{LARGEST_DOCUMENT_BYTES // 2**20}; check the file"
        )


def _root_in_zip(path: Path) -> str:
    """Return the folder inside a zip file that holds the Zarr; the top, or one further down."""
    with zipfile.ZipFile(path) as file:
        places = [PurePosixPath(name) for name in file.namelist()]
        large = next((e for e in file.infolist() if e.file_size > LARGEST_FRAME_BYTES), None)
    if large is not None:
        raise StackError(
            f"{path}: {large.filename} would unpack to {large.file_size / 2**30:.1f} GiB, "
            f"expected at most {LARGEST_FRAME_BYTES // 2**30}; check the file"
        )
    roots = [place.parent for place in places if place.name in ZARR_FILES]
    if not roots:
        raise StackError(f"{path}: this zip file holds no Zarr; unpack it and give what is inside")
    root = min(roots, key=lambda place: len(place.parts))
    return "" if str(root) == "." else str(root)


def _from_node(path: Path, node: Any, options: OpenOptions) -> Stack:
    import zarr

    if isinstance(node, zarr.Array):
        return _from_array(path, node, _plain_axes(path, node, options), {}, options)
    attributes = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    if "multiscales" in ome:
        return _from_multiscales(path, node, attributes, options)
    if "plate" in ome:
        return _from_plate(path, node, ome["plate"], attributes, options)
    if "well" in ome:
        return _from_fields(path, node, ome["well"], options)
    if "bioformats2raw.layout" in ome or _images_inside(node):
        return _from_positions(path, node, attributes, options)
    arrays = sorted(name for name, _ in node.arrays())
    if not arrays:
        raise StackError(
            f"{path}: a Zarr group without OME metadata, and without an array; give the image "
            "inside it"
        )
    place = 0 if options.series is None and len(arrays) == 1 else None
    if place is None and options.series is None:
        raise StackError(
            f"{path}: a Zarr group without OME metadata; give the array inside it, or choose it "
            f"with --series ({', '.join(arrays[:8])})"
        )
    array = node[arrays[chosen_series(options, arrays, path) if place is None else place]]
    return _from_array(path, array, _plain_axes(path, array, options), attributes, options)


# ------------------------------------------------------------------------------- one image


def _plain_axes(path: Path, array: Any, options: OpenOptions) -> Sequence[str]:
    """Return the axes of an array without OME metadata: as told, as it names them, or by count."""
    if told := options.axis_names(array.ndim, path):
        return told
    named = getattr(array.metadata, "dimension_names", None) or dict(array.attrs).get(
        "_ARRAY_DIMENSIONS"
    )
    if named and None not in named and [n.lower() for n in named[-2:]] == ["y", "x"]:
        return [*(AXIS_NAMES.get(n.lower(), n) for n in named[:-2]), "y", "x"]
    if array.ndim not in _PLAIN_AXES:
        raise StackError(
            f"{path}: a Zarr array of {array.ndim} dimensions, expected 2 to 5; name them with "
            "--axes, as in ptczyx"
        )
    return [*_PLAIN_AXES[array.ndim], "y", "x"]


def _from_array(
    path: Path,
    array: Any,
    axes: Sequence[str],
    attributes: Mapping[str, Any],
    options: OpenOptions,
    **details: Any,
) -> Stack:
    """Open an array of which every axis has a name, y and x among them."""
    names = [name for name in axes if name not in {"y", "x"}]
    leading = [array.shape[axes.index(name)] for name in names]
    shape = (array.shape[axes.index("y")], array.shape[axes.index("x")])
    dtype = np.dtype(array.dtype).newbyteorder("=")
    require_sizes(path, leading, shape, dtype)
    present, remarks = absence(array, axes)
    if present is not None:
        present, remarks = _settled(present, remarks, attributes, options)
    if len(leading) == 1 and leading[0] in {3, 4} and not attributes:
        remarks += (
            f"its {leading[0]} images are taken as {names[0]}; pass --axes cyx if they are "
            "colours",
        )
    return Stack(
        path=path,
        sizes=dict(zip(names, leading, strict=True)) if names else {"time": 1},
        frame_shape=shape,
        dtype=dtype,
        read=_reader(array, axes),
        present=present,
        attributes=attributes,
        **{**details, "remarks": (*details.get("remarks", ()), *remarks)},
    )


def _settled(
    present: NDArray[np.bool_],
    remarks: tuple[str, ...],
    attributes: Mapping[str, Any],
    options: OpenOptions,
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Return which frames count as there, and what has to be said of those without a chunk."""
    missing = int(present.size - present.sum())
    frames = f"{missing} frame{'s' if missing > 1 else ''} without a chunk"
    if options.missing == "zeros":
        return None, (f"{frames}: read as zeros (--missing zeros)",)
    ours = RECORDING in attributes or "quietscope" in attributes
    if not ours:
        remarks += (f"{frames}: absent; pass --missing zeros if its writer leaves out zeros",)
    return present, remarks


def _reader(array: Any, axes: Sequence[str]) -> Callable[[tuple[int, ...]], NDArray[Any]]:
    if list(axes[-2:]) == ["y", "x"]:
        return _block_reader(array) if array.ndim > 2 else lambda _: np.asarray(array[...])
    places = [place for place, name in enumerate(axes) if name not in {"y", "x"}]

    def read_across(position: tuple[int, ...]) -> NDArray[Any]:
        where: list[Any] = [slice(None)] * array.ndim
        for place, index in zip(places, position, strict=False):
            where[place] = index
        plane = np.asarray(array[tuple(where)])
        return np.ascontiguousarray(plane if axes.index("y") < axes.index("x") else plane.T)

    return read_across


def _block_reader(array: Any) -> Callable[[tuple[int, ...]], NDArray[Any]]:
    """Return what reads one frame of a Zarr array (…, Y, X).

    Where a chunk holds several frames, all are decoded for one: they are kept for the next ones.
    """
    block = array.chunks[:-2]
    frames = prod(block)
    block_bytes = int(frames * prod(array.shape[-2:]) * array.dtype.itemsize)
    if frames == 1 or block_bytes > LARGEST_BLOCK_BYTES:
        return lambda position: np.asarray(array[position])

    # Two of the largest blocks at most, more of smaller ones.
    @lru_cache(maxsize=min(BLOCKS_HELD, 2 * LARGEST_BLOCK_BYTES // block_bytes))
    def read_block(corner: tuple[int, ...]) -> NDArray[Any]:
        where = (slice(start, start + size) for start, size in zip(corner, block, strict=True))
        return np.asarray(array[tuple(where)])

    def read_one(position: tuple[int, ...]) -> NDArray[Any]:
        corner = tuple(i // size * size for i, size in zip(position, block, strict=True))
        within = tuple(i - start for i, start in zip(position, corner, strict=True))
        return np.array(read_block(corner)[within])

    return read_one


def _from_multiscales(
    path: Path, group: Any, attributes: Mapping[str, Any], options: OpenOptions
) -> Stack:
    ome = attributes.get("ome", attributes)
    several = ome["multiscales"]
    names = [str(multiscale.get("name", "")) for multiscale in several]
    remarks: tuple[str, ...] = ()
    number = 0
    if len(several) > 1:
        number = 0 if options.series is None else chosen_series(options, names, path)
        left = [name or str(i) for i, name in enumerate(names) if i != number]
        remarks += (f"left out: its other images {', '.join(left)} (--series chooses)",)
    if labels := _labels(group):
        remarks += (f"left out: its labels ({', '.join(labels)}), which are no camera images",)
    if "image-label" in ome:
        remarks += ("it says of itself that it holds labels, not camera images",)
    return _from_multiscale(path, group, several[number], attributes, options, remarks)


def _from_multiscale(
    path: Path,
    group: Any,
    multiscale: Mapping[str, Any],
    attributes: Mapping[str, Any],
    options: OpenOptions,
    remarks: tuple[str, ...],
) -> Stack:
    dataset = multiscale["datasets"][0]
    for name in ZARR_FILES:
        _require_document(path / str(dataset["path"]) / name)
    array = group[dataset["path"]]
    told = options.axis_names(array.ndim, path)
    axes = multiscale.get("axes", _FIVE[-array.ndim :])
    letters = [str(axis["name"] if isinstance(axis, Mapping) else axis) for axis in axes]
    if told is None and [letter.lower() for letter in letters[-2:]] != ["y", "x"]:
        raise StackError(
            f"{path}: its axes are {letters}, expected … y x; say what they are with --axes"
        )
    names = told or [*(AXIS_NAMES.get(letter, letter) for letter in letters[:-2]), "y", "x"]
    scale = _scale(multiscale, dataset, array.ndim)
    sizes, unit_remarks = _physical_sizes(names, axes, scale)
    ome = attributes.get("ome", attributes)
    channels = ome.get("omero", {}).get("channels", [])
    labels = tuple(str(channel.get("label", "")) for channel in channels)
    if _recording(attributes).get(FINISHED) is False:
        remarks += ("was never finished: what wrote it was stopped",)
    return _from_array(
        path,
        array,
        names,
        attributes,
        options,
        channel_names=labels if any(labels) else (),
        display_ranges=of_windows(channels),
        remarks=(*remarks, *unit_remarks),
        **_completed(sizes, _recording(attributes)),
        **_camera(attributes),
    )


def _scale(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], dimensions: int
) -> list[float]:
    """Return the product of the scales of the dataset and of the multiscales level."""
    product = [1.0] * dimensions
    for level in (dataset, multiscale):
        for transformation in level.get("coordinateTransformations") or []:
            if transformation.get("type") == "scale" and "scale" in transformation:
                product = [
                    a * float(b) for a, b in zip(product, transformation["scale"], strict=True)
                ]
    return product


def _physical_sizes(
    names: Sequence[str], axes: Sequence[Any], scale: Sequence[float]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    units = [axis.get("unit") if isinstance(axis, Mapping) else None for axis in axes]
    of = dict(zip(names, zip(scale, units, strict=True), strict=True))
    height, width = length_um(*of["y"]), length_um(*of["x"])
    found: dict[str, Any] = {
        "pixel_size_yx_um": (height, width) if height and width else None,
        "z_step_um": length_um(*of["z"]) if "z" in of else None,
        "time_interval_s": time_s(*of["time"]) if "time" in of else None,
    }
    size, unit = of["x"]
    if found["pixel_size_yx_um"] is None and size != 1:
        what = f"the unit {unit!r}" if unit else "no unit"
        return found, (f"its pixel size is left out: it says {size:g} with {what}",)
    return found, ()


def _completed(sizes: dict[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return sizes with those that the axes have no place or unit for, where we kept them."""
    for name in ("z_step_um", "time_interval_s"):
        if sizes[name] is None and isinstance(kept.get(name), int | float):
            sizes[name] = float(kept[name])
    both = kept.get("pixel_size_yx_um")
    if isinstance(both, list) and len(both) == 2 and sizes["pixel_size_yx_um"]:
        sizes["pixel_size_yx_um"] = (float(both[0]), float(both[1]))
    return sizes


def _camera(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return camera and exposure as recordings of our own say them."""
    own = attributes.get("quietscope")
    own = own if isinstance(own, Mapping) else {}
    kept = _recording(attributes)
    fingerprint = own.get("camera")
    named = fingerprint.get("camera") if isinstance(fingerprint, Mapping) else kept.get("camera")
    exposure = own.get("exposure_ms", kept.get("exposure_ms"))
    return {
        "camera": named if isinstance(named, str) else None,
        "exposure_ms": float(exposure) if isinstance(exposure, int | float) else None,
    }


def _recording(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a result of ours keeps of the recording that it was made from."""
    kept = attributes.get(RECORDING)
    return kept if isinstance(kept, Mapping) else {}


def _labels(group: Any) -> list[str]:
    import zarr

    found = group.get("labels")
    if not isinstance(found, zarr.Group):
        return []
    attributes = dict(found.attrs)
    said = attributes.get("ome", attributes).get("labels")
    return [str(name) for name in said] if said else [name for name, _ in found.groups()]


# -------------------------------------------------------------------------- several images


def _images_inside(group: Any) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folders in it that are no Zarr, as OME-XML's
        return [name for name, child in group.groups() if _is_image(child)]


def _is_image(group: Any) -> bool:
    attributes = dict(group.attrs)
    return "multiscales" in attributes.get("ome", attributes)


def _from_positions(
    path: Path, group: Any, attributes: Mapping[str, Any], options: OpenOptions
) -> Stack:
    names = sorted(_images_inside(group), key=_natural)
    if not names:
        raise StackError(f"{path}: holds no image; record at least one frame first")
    inside = replace(options, series=None)
    images = [
        _from_multiscales(path / name, group[name], dict(group[name].attrs), inside)
        for name in names
    ]
    images, titles = _titled(path, names, images)
    places = _recording(attributes).get("images")
    if options.series is None and isinstance(places, list) and all(n.isdigit() for n in names):
        numbered = dict(zip(map(int, names), images, strict=True))
        if places and max(numbered) < len(places):
            stack = arranged(path, numbered, places)
            return replace(stack, attributes=dict(attributes), **_camera(attributes))
    stack = one_of(path, images, titles, options)
    if options.series is not None:
        return stack
    return replace(stack, path=path, attributes=dict(attributes), **_camera(attributes))


def _titled(
    path: Path, names: Sequence[str], images: Sequence[Stack]
) -> tuple[list[Stack], list[str]]:
    """Return what the images are called, and what bioformats2raw's OME-XML knows of them."""
    described = _bioformats2raw_images(path)
    titles, found = [], []
    for number, (name, image) in enumerate(zip(names, images, strict=True)):
        said = (image.attributes or {}).get("position")
        xml = described[number] if number < len(described) else None
        titles.append(str(said or (xml.name if xml is not None else None) or name))
        if xml is not None:
            image = replace(
                image,
                channel_names=image.channel_names or xml.channel_names,
                pixel_size_yx_um=image.pixel_size_yx_um or xml.pixel_size_yx_um,
                z_step_um=image.z_step_um or xml.z_step_um,
                time_interval_s=image.time_interval_s or xml.time_interval_s,
            )
        found.append(image)
    return found, titles if len(set(titles)) == len(titles) else list(names)


def _bioformats2raw_images(path: Path) -> list[OmeImage]:
    document = Path(path) / "OME" / "METADATA.ome.xml"
    if not document.is_file():
        return []
    _require_document(document)
    return read_ome_xml(document.read_text(encoding="utf-8"), document)


def _from_plate(
    path: Path,
    group: Any,
    plate: Mapping[str, Any],
    attributes: Mapping[str, Any],
    options: OpenOptions,
) -> Stack:
    images, names, missing = [], [], []
    inside = replace(options, series=None)
    for well in plate.get("wells", []):
        node = group.get(well["path"])
        if node is None:
            missing.append(well["path"])
            continue
        said = dict(node.attrs)
        for field in said.get("ome", said).get("well", {}).get("images", []):
            child = node.get(field["path"])
            if child is None:
                missing.append(f"{well['path']}/{field['path']}")
                continue
            name = f"{well['path']}/{field['path']}"
            images.append(_from_multiscales(path / name, child, dict(child.attrs), inside))
            names.append(name)
    if not images:
        raise StackError(f"{path}: a plate without an image; give one of its wells")
    stack = one_of(path, images, names, options)
    if missing and options.series is None:
        stack = _with_missing_fields(path, stack, images, names, missing)
    return replace(stack, attributes=dict(attributes))


def _with_missing_fields(
    path: Path, stack: Stack, images: Sequence[Stack], names: Sequence[str], missing: list[str]
) -> Stack:
    first = images[0]
    empty = replace(first, present=np.zeros(tuple(first.sizes.values()), dtype=np.bool_))
    whole = joined(path, [*images, *(empty for _ in missing)], [*names, *missing])
    remark = f"absent: {', '.join(missing[:4])}, which the plate lists but does not hold"
    return replace(whole, remarks=(*stack.remarks, remark))


def _from_fields(path: Path, group: Any, well: Mapping[str, Any], options: OpenOptions) -> Stack:
    names = [str(field["path"]) for field in well.get("images", [])]
    there = [name for name in names if group.get(name) is not None]
    if not there:
        raise StackError(f"{path}: a well without an image; give another one of the plate")
    inside = replace(options, series=None)
    images = [
        _from_multiscales(path / name, group[name], dict(group[name].attrs), inside)
        for name in there
    ]
    return one_of(path, images, there, options)


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 30, name)
