"""Folders and glob patterns: TIFF stacks as positions, single images (TIFF or PNG) as frames.

Owns what the names of files say: letters with numbers are axes (`t0003_z01`), a number alone is
the time; numbers left out are absent frames. Micro-Manager's folders of single images lie in a
folder for each position. The pixels of each file are read by its own reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..open_options import OpenOptions
from ..stack import AxisValue, Stack, StackError, require_sizes
from . import micro_manager, tiff
from .positions import one_of
from .tiff_pages import SUFFIXES

IMAGE_SUFFIXES = (*SUFFIXES, ".png")
MOST_GAPS = 2
"""Numbers that leave out more than twice as many as are there are labels, not places."""
LEFT_OUT = {".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
_PATTERN = re.compile(r"[*?\[]")
_NUMBER = re.compile(r"(?P<letters>[A-Za-z]*)[-_ ]?(?P<digits>\d+)")
_WORDS = {
    "t": "time",
    "time": "time",
    "frame": "time",
    "c": "channel",
    "ch": "channel",
    "channel": "channel",
    "w": "channel",
    "z": "z",
    "slice": "z",
    "p": "position",
    "pos": "position",
    "position": "position",
    "xy": "position",
    "s": "position",
}
_MICRO_MANAGER = re.compile(r"img_(?P<time>\d+)_(?P<channel>.+)_(?P<z>\d+)", re.IGNORECASE)
"""How Micro-Manager names single images: img_000000003_DAPI_000.tif."""


def is_pattern(path: Path) -> bool:
    """Whether this names several files with * or ?."""
    return not path.exists() and bool(_PATTERN.search(path.name))


def claims(path: Path) -> bool:
    """Whether this is a pattern, a folder with images, or a single PNG."""
    if path.is_file():
        return path.suffix.lower() == ".png"
    if is_pattern(path):
        return True
    return path.is_dir() and (bool(_images(path.iterdir())) or bool(_position_folders(path)))


def read(path: Path, options: OpenOptions) -> Stack:
    """Open the images of a folder, or those that a pattern names."""
    if path.is_file():
        return _from_images(path, [path], options)
    if is_pattern(path):
        return _from_found(path, sorted(path.parent.glob(path.name)), options)
    found = sorted(path.iterdir())
    if not _images(found):
        return _from_positions(path, _position_folders(path), options)
    stack = _from_found(path, found, options)
    return micro_manager.described(stack, *micro_manager.metadata_beside(path))


def _position_folders(path: Path) -> list[Path]:
    """Return Micro-Manager's folders of single images, one for each position."""
    folders = [item for item in path.iterdir() if (item / micro_manager.METADATA_FILE).is_file()]
    return sorted(
        (folder for folder in folders if _images(folder.iterdir())),
        key=lambda folder: _natural(folder.name),
    )


def _from_positions(path: Path, folders: Sequence[Path], options: OpenOptions) -> Stack:
    inside = replace(options, series=None)
    stacks = [read(folder, inside) for folder in folders]
    return replace(one_of(path, stacks, [f.name for f in folders], options), path=path)


def _from_found(path: Path, found: Sequence[Path], options: OpenOptions) -> Stack:
    files = _images(found)
    if not files:
        raise StackError(f"{path}: matches no TIFF or PNG file; check the pattern")
    taken = set(files)
    others = [file.name for file in found if file not in taken and file.is_file()]
    stack = (
        _from_images(path, files, options)
        if _are_single(files)
        else _from_stacks(path, files, options)
    )
    odd = [name for name in others if Path(name).suffix.lower() in LEFT_OUT]
    if odd:
        remark = f"left out: {len(odd)} files as {odd[0]}, which are not TIFF or PNG"
        stack = stack.with_remarks(remark)
    return stack


def _images(files: Iterable[Path]) -> list[Path]:
    return [
        file
        for file in files
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file() and file.name[0] != "."
    ]


