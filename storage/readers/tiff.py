"""TIFF of every kind that microscopes write: OME-TIFF and sets of it, ImageJ, MMStack, plain.

Owns what the pages of one file, or of the files of a set, mean: axes, positions, sizes, names. A
file that belongs to a set stands for the whole set, whichever of its files was named; files that
are missing are absent frames. Single pages are read in `tiff_pages`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path, PureWindowsPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..open_options import OpenOptions, chosen_series
from ..stack import Stack, StackError, reason, require_sizes
from ..units import length_um, time_s
from .ome_xml import OmeImage, companion, own_uuid, read_ome_xml
from .positions import described, one_of
from .tiff_pages import TiffPages, quietly

SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".stk")
COMPANION = ".companion.ome"
LARGEST_PRINTED_UM = 20.0
"""1200 dots per inch: what is coarser than this is the resolution of a printer, not of a lens."""
MAYBE_COLOURS = (3, 4)
_AXES = {"T": "time", "C": "channel", "Z": "z", "R": "position", "P": "position"}
_ASSUMED = {"I": "time", "Q": "time"}
"""Dimensions of which the file does not say what they are."""
_PER_INCH, _PER_CENTIMETRE = 2, 3


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
                _from_ome(path, own, options)
                or _from_micro_manager(path, own, options)
                or _from_series(path, own, options)
            )
        except BaseException:
            own.close()
            raise
    # The file is let go with the stack: Windows cannot move or delete what is open.
    weakref.finalize(stack.read, own.close)
    return stack


# -------------------------------------------------------------------------------- OME-TIFF


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


def _from_ome(path: Path, own: TiffPages, options: OpenOptions) -> Stack | None:
    """Open what OME-XML describes; None where the file has none."""
    text = own.file.ome_metadata
    if not text:
        return None
    remarks: tuple[str, ...] = ()
    uuid = own_uuid(text)
    if (master := companion(text)) is not None:
        place = path.with_name(PureWindowsPath(master).name)
        if not place.is_file():
            return _with_remark(
                _from_series(path, own, options),
                f"its axes and names are in {place.name}, which is not there",
            )
        text = _master_text(place)
    try:
        images = read_ome_xml(text, path)
    except StackError as error:
        if "cannot be read" not in str(error):
            raise
        return _with_remark(_from_series(path, own, options), "its OME-XML cannot be read")
    if not images:
        return None
    alike = len({image.frame_shape for image in images}) == 1
    if not alike:
        own.look_at_each()
    files = _Files(path, own, uuid, alike)
    stacks = [_ome_image(path, image, files, len(images), options) for image in images]
    names = [image.name or f"image {number}" for number, image in enumerate(images)]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names)]
    if len(files.opened):
        remarks += (f"one of a set of {1 + len(files.opened)} files: the whole set is read",)
    stack = _without_thumbnails(path, stacks, names, options)
    said = [f"absent: {name} {why}" for name, why in files.missing.items()]
    shown = said[:3] + ([f"and {len(said) - 3} more files of the set"] if len(said) > 3 else [])
    return replace(stack, path=path, remarks=(*remarks, *shown, *stack.remarks))


def _master_text(place: Path) -> str:
    import tifffile

    if place.suffix.lower() in SUFFIXES:
        with tifffile.TiffFile(place) as file:
            return str(file.ome_metadata or "")
    return place.read_text(encoding="utf-8")


def _ome_image(
    path: Path, image: OmeImage, files: _Files, images: int, options: OpenOptions
) -> Stack:
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
            whole[id(pages)] = pages.present(max(pages.expected(), _planned(image, images)))
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
    return _with_samples(_renamed(stack, options), image.samples, options)


def _held(
    read_plane: Callable[[tuple[int, ...]], NDArray[Any]],
    files: _Files,
    position: tuple[int, ...],
) -> NDArray[Any]:
    return read_plane(position)


def _planned(image: OmeImage, images: int) -> int:
    """Return how many pages the file itself has to hold for an image without TiffData's help."""
    furthest = (plane.page + (plane.count or prod(image.lengths)) for plane in image.planes)
    return max(furthest, default=0)


