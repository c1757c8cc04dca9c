"""What `--axes` makes of the dimensions of a TIFF: names, turned frames, colours as channels.

Owns the change of a stack whose pages are known. What the file itself says comes from `ome_tiff`
and `tiff_series`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..open_options import OpenOptions
from ..stack import Stack, StackError


def renamed(stack: Stack, options: OpenOptions) -> Stack:
    """Return the stack with its axes named, and turned, as the options say."""
    if options.axes is None:
        return stack
    frame = ["y", "x"]
    lengths = [n for name, n in stack.sizes.items() if (name, n) != ("time", 1)]
    asked = options.axis_names(len(lengths) + 2 + ("s" in options.words), stack.path)
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


def with_samples(stack: Stack, samples: int, options: OpenOptions) -> Stack:
    """Return colours as channels where that was asked for; refuse them otherwise."""
    if samples == 1:
        return stack
    if "s" not in options.words:
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