def _are_single(files: Sequence[Path]) -> bool:
    """Whether each file is one image, by the first that is not empty: all take too long."""
    first = next((file for file in files if file.stat().st_size), files[0])
    if first.suffix.lower() == ".png":
        return True
    stack = tiff.read(first, OpenOptions(pixels="float32"))
    belongs_to_a_set = any("set of" in remark for remark in stack.remarks)
    return len(stack) == 1 and not belongs_to_a_set


# --------------------------------------------------------------------------------- stacks


def _from_stacks(path: Path, files: Sequence[Path], options: OpenOptions) -> Stack:
    """Open each file as a position; files that belong to one set are opened once."""
    inside = replace(options, series=None)
    stacks, names, remarks = [], [], []
    for file in sorted(files, key=lambda file: _natural(file.name)):
        try:
            stack = tiff.read(file, inside)
        except StackError as error:
            remarks.append(f"left out: {file.name} ({str(error).removeprefix(f'{file}: ')})")
            continue
        except Exception as error:  # one damaged file does not stop the others
            remarks.append(f"left out: {file.name} ({type(error).__name__})")
            continue
        if any("set of" in remark for remark in stack.remarks):
            return replace(tiff.read(file, options), path=path)
        stacks.append(stack)
        names.append(file.stem)
    if not stacks:
        raise StackError(f"{path}: none of its {len(files)} files can be read; {remarks[0]}")
    stack = one_of(path, stacks, names, options)
    return replace(stack, path=path, remarks=(*remarks, *stack.remarks))


# --------------------------------------------------------------------------- single images


def _from_images(path: Path, files: Sequence[Path], options: OpenOptions) -> Stack:
    """Open files of one frame each, in the grid that their names tell."""
    axes = [_axes_of(file.stem) for file in files]
    numbered = _tells_apart(axes)
    if not numbered:
        _require_one_series(path, files)
    found = _grid(axes) if numbered else _in_sequence(files)
    values = {name: _axis_values([place[name] for place in found]) for name in found[0]}
    sizes = {name: len(there) for name, there in values.items()} or {"time": 1}
    place_of = {name: {v: i for i, v in enumerate(there)} for name, there in values.items()}
    places = {
        file: tuple(place_of[name][value] for name, value in axes.items()) or (0,)
        for file, axes in zip(files, found, strict=True)
    }
    read_file = _file_reader(options)
    empty = [file.name for file in places if not file.stat().st_size]
    there = {place: file for file, place in places.items() if file.name not in empty}
    if not there:
        raise StackError(f"{path}: its {len(files)} files are empty; copy the recording anew")
    model = there[min(there)]
    first = read_file(model)
    require_sizes(path, tuple(sizes.values()), first.shape, first.dtype)
    if first.ndim != 2:
        raise StackError(f"{model}: an RGB image; give the camera's own single-channel pixels")
    present = np.zeros(tuple(sizes.values()), dtype=np.bool_)
    for place in there:
        present[place] = True
    described = _model(model)
    channels = values.get("channel", [])
    remarks: tuple[str, ...] = ()
    if not numbered and len(files) > 1:
        remarks += ("its images are taken as time, in the order of their names",)
    if empty:
        remarks += (f"absent: {empty[0]}: {len(empty)} of its files are empty",)
    return Stack(
        path=path,
        sizes=sizes,
        frame_shape=(first.shape[0], first.shape[1]),
        dtype=first.dtype,
        read=lambda position: read_file(there[position]),
        pixel_size_yx_um=None if described is None else described.pixel_size_yx_um,
        camera=None if described is None else described.camera,
        camera_is_label=described is not None and described.camera_is_label,
        exposure_ms=None if described is None else described.exposure_ms,
        channel_names=tuple(map(str, channels))
        if any(isinstance(c, str) for c in channels)
        else (),
        axis_values={
            name: tuple(found)
            for name, found in values.items()
            if name != "channel" and list(found) != list(range(len(found)))
        },
        present=None if present.all() else present,
        remarks=remarks,
    )