def _without_thumbnails(
    path: Path, stacks: Sequence[Stack], names: Sequence[str], options: OpenOptions
) -> Stack:
    """Return the stack of a file; single smaller images beside it are left out with a remark."""
    if options.series is not None or len({s.frame_shape for s in stacks}) == 1:
        return one_of(path, stacks, names, options)
    largest = max(prod(stack.frame_shape) for stack in stacks)
    main = [i for i, stack in enumerate(stacks) if prod(stack.frame_shape) == largest]
    others = [i for i in range(len(stacks)) if i not in main]
    if any(len(stacks[i]) > 1 for i in others):
        return one_of(path, stacks, names, options)
    stack = one_of(path, [stacks[i] for i in main], [names[i] for i in main], options)
    left = described([stacks[i] for i in others], [names[i] or f"series {i}" for i in others])
    return _with_remark(stack, f"left out: smaller images beside it ({left}); --series chooses")


# --------------------------------------------------- Micro-Manager's, killed before its end

_INDICES = {
    "position": ("PositionIndex",),
    "time": ("FrameIndex", "Frame"),
    "z": ("SliceIndex", "Slice"),
    "channel": ("ChannelIndex",),
}


def _from_micro_manager(path: Path, own: TiffPages, options: OpenOptions) -> Stack | None:
    """Open a file of Micro-Manager whose OME-XML was never written, by what each page says.

    None where its pages do not say where they belong.
    """
    if options.axes is not None or "FrameIndex" not in _micro_manager_tag(own.first):
        return None
    own.look_at_each()
    said = [_micro_manager_tag(own.page(number)) for number in range(own.count)]
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
    described = _with_tags(stack, own.file, own.first)
    channels = tuple(names.get(number, "") for number in range(sizes.get("channel", 1)))
    return replace(described, channel_names=described.channel_names or channels)


