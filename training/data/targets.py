"""What a network is to predict where that is no hidden pixel: the truth, or another frame at rest.

Owns which target belongs to which frame, and the tests that it may be one: a truth has to show the
same scene, and of two frames that serve as each other's target nothing may have moved in between.
Where targets are kept in memory is `resident_frames`' business.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...errors import one_line
from ...inference.side_inputs import side_input_indices
from ...storage.bounded_text import read_text
from ...storage.stack import Stack
from ..errors import TrainingDataError
from .pictures import Pictures, pictures_of

PARTNER_DISTANCES = (1, 2, 4, 8)
"""In frames: how far apart two frames may be that are each other's target. A few partners for each
teach more than one, and what drifts slowly is still at rest between them."""
BIN = 2
"""Pixels that are added up along y and x before two frames are compared, and then smoothed by a
Gaussian of as many: together about the width of a spot."""
LEVELS = 8
"""Of brightness, each with a noise of its own."""
FAR = 5.0
"""Standard deviations of the noise beyond which a pixel has changed."""
MOST_MOVED = 5e-4
"""Share of the pixels that may be so: chance and flickering pixels, no cell that crawls."""
MOST_SPREAD = 4.0
"""Of the variance of smoothed differences, relative to independent noise: noise that neighbours
share gives more than 1, a scene that moves everywhere more than this."""
PROBED_FRAMES = 8
"""Of each stack, on which a truth is placed."""
SIGNIFICANT = 5.0
"""Standard deviations by which the correlation with the truth has to stand out."""
LARGEST_SHIFT = 32
"""Pixels: two pictures that agree when one is moved further do so by chance."""
SAME_SCALE = 0.02
"""By how much a truth's brightness may differ before it is changed, and that said."""

_FRAME = re.compile(r"[0-9]{1,12}")

Image = NDArray[Any]


def targets_of(
    kind: str,
    stacks: Sequence[Stack],
    truths: Sequence[Stack],
    pairs: Path | None,
    context_frames: int,
    remark: Callable[[str], None],
    planes: int = 0,
) -> Sequence[Truth | Repeats | Pictures | None]:
    """Return what is to be predicted of each stack's frames, by the kind that a method needs.

    Raises
    ------
    TrainingDataError
        If it is not there, or not of these stacks.
    """
    if kind == "truth":
        return place_truths(stacks, truths, remark)
    if kind == "repeat":
        return (
            [Repeats()] * len(stacks)
            if pairs is None
            else read_pairs(pairs, stacks, context_frames, planes)
        )
    if kind == "picture":
        return pictures_of(stacks, context_frames)
    return [None] * len(stacks)


