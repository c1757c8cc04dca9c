"""Several images of one kind as one stack with an axis of positions.

Owns the joining: images of unequal length get absent frames at their ends. Which images belong
together is decided by the reader of their format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..open_options import OpenOptions, chosen_series
from ..stack import AxisValue, Stack, StackError

POSITION = "position"


def one_of(
    path: Path, images: Sequence[Stack], names: Sequence[str], options: OpenOptions
) -> Stack:
    """Return the image that was asked for, or all of one kind as positions of one stack.

    Raises
    ------
    StackError
        If there are several kinds and none was chosen, or none is what was chosen.
    """
    if options.series is not None:
        return images[chosen_series(options, list(names), path)]
    if len(images) == 1:
        return images[0]
    if any(_kind(image) != _kind(images[0]) for image in images):
        raise StackError(
            f"{path}: holds stacks of several kinds ({described(images, names)}); choose one with "
            "--series"
        )
    return joined(path, images, names)


def without_thumbnails(
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
    return stack.with_remarks(f"left out: smaller images beside it ({left}); --series chooses")


def joined(path: Path, images: Sequence[Stack], names: Sequence[AxisValue]) -> Stack:
    """Return images of one kind as positions, named, of one stack."""
    first = images[0]
    # A recording that was stopped in mid-round has positions of unequal length.
    sizes = {name: max(image.sizes[name] for image in images) for name in first.sizes}
    present = np.stack([_padded(image, sizes) for image in images])
    numbers = list(names) == [str(i) for i in range(len(images))] or list(names) == list(
        range(len(images))
    )
    remarks = dict.fromkeys(remark for image in images for remark in image.remarks)
    return replace(
        first,
        path=path,
        sizes={POSITION: len(images), **sizes},
        read=lambda place: images[place[0]].read(place[1:]),
        channel_names=max((image.channel_names for image in images), key=len),
        axis_values={**first.axis_values, **({} if numbers else {POSITION: tuple(names)})},
        present=None if present.all() else present,
        remarks=tuple(remarks),
    )


def arranged(
    path: Path, images: Mapping[int, Stack], places: Sequence[Mapping[str, AxisValue]]
) -> Stack:
    """Return images as one stack whose outer axes are those that `places` tells of each number.

    Places of which there is no image are absent frames.
    """
    names = list(places[0])
    values = {name: list(dict.fromkeys(place[name] for place in places)) for name in names}
    outer = tuple(len(values[name]) for name in names)
    first = joined(path, list(images.values()), list(range(len(images))))
    inner = {name: n for name, n in first.sizes.items() if name != POSITION}
    present = np.zeros((*outer, *inner.values()), dtype=np.bool_)
    of: dict[tuple[int, ...], Stack] = {}
    for number, image in images.items():
        place = tuple(values[name].index(places[number][name]) for name in names)
        of[place], present[place] = image, _padded(image, inner)
    return replace(
        first,
        sizes={**dict(zip(names, outer, strict=True)), **inner},
        read=lambda where: of[where[: len(outer)]].read(where[len(outer) :]),
        axis_values={
            **{name: v for name, v in first.axis_values.items() if name != POSITION},
            **{name: tuple(v) for name, v in values.items() if v != list(range(len(v)))},
        },
        present=None if present.all() else present,
    )


def described(images: Sequence[Stack], names: Sequence[str]) -> str:
    """Name images with their sizes, for a message that asks to choose."""
    shown = [
        f"{number}: {name or 'unnamed'}, {len(image)} of {_shape(image)}"
        for number, (name, image) in enumerate(zip(names, images, strict=True))
    ]
    return "; ".join(shown[:8]) + (" …" if len(shown) > 8 else "")


def _shape(image: Stack) -> str:
    return f"{image.frame_shape[0]}×{image.frame_shape[1]} {image.dtype.name}"


def _kind(image: Stack) -> tuple[object, ...]:
    return tuple(image.sizes), image.frame_shape, image.dtype


def _padded(image: Stack, sizes: Mapping[str, int]) -> NDArray[np.bool_]:
    """Return which frames of an image are there, in a grid that may be larger than its own."""
    there: NDArray[Any] = np.zeros(tuple(sizes.values()), dtype=np.bool_)
    there[tuple(slice(n) for n in image.sizes.values())] = (
        True if image.present is None else image.present
    )
    return there
