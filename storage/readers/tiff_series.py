"""TIFF without OME-XML: tifffile tells which pages make a stack, ImageJ how long its axes are.

Owns the choice among several stacks of a file, the count of frames in one that ends too early, and
what is assumed where the file does not say. Sizes and names are read in `tiff_tags`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..open_options import OpenOptions, chosen_series
from ..stack import Stack, StackError
from .positions import without_thumbnails
from .tiff_axes import renamed, with_samples
from .tiff_pages import TiffPages
from .tiff_tags import with_tags

MAYBE_COLOURS = (3, 4)
_AXES = {"T": "time", "C": "channel", "Z": "z", "R": "position", "P": "position"}
_ASSUMED = {"I": "time", "Q": "time"}
"""Dimensions of which the file does not say what they are."""


def from_series(path: Path, own: TiffPages, options: OpenOptions) -> Stack:
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
    stack = without_thumbnails(path, stacks, [names[i] for i in kept], options)
    if len(kept) == len(series):
        return stack
    return stack.with_remarks(f"left out: {len(series) - len(kept)} RGB images beside it")


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
    names = _names(path, [letter for letter, _ in leading], options)
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
    stack = renamed(stack, options)
    return with_samples(with_tags(stack, own.file, page), samples, options)


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


def _names(path: Path, letters: Sequence[str], options: OpenOptions) -> list[str]:
    known = [_AXES.get(letter, letter) for letter in letters]
    names = [name if name not in _ASSUMED or "time" in known else _ASSUMED[name] for name in known]
    if len(set(names)) != len(names):
        if options.axes is not None:  # which gives them their names
            return [f"{name} {number}" for number, name in enumerate(names)]
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