def _first_of(said: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((said[key] for key in keys if said.get(key) is not None), None)


# ------------------------------------------------------------------------- all other TIFF


def _from_series(path: Path, own: TiffPages, options: OpenOptions) -> Stack:
    """Open a TIFF without OME-XML: tifffile tells its axes, ImageJ's metadata its sizes."""
    series = _series(own)
    if len(series) <= 1 or own.ends_early:
        return _one_series(path, own, series[0] if series else None, None, options)
    own.look_at_each()
    series = _series(own)
    names = [found.name or f"series {number}" for number, found in enumerate(series)]
    places = [[int(page.index) for page in found.pages if page is not None] for found in series]
    if options.series is not None:
        number = chosen_series(options, names, path)
        chosen = replace(options, series=None)
        return _one_series(path, own, series[number], places[number], chosen)
    kept = [i for i, found in enumerate(series) if "S" not in found.axes] or [0]
    stacks = [_one_series(path, own, series[i], places[i], options) for i in kept]
    stack = _without_thumbnails(path, stacks, [names[i] for i in kept], options)
    if len(kept) == len(series):
        return stack
    return _with_remark(stack, f"left out: {len(series) - len(kept)} RGB images beside it")


def _series(own: TiffPages) -> list[Any]:
    own.file.is_ome = False
    try:
        return list(own.file.series)
    except RuntimeError:  # pages of several kinds
        own.look_at_each()
        own.file.is_ome = False
        return list(own.file.series)


def _one_series(
    path: Path, own: TiffPages, series: Any, places: list[int] | None, options: OpenOptions
) -> Stack:
    letters, shape = (
        ("YX", own.file.pages.first.shape) if series is None else (series.axes, series.shape)
    )
    if "Y" not in letters or "X" not in letters:
        raise StackError(f"{path}: its axes are {letters}, expected frames (…YX)")
    if own.first.imagedepth > 1:
        raise StackError(
            f"{path}: its pages are volumes (ImageDepth); save it as a stack with a page a plane"
        )
    samples = int(shape[letters.index("S")]) if "S" in letters else 1
    leading = [
        (letter, int(n)) for letter, n in zip(letters, shape, strict=True) if letter not in "YXS"
    ]
    if own.ends_early:
        leading = _planned_axes(own) or leading
    total = prod(n for _, n in leading)
    if places is None:
        expected = own.expected()
        if expected > total and (own.ends_early or total == 1):
            leading, total = [("I", expected)], expected
        present = own.present(total)
    else:
        present = own.present(max(places) + 1)[places]
    names = _names(path, [letter for letter, _ in leading])
    sizes = dict(zip(names, (n for _, n in leading), strict=True)) or {"time": 1}
    page = own.file.pages.first if series is None else series.keyframe
    height, width = int(shape[letters.index("Y")]), int(shape[letters.index("X")])
    whole = present.reshape(tuple(sizes.values()))

    def read_plane(position: tuple[int, ...]) -> NDArray[Any]:
        plane = int(np.ravel_multi_index(position, tuple(sizes.values())))
        return own.read(plane if places is None else places[plane])

    stack = Stack(
        path=path,
        sizes=sizes,
        frame_shape=(height, width),
        dtype=np.dtype(page.dtype).newbyteorder("="),
        read=read_plane,
        present=None if whole.all() else whole,
        remarks=_ending(own, whole) + _assumed_remarks(leading, samples, options),
    )
    stack = _renamed(stack, options)
    return _with_samples(_with_tags(stack, own.file, page), samples, options)


def _ending(own: TiffPages, present: NDArray[np.bool_]) -> tuple[str, ...]:
    if present.all():
        return ()
    told = own.count == 1 or bool(_planned_axes(own))
    more = "" if told or not own.ends_early else " at least"
    missing = int(present.size - present.sum())
    return (f"the file ends too early: absent are{more} {missing} of {present.size} frames",)


def _planned_axes(own: TiffPages) -> list[tuple[str, int]]:
    """Return the axes that ImageJ wrote at the head of a file whose end is missing."""
    said = own.file.imagej_metadata or {}
    sizes = [("T", said.get("frames")), ("Z", said.get("slices")), ("C", said.get("channels"))]
    found = [(letter, int(n)) for letter, n in sizes if n and int(n) > 1]
    images = int(said.get("images") or 1)
    if prod(n for _, n in found) == images:
        return found
    return [("I", images)] if images > 1 else []


def _names(path: Path, letters: Sequence[str]) -> list[str]:
    known = [_AXES.get(letter, letter) for letter in letters]
    names = [name if name not in _ASSUMED or "time" in known else _ASSUMED[name] for name in known]
    if len(set(names)) != len(names):
        raise StackError(
            f"{path}: its axes {''.join(letters)} name one dimension twice; name them with --axes"
        )
    return [name.lower() for name in names]


def _assumed_remarks(
    leading: Sequence[tuple[str, int]], samples: int, options: OpenOptions
) -> tuple[str, ...]:
    if options.axes is not None:
        return ()
    if len(leading) == 1 and leading[0][0] in _ASSUMED and leading[0][1] in MAYBE_COLOURS:
        count = leading[0][1]
        return (f"its {count} pages are taken as time; pass --axes cyx if they are colours",)
    if [letter for letter, _ in leading] == ["Z"]:
        return ("its images are taken as planes of z; pass --axes tyx if they are time points",)
    return ()


def _renamed(stack: Stack, options: OpenOptions) -> Stack:
    """Return the stack with its axes named, and turned, as the options say."""
    if options.axes is None:
        return stack
    frame = ["y", "x"]
    lengths = [n for name, n in stack.sizes.items() if (name, n) != ("time", 1)]
    asked = options.axis_names(len(lengths) + 2 + ("s" in options.axes.split(",")[-1]), stack.path)
    names = [name for name in asked or [] if name != "s"]
    if set(names[-2:]) != set(frame):
        raise StackError(
            f"{stack.path}: --axes {options.axes} puts {names[-2]} and {names[-1]} last, expected "
            "y and x; a TIFF holds whole pages"
        )
    sizes = dict(zip(names[:-2], lengths, strict=True)) or {"time": 1}
    if names[-2:] == frame:
        return replace(stack, sizes=sizes)
    read_rows = stack.read
    return replace(
        stack,
        sizes=sizes,
        frame_shape=stack.frame_shape[::-1],
        read=lambda position: np.ascontiguousarray(np.swapaxes(read_rows(position), 0, 1)),
        pixel_size_yx_um=stack.pixel_size_yx_um and stack.pixel_size_yx_um[::-1],
    )


def _with_samples(stack: Stack, samples: int, options: OpenOptions) -> Stack:
    """Return colours as channels where that was asked for; refuse them otherwise."""
    if samples == 1:
        return stack
    if options.axes is None or "s" not in options.axes.lower():
        raise StackError(
            f"{stack.path}: an RGB image ({samples} samples a pixel); give the camera's own "
            "single-channel pixels, or read its colours as channels with --axes yxs (or tyxs)"
        )
    read_all = stack.read

    def read_sample(position: tuple[int, ...]) -> NDArray[Any]:
        pixels = read_all(position[:-1])
        planar = pixels.shape[0] == samples and pixels.shape[-1] != samples
        return np.ascontiguousarray(pixels[position[-1]] if planar else pixels[..., position[-1]])

    present = stack.present
    if present is not None:
        present = np.repeat(present[..., None], samples, axis=-1)
    return replace(
        stack, sizes={**stack.sizes, "channel": samples}, read=read_sample, present=present
    )


def _with_remark(stack: Stack, remark: str) -> Stack:
    return replace(stack, remarks=(*stack.remarks, remark))


# ------------------------------------------------------------------------------- metadata


def _with_tags(stack: Stack, file: Any, page: Any) -> Stack:
    """Add what ImageJ, Micro-Manager and the resolution tags say."""
    said = file.imagej_metadata or {}
    summary = (file.micromanager_metadata or {}).get("Summary") or {}
    image = _micro_manager_tag(page)
    size, remarks = _pixel_size_yx_um(file, page, said)
    of_manager = _first_number(image, "PixelSizeUm") or _first_number(
        summary, "PixelSize_um", "PixelSizeUm"
    )
    channels = stack.sizes.get("channel", 1)
    names = tuple(str(name) for name in summary.get("ChNames") or ()) or _labelled(said, channels)
    interval_ms = _first_number(summary, "Interval_ms", "Interval-ms")
    camera = image.get("Camera") or image.get("Core-Camera")
    attributes = {"imagej": dict(said)} if said else {}
    return replace(
        stack,
        pixel_size_yx_um=(of_manager, of_manager) if of_manager else size,
        z_step_um=length_um(said.get("spacing"), said.get("zunit") or said.get("unit"))
        or _first_number(summary, "z-step_um"),
        time_interval_s=time_s(said.get("finterval"), said.get("tunit") or "s")
        or (interval_ms / 1e3 if interval_ms else None),
        channel_names=names if len(names) == channels else (),
        camera=str(camera) if camera else None,
        exposure_ms=_first_number(image, "Exposure-ms", "Exposure", "Camera-Exposure"),
        attributes=attributes or ({"micro_manager": dict(summary)} if summary else None),
        remarks=(*stack.remarks, *(() if of_manager else remarks)),
    )


def _labelled(said: dict[str, Any], channels: int) -> tuple[str, ...]:
    """Return the channels' names where ImageJ's slices are labelled by their channel alone."""
    labels = said.get("Labels")
    if not isinstance(labels, list) or len(labels) != said.get("images"):
        return ()
    names = tuple(str(label) for label in labels[:channels])  # channels come first in its order
    repeated = all(label == names[i % channels] for i, label in enumerate(labels))
    return names if repeated and len(set(names)) == channels and channels > 1 else ()


def _micro_manager_tag(page: Any) -> dict[str, Any]:
    tag = page.tags.get("MicroManagerMetadata")
    value = None if tag is None else tag.value
    return value if isinstance(value, dict) else {}


def _first_number(said: Any, *keys: str) -> float | None:
    for key in keys:
        try:
            if (number := float(said[key])) > 0:
                return number
        except (KeyError, TypeError, ValueError):
            continue
    return None


def _pixel_size_yx_um(
    file: Any, page: Any, imagej: dict[str, Any]
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return the size of a pixel by the resolution tags, and a remark where they are no lens's."""
    per_unit = [_rational(page.tags.get(f"{axis}Resolution")) for axis in "YX"]
    if None in per_unit:
        return _lsm_pixel_size_yx_um(file), ()
    unit = imagej.get("unit")
    units = [imagej.get("yunit") or unit, unit]
    tag = page.tags.get("ResolutionUnit")
    kind = 0 if tag is None else int(tag.value)
    if length_um(1, unit) is None:
        units = [{_PER_INCH: "inch", _PER_CENTIMETRE: "cm"}.get(kind)] * 2
    height, width = (
        length_um(1 / number, u) if number else None
        for number, u in zip(per_unit, units, strict=True)
    )
    if height is None or width is None:
        left = unit and unit not in {"pixel", "pixels"} and per_unit != [1.0, 1.0]
        return None, ((f"its pixel size is left out: its unit is {unit!r}",) if left else ())
    if not imagej and max(height, width) > LARGEST_PRINTED_UM:
        return None, (f"its resolution ({width:.3g} µm a pixel) is a printer's, so left out",)
    return (height, width), ()


def _rational(tag: Any) -> float | None:
    try:
        numerator, denominator = tag.value
    except (AttributeError, TypeError, ValueError):
        return None
    return numerator / denominator if numerator and denominator else None


def _lsm_pixel_size_yx_um(file: Any) -> tuple[float, float] | None:
    said = file.lsm_metadata or {}
    height, width = (length_um(said.get(f"VoxelSize{axis}"), "m") for axis in "YX")
    return (height, width) if height and width else None