# ------------------------------------------------------------------------------- the truth


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The clean frames of one stack.

    Attributes
    ----------
    stack
        One true frame, or one along any axis of the noisy stack.
    factor, summand
        Bring it to the brightness of the noisy frames: truth · factor + summand, ADU.
    """

    stack: Stack
    factor: float = 1.0
    summand: float = 0.0

    def bytes_for(self, frames: int) -> int:
        """Return the size in memory of the truth of so many noisy frames."""
        return min(frames, len(self.stack)) * self.stack.bytes // len(self.stack)

    def brought(self, pixels: Image) -> Image:
        """Return true pixels as bright as the noisy ones, ADU."""
        return pixels * self.factor + self.summand

    def place(self, axes: Mapping[str, int]) -> int | None:
        """Return its frame for the noisy frame with these axes; None if it was never recorded."""
        index = self.stack.index(
            {name: axes.get(name, 0) if n > 1 else 0 for name, n in self.stack.sizes.items()}
        )
        return index if self.stack.is_present(index) else None


def place_truths(
    stacks: Sequence[Stack],
    truths: Sequence[Stack],
    remark: Callable[[str], None],
) -> list[Truth]:
    """Return the truth of each stack, brought to its brightness.

    Raises
    ------
    TrainingDataError
        If there is not one for each stack, or one has other frames, or shows another scene.
    """
    if len(truths) != len(stacks):
        raise TrainingDataError(
            f"{len(stacks)} recordings and {len(truths)} truths were given, expected one truth "
            "for each; repeat --truth in the order of the recordings"
        )
    return [_placed(stack, truth, remark) for stack, truth in zip(stacks, truths, strict=True)]


def _placed(stack: Stack, truth: Stack, remark: Callable[[str], None]) -> Truth:
    fitting = truth.frame_shape == stack.frame_shape and all(
        size in (1, stack.sizes.get(name, 1)) for name, size in truth.sizes.items()
    )
    if not fitting:
        raise TrainingDataError(
            f"{truth.path}: the truth has frames {_shape(truth)} along {dict(truth.sizes)}, "
            f"{stack.path} {_shape(stack)} along {dict(stack.sizes)}; give one true frame, or one "
            "for each frame of the recording"
        )
    plain = Truth(truth)
    places = {int(index): plain.place(stack.axes(int(index))) for index in stack.present_indices}
    there = [(index, place) for index, place in places.items() if place is not None]
    if not there:
        raise TrainingDataError(
            f"{truth.path}: holds no true frame of those that {stack.path} holds; give the truth "
            "of this recording"
        )
    chosen = np.linspace(0, len(there) - 1, min(PROBED_FRAMES, len(there))).round().astype(int)
    pairs = [
        (stack.frame(index).astype(np.float64), truth.frame(place).astype(np.float64))
        for index, place in (there[i] for i in chosen)
    ]
    if all(np.array_equal(noisy, clean) for noisy, clean in pairs):
        raise TrainingDataError(
            f"{truth.path}: holds the noisy frames of {stack.path} themselves, from which nothing "
            "is learned; give the clean frames of the same scene"
        )
    _require_same_scene(stack, truth, pairs)
    return _in_brightness(stack, truth, pairs, remark)


def _require_same_scene(stack: Stack, truth: Stack, pairs: Iterable[tuple[Image, Image]]) -> None:
    """Refuse a truth that fits better elsewhere than where it lies, or nowhere.

    Over all shifts, the correlation of two pictures of one scene is largest at none.
    """
    together: Image = np.zeros(stack.frame_shape)
    for noisy, clean in pairs:
        spectrum = np.fft.rfft2(_details(clean))
        power = np.abs(spectrum)
        # Each frequency of the truth counts alike up to its typical strength: what is smooth in
        # every picture must not decide.
        spectrum /= power + np.median(power) + 1e-12
        together += np.fft.irfft2(
            np.fft.rfft2(_details(noisy)) * spectrum.conj(), s=stack.frame_shape
        )
    around = together[np.ix_([0, 1, -1], [0, 1, -1])].max()
    if around >= together.max() and around > SIGNIFICANT * together.std():
        return
    y, x = (
        (edge // 2 - int(place)) % edge - edge // 2
        for place, edge in zip(
            np.unravel_index(int(together.argmax()), together.shape), together.shape, strict=True
        )
    )
    if together.max() > SIGNIFICANT * together.std() and 1 < max(abs(y), abs(x)) <= LARGEST_SHIFT:
        raise TrainingDataError(
            f"{truth.path}: is shifted by {y} pixels along y and {x} along x against "
            f"{stack.path}; register the two and give them again"
        )
    raise TrainingDataError(
        f"{truth.path}: shows another scene than {stack.path} (nothing in them agrees); give the "
        "truths in the order of their recordings"
    )


def _details(image: Image) -> Image:
    """Return an image without mean and slopes, which two scenes share by their light."""
    left = image - image.mean()
    rows = left.mean(axis=1, keepdims=True)
    columns = left.mean(axis=0, keepdims=True)
    return left - rows - columns  # type: ignore[no-any-return]


def _in_brightness(
    stack: Stack, truth: Stack, pairs: Iterable[tuple[Image, Image]], remark: Callable[[str], None]
) -> Truth:
    """Return a truth as bright as the frames: the noisy ones are its line plus noise."""
    noisy, clean = (np.stack(part) for part in zip(*pairs, strict=True))
    centre = clean.mean()
    factor = float(((clean - centre) * (noisy - noisy.mean())).mean() / clean.var())
    summand = float(noisy.mean() - factor * centre)
    if factor <= 0:
        raise TrainingDataError(
            f"{truth.path}: is dark where {stack.path} is bright; give the truth as the camera "
            "shows it, not its negative"
        )
    spread = clean.std()
    if (
        abs(factor - 1) < SAME_SCALE
        and abs(factor * centre + summand - centre) < SAME_SCALE * spread
    ):
        return Truth(truth)
    remark(
        f"{truth.path}: was brought to the brightness of {stack.path} (× {factor:.4g} "
        f"{'+' if summand >= 0 else '−'} {abs(summand):.4g} ADU)"
    )
    return Truth(truth, factor, summand)


def _shape(stack: Stack) -> str:
    return f"{stack.frame_shape[0]}×{stack.frame_shape[1]}"


# ------------------------------------------------------------------------- frames at rest


def at_rest(one: Image, other: Image) -> bool:
    """Return whether nothing moved between two frames (Y, X) of independent noise.

    The noise is taken from the two frames themselves, by brightness and from the median, so that
    it needs no noise model and what moves in a part of them does not count as noise. A copy is
    no frame of its own: its noise would be learned as signal.
    """
    if np.array_equal(one, other):
        return False
    difference = _binned(one.astype(np.float32) - other.astype(np.float32))
    brightness = gaussian_filter(_binned(one.astype(np.float32) + other.astype(np.float32)), 1.0)
    smooth = np.abs(gaussian_filter(difference, 1.0)).ravel()
    squares = difference.ravel() ** 2
    order = np.argsort(brightness, axis=None, kind="stable")
    far, spreads = 0, []
    for level in np.array_split(order, min(LEVELS, len(order))):
        deviation = float(np.median(smooth[level])) / 0.6745
        far += int((smooth[level] > FAR * deviation).sum()) if deviation > 0 else 0
        if (noise := float(squares[level].mean())) > 0:
            spreads.append(deviation**2 / (noise * _KEPT_VARIANCE))
    spread = float(np.median(spreads)) if spreads else 0.0
    return far <= MOST_MOVED * len(order) and spread < MOST_SPREAD


def _binned(image: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (edge // BIN * BIN for edge in image.shape)
    cells = image[:height, :width].reshape(height // BIN, BIN, width // BIN, BIN)
    return cells.sum(axis=(1, 3))  # type: ignore[no-any-return]


_KEPT_VARIANCE = 1 / (4 * math.pi)
"""Of independent noise, after a Gaussian of one pixel."""


class Repeats:
    """Which frames of a stack are targets of each other.

    Parameters
    ----------
    named
        Index to the indices that were named with it; None where a test decides.
    """

    def __init__(self, named: Mapping[int, Sequence[int]] | None = None) -> None:
        self._named = named

    @property
    def tested(self) -> bool:
        """Whether two frames have to be at rest before one is the other's target."""
        return self._named is None

    def candidates(self, stack: Stack, index: int, context_frames: int) -> list[int]:
        """Return the frames that may be the target of frame `index`, nearest first.

        None of those that it is seen together with: their noise would be known.
        """
        if self._named is not None:
            return list(self._named.get(index, ()))
        if "time" not in stack.sizes:
            return []
        axes = stack.axes(index)
        found = []
        for distance in PARTNER_DISTANCES:
            for there in (axes["time"] + distance, axes["time"] - distance):
                seen = 0 < axes["time"] - there <= context_frames
                if 0 <= there < stack.sizes["time"] and not seen:
                    other = stack.index({**axes, "time": there})
                    if stack.is_present(other):
                        found.append(other)
        return found