def _model(file: Path) -> Stack | None:
    return None if file.suffix.lower() == ".png" else tiff.read(file, OpenOptions())


def _file_reader(options: OpenOptions) -> Callable[[Path], NDArray[Any]]:
    def read_file(file: Path) -> NDArray[Any]:
        if file.suffix.lower() == ".png":
            from imagecodecs import png_decode

            _require_png_size(file)
            return np.asarray(png_decode(file.read_bytes()))
        stack = tiff.read(file, replace(options, series=None))
        if len(stack) != 1:
            raise StackError(f"{file}: holds {len(stack)} frames, the others one each")
        return stack.read((0,) * len(stack.sizes))

    return read_file


def _require_png_size(file: Path) -> None:
    """Refuse a picture that is too large by its head, before anything is unpacked."""
    with file.open("rb") as opened:
        head = opened.read(24)
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n":
        raise StackError(f"{file}: is no PNG file; copy it anew")
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    require_sizes(file, (1,), (height, width), np.dtype("u2"))


def _axes_of(stem: str) -> dict[str, int | str]:
    """Return what a file's name says: axis or leading word to number."""
    if found := _MICRO_MANAGER.fullmatch(stem):
        channel = found["channel"]
        return {"time": int(found["time"]), "channel": channel, "z": int(found["z"])}
    said: dict[str, int | str] = {}
    for part in _NUMBER.finditer(stem):
        letters = part["letters"].lower()
        said[_WORDS.get(letters, letters or f"number {len(said)}")] = int(part["digits"])
    return said


def _tells_apart(axes: Sequence[Mapping[str, int | str]]) -> bool:
    alike = all(list(found) == list(axes[0]) for found in axes)
    places = {tuple(found.items()) for found in axes}
    return alike and bool(axes[0]) and len(places) == len(axes)


def _grid(axes: Sequence[Mapping[str, int | str]]) -> list[dict[str, AxisValue]]:
    """Return the axes that differ between files; one that has no name of its own is the time."""
    varying = [name for name in axes[0] if len({found[name] for found in axes}) > 1]
    unnamed = [name for name in varying if name not in _WORDS.values()]
    names = {name: name for name in varying}
    if len(unnamed) == 1 and "time" not in varying:
        names[unnamed[0]] = "time"
    return [{names[name]: found[name] for name in varying} for found in axes]


def _require_one_series(path: Path, files: Sequence[Path]) -> None:
    """Refuse files of several numbered series: which of them is meant is not known."""
    series: dict[str, int] = {}
    for file in files:
        pattern = re.sub(r"\d+", "*", file.name)
        series[pattern] = series.get(pattern, 0) + 1
    if len(series) > 1 and max(series.values()) > 1:
        shown = ", ".join(f"{pattern} ({count})" for pattern, count in list(series.items())[:6])
        raise StackError(
            f"{path}: its files are several series ({shown}); give the pattern of one of them"
        )


def _in_sequence(files: Sequence[Path]) -> list[dict[str, AxisValue]]:
    order = sorted(range(len(files)), key=lambda i: _natural(files[i].name))
    numbers = {i: number for number, i in enumerate(order)}
    return [{"time": numbers[i]} for i in range(len(files))]


def _axis_values(values: Sequence[AxisValue]) -> list[AxisValue]:
    """Return the places of an axis: numbers with the gaps between them, names as they come."""
    known = list(dict.fromkeys(values))
    numbers = sorted(value for value in known if isinstance(value, int))
    if len(numbers) < len(known):
        return sorted(known, key=lambda value: _natural(str(value)))
    step = min((b - a for a, b in pairwise(numbers)), default=1)
    whole = range(numbers[0], numbers[-1] + 1, step)
    regular = all(number in whole for number in numbers)
    return list(whole) if regular and len(whole) <= (1 + MOST_GAPS) * len(numbers) else [*numbers]


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
