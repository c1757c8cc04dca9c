"""A recording as layers of napari: names, colours, contrast, distances, frames read on demand.

Owns what a layer is told. napari itself is not imported, so all of this is a matter of tuples.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..storage.display_range import display_ranges
from ..storage.stack import AbsentFrameError, DisplayRange, Stack

LayerData = tuple[Any, dict[str, Any], str]
"""What napari takes from a reader: data, how it is shown, and the kind of layer."""

Shows = Literal["raw", "denoised", "uncertainty"]

OF_CHANNELS = ("magenta", "green", "cyan", "yellow", "blue", "red")
"""Colour maps of several channels: where the first two are equally bright, their sum is white."""
OF_UNCERTAINTY = "inferno"
METADATA = "quietscope"
"""Where a layer keeps its `Origin`."""

_UNITS = {"time": "second", "z": "micrometer"}


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a layer comes from, for whoever denoises it.

    Attributes
    ----------
    stack
        One channel of a recording.
    shows
        What its pixels are.
    array
        Name of the dask array that reads it.
    """

    stack: Stack
    shows: Shows
    array: str = ""

    def is_shown_by(self, data: Any) -> bool:
        """Whether a layer's data are these very frames, not what somebody has made of them."""
        import dask.array

        return isinstance(data, dask.array.Array) and data.name == self.array


def layers_of(stack: Stack, name: str, shows: Shows) -> list[LayerData]:
    """Return a recording as one layer per channel.

    Parameters
    ----------
    stack
        The recording.
    name
        Of the layers; those of several channels begin with the channel's.
    shows
        What its pixels are.
    """
    ranges = display_ranges(stack)
    several = stack.sizes.get("channel", 1) > 1
    layers = []
    for number, label in enumerate(stack.channel_labels):
        channel = stack.channel(number)
        known = several or bool(stack.channel_names)
        layers.append(
            _layer(
                channel,
                f"{label} {name}" if known else name,
                shows,
                ranges[number] if number < len(ranges) else None,
                OF_CHANNELS[number % len(OF_CHANNELS)] if several else "gray",
            )
        )
    return layers


def _layer(
    stack: Stack, name: str, shows: Shows, limits: DisplayRange | None, colormap: str
) -> LayerData:
    is_spread, frames = shows == "uncertainty", lazy(stack)
    shown: dict[str, Any] = {
        "name": name,
        "colormap": OF_UNCERTAINTY if is_spread else colormap,
        "blending": "translucent" if colormap == "gray" or is_spread else "additive",
        "visible": not is_spread,
        **distances(stack),
        "metadata": {METADATA: Origin(stack, shows, frames.name)},
    }
    if limits is not None and not is_spread:
        shown["contrast_limits"] = limits
    return frames, shown, "image"


def distances(stack: Stack) -> dict[str, Any]:
    """Return scale, units and names of a stack's axes, y and x included."""
    known: dict[str, float | None] = {"time": stack.time_interval_s, "z": stack.z_step_um}
    height, width = stack.pixel_size_yx_um or (None, None)
    names = [*stack.sizes, "y", "x"]
    steps = [*(known.get(name) for name in stack.sizes), height, width]
    return {
        "scale": [step or 1.0 for step in steps],
        "units": [
            _UNITS.get(name, "micrometer") if step else "pixel"
            for name, step in zip(names, steps, strict=True)
        ],
        "axis_labels": names,
    }


def lazy(stack: Stack) -> Any:
    """Return a dask array (…, Y, X) along a stack's axes, one frame per chunk."""
    import dask.array

    frames = _Frames(stack)
    chunks = (*(1 for _ in stack.sizes), *stack.frame_shape)
    return dask.array.from_array(frames, chunks=chunks, name=False, asarray=False, lock=True)


class _Frames:
    """As much of an array as dask asks for: blocks of frames, read when they are wanted.

    Frames that a recording lacks are shown as zeros; NaN of a float.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.shape = (*stack.sizes.values(), *stack.frame_shape)
        self.dtype = stack.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, asked: tuple[Any, ...]) -> NDArray[Any]:
        outer = [
            np.arange(size)[part]
            for size, part in zip(self._stack.sizes.values(), asked, strict=False)
        ]
        rows, columns = asked[len(outer) :]
        places = np.ix_(*(np.atleast_1d(part) for part in outer))
        indices: Any = np.ravel_multi_index(places, tuple(self._stack.sizes.values()))
        found = np.stack([self._frame(int(i))[rows, columns] for i in indices.flat])
        kept = tuple(len(part) for part in outer if part.ndim)
        return found.reshape(*kept, *found.shape[1:])

    def _frame(self, index: int) -> NDArray[Any]:
        try:
            return self._stack.frame(index)
        except AbsentFrameError:
            nothing = np.nan if self.dtype.kind == "f" else 0
            return np.full(self._stack.frame_shape, nothing, self.dtype)


def bytes_of_result(stack: Stack, uncertainty: bool) -> int:
    """Return how large a denoised stack is in memory."""
    return len(stack) * prod(stack.frame_shape) * 4 * (1 + uncertainty)