def read_pairs(
    path: Path, stacks: Sequence[Stack], context_frames: int, planes: int = 0
) -> list[Repeats]:
    """Read which frames show the same, one pair a line: `frame,frame` or `stack,frame,frame`.

    Numbers begin at 0. The stack need not be named where there is but one.

    Raises
    ------
    TrainingDataError
        If the file is none of that, or names frames that are not there.
    """
    found: list[dict[int, list[int]]] = [{} for _ in stacks]
    for number, row in enumerate(_rows(path), start=1):
        if not any(cell.strip() for cell in row) or (number == 1 and _is_header(row)):
            continue
        stack, one, other = _numbers(path, number, row, stacks)
        if any(
            target in side_input_indices(stacks[stack], seen, context_frames, planes=planes)
            for seen, target in ((one, other), (other, one))
        ):
            given = [
                f"--{name} {value}"
                for name, value in (("context", context_frames), ("planes", planes))
                if value
            ]
            raise TrainingDataError(
                f"{path}: line {number} pairs frames {one} and {other}, which "
                f"{' and '.join(given)} shows together; leave that out, or pair others"
            )
        found[stack].setdefault(one, []).append(other)
        found[stack].setdefault(other, []).append(one)
    if not any(found):
        raise TrainingDataError(f"{path}: names no pair; give one pair of frame numbers a line")
    return [Repeats(named) for named in found]


def told_apart(path: Path) -> str:
    """Return the name of a file of pairs, with what tells it from one of other pairs."""
    return f"{path} ({hashlib.sha256(_pairs_text(path).encode()).hexdigest()[:8]})"


def _pairs_text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise TrainingDataError(
            f"{path}: cannot be read ({one_line(error)}); give a text file with one pair of frame "
            "numbers a line, as in 0,1"
        ) from error


def _rows(path: Path) -> list[list[str]]:
    try:
        return list(csv.reader(_pairs_text(path).removeprefix("\ufeff").splitlines()))
    except csv.Error as error:
        raise TrainingDataError(
            f"{path}: is no table ({one_line(error)}); give one pair of frame numbers a line, as "
            "in 0,1"
        ) from error


def _is_header(row: Sequence[str]) -> bool:
    """Whether no cell is meant as a number: one that is no frame must not be passed over."""
    return not any(re.fullmatch(r"[+-]?[\d.]+", cell.strip()) for cell in row)


def _numbers(
    path: Path, number: int, row: Sequence[str], stacks: Sequence[Stack]
) -> tuple[int, int, int]:
    """Return stack and two frames of a line."""
    cells = [cell.strip() for cell in row]
    wanted = 2 if len(stacks) == 1 else 3
    if not all(_FRAME.fullmatch(cell) for cell in cells) or len(cells) not in (wanted, 3):
        expected = "two frame numbers" if wanted == 2 else "recording, frame, frame by number"
        raise TrainingDataError(
            f"{path}: line {number} is {','.join(cells)!r}, expected {expected}"
        )
    stack, one, other = (int(cell) for cell in (["0"] * (3 - len(cells)) + cells))
    if stack >= len(stacks):
        raise TrainingDataError(
            f"{path}: line {number} names recording {stack}, there are {len(stacks)} (from 0)"
        )
    frames = stacks[stack]
    for frame in (one, other):
        if frame >= len(frames) or not frames.is_present(frame):
            raise TrainingDataError(
                f"{path}: line {number} names frame {frame}, {frames.path} has "
                f"{frames.frames_there} (from 0)"
            )
    if one == other:
        raise TrainingDataError(
            f"{path}: line {number} pairs frame {one} with itself, whose noise is the same; name "
            "two frames"
        )
    return stack, one, other
