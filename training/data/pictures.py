"""A teacher's pictures of the frames: what a student is to predict, beside what it says of them.

Owns what a picture is and in which order its planes are learned from. How one comes to be is
`teaching`'s business, where it is kept that of `resident_frames`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...storage.stack import Stack
from ..errors import TrainingDataError

BYTES = 8
"""Of a pixel of a picture: two numbers in single precision."""


class Painted(Protocol):
    """Frames in memory with their pictures: `resident_frames.ResidentChunk`."""

    preceding: NDArray[np.int64]
    pictures: NDArray[np.float32]
    pictured: NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class Pictures:
    """What a stack's frames look like to a teacher that has not seen them.

    A picture is two planes in ADU, of a camera whose pixels are alike: the mean plus one standard
    deviation, and the mean.

    Attributes
    ----------
    planes
        Of a patch's target: the picture, and the means of the T preceding frames.
    paint
        Returns the pictures of a chunk's frames (N, 2, Y, X), and of which rows there are any
        (N,); None before the teacher has learned.
    """

    planes: int
    paint: Callable[[Any], tuple[NDArray[np.float32], NDArray[np.bool_]]] | None = None

    def targets(self, chunk: Painted, row: int) -> list[NDArray[Any] | None]:
        """Return the planes that belong to a row of a chunk; None where there is no picture."""
        pictures, there = chunk.pictures, chunk.pictured
        past = chunk.preceding[row][: self.planes - 2].tolist()
        return [
            pictures[row, 0],
            pictures[row, 1],
            *(pictures[p, 1] if p >= 0 and there[p] else None for p in past),
        ]


def pictures_of(stacks: Sequence[Stack], context_frames: int) -> list[Pictures]:
    """Return the pictures of each stack, yet to be painted.

    Raises
    ------
    TrainingDataError
        If the stacks hold single frames, of which nothing is known but what they show.
    """
    if not any(stack.sizes.get(axis, 1) > 1 for stack in stacks for axis in ("time", "z")):
        raise single_frames(stacks[0])
    return [Pictures(2 + context_frames) for _ in stacks]


def single_frames(stack: Stack) -> TrainingDataError:
    """Return the error that a stack holds but single frames."""
    sizes = ", ".join(f"{name} {size}" for name, size in stack.sizes.items()) or "one image"
    return TrainingDataError(
        f"{stack.path}: holds single frames ({sizes}), and student learns from what the frames "
        "before and after show; give a time series, or train a method that needs none of them "
        "(--algorithm n2v2)"
    )
