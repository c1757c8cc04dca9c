"""What a person may say about a file that the file itself leaves open.

Owns the choices, and what they do to a stack once it is open. Each reader says by itself where it
needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .stack import Stack, StackError

AXIS_NAMES = {"t": "time", "c": "channel", "z": "z", "p": "position"}
"""The letters of NGFF and of `--axes`; other letters and words are axes of their own."""
Read = Callable[[tuple[int, ...]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How to take what a file leaves open.

    Attributes
    ----------
    series
        Which of several stacks inside: its number from 0, or its name.
    axes
        What the file's dimensions are, slowest first, as `tcyx`; or words apart by commas, as
        `repetition,exposure,y,x`. `s` marks colour samples, which become channels.
    pixels
        Convert every pixel: `uint16` stops at one that does not fit, `float32` may round.
    fill_nan
        What stands for NaN and infinity in float pixels.
    missing
        What a frame of a Zarr without a chunk is: `absent`, or `zeros` that its writer left out.
    """

    series: int | str | None = None
    axes: str | None = None
    pixels: Literal["uint8", "uint16", "float32"] | None = None
    fill_nan: float | None = None
    missing: Literal["absent", "zeros"] = "absent"

    @property
    def words(self) -> list[str]:
        """The names in `axes`; none where nothing was said."""
        said = self.axes or ""
        return axis_words(said.split(",") if "," in said else said)

    def axis_names(self, dimensions: int, what: object) -> list[str] | None:
        """Return the names of a file's dimensions; None where nothing was said.

        Raises
        ------
        StackError
            If there are more or fewer, one twice, or y or x is not among them.
        """
        if self.axes is None:
            return None
        names = self.words
        if len(names) != dimensions or len(set(names)) != len(names) or not {"y", "x"} <= {*names}:
            raise StackError(
                f"{what}: has {dimensions} dimensions, --axes {self.axes} names "
                f"{', '.join(names)}; name each once, y and x among them, as in "
                f"{'tczyx'[-dimensions:] if dimensions <= 5 else 'ptczyx'}"
            )
        return names


DEFAULTS = OpenOptions()


def axis_words(words: Iterable[str]) -> list[str]:
    """Return names of dimensions, letters as the words that they stand for."""
    names = [AXIS_NAMES.get(word.strip().lower(), word.strip()) for word in map(str, words)]
    return [name.lower() if name in {"Y", "X", "S"} else name for name in names]


def chosen_series(options: OpenOptions, names: Sequence[str], what: object) -> int:
    """Return the number of the series that was asked for.

    Raises
    ------
    StackError
        If there is none of that number or name.
    """
    wanted = options.series
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    if wanted is not None and str(wanted).isdigit() and int(wanted) < len(names):
        return int(wanted)
    shown = "; ".join(f"{number}: {name}" for number, name in enumerate(names[:12]))
    raise StackError(
        f"{what}: --series {wanted} is none of its {len(names)} series ({shown}"
        f"{' …' if len(names) > 12 else ''}); give a number or a name of these"
    )


def converted(stack: Stack, options: OpenOptions) -> Stack:
    """Return the stack with its pixels as the options want them, and a remark that says so."""
    if options.fill_nan is not None and stack.dtype.kind == "f":
        stack = replace(
            stack,
            read=_filled(stack.read, options.fill_nan),
            remarks=(*stack.remarks, f"NaN and infinite pixels are read as {options.fill_nan:g}"),
        )
    if options.pixels is None or stack.dtype.name == options.pixels:
        return stack
    wanted = np.dtype(options.pixels)
    if stack.dtype.kind not in "buif":
        raise StackError(f"{stack.path}: pixels are {stack.dtype.name}, which are no numbers")
    return replace(
        stack,
        read=_cast(stack, wanted),
        dtype=wanted,
        remarks=(*stack.remarks, f"pixels are {stack.dtype.name}, read as {wanted.name}"),
    )


def _filled(read: Read, value: float) -> Read:
    def read_filled(position: tuple[int, ...]) -> NDArray[Any]:
        pixels = read(position)
        return np.where(np.isfinite(pixels), pixels, pixels.dtype.type(value))

    return read_filled


def _cast(stack: Stack, wanted: np.dtype[Any]) -> Read:
    read, path = stack.read, stack.path

    def read_cast(position: tuple[int, ...]) -> NDArray[Any]:
        pixels = read(position)
        if wanted.kind == "u":
            limits = np.iinfo(wanted)
            low, high = pixels.min(), pixels.max()
            whole = pixels.dtype.kind != "f" or bool((pixels == np.rint(pixels)).all())
            if low < limits.min or high > limits.max or not whole:
                raise StackError(
                    f"{path}: a frame reaches from {low:g} to {high:g}"
                    f"{'' if whole else ' with fractions'}, which {wanted.name} cannot hold; read "
                    "it with --pixels float32"
                )
        return pixels.astype(wanted)

    return read_cast
