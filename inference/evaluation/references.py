"""The truth that a frame is scored against: given, or the mean of repeats that it is not part of.

Owns the choice of the truth, its own uncertainty, and the test that repeats show a scene at rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...calibration.checks import MOST_MOTION, moved_share
from ...storage.stack import Stack
from ..errors import InferenceError
from ..runtime.camera_pixels import CameraPixels
from ..side_inputs import side_input_indices
from ..trust import NoiseVariance

FloatImage = NDArray[np.float64]

LEAST_REPEATS = 4
"""Fewer other frames make a truth that is hardly better than the frame itself."""

SAMPLED_PIXELS = 4096
"""Of each repeat, to tell whether the scene moved: what differs in a few does not matter."""

MOST_EXCESS_VARIANCE = 1.5
"""Of repeats at rest, over the noise model's: lamps flicker, and noise models err by percents."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The truth of one frame and how uncertain it is itself: (Y, X) ADU, and ADU²."""

    signal: FloatImage
    variance: FloatImage


class References(Protocol):
    """Where the truth of a frame comes from."""

    def holds(self, index: int) -> bool:
        """Whether there is a truth for frame `index`."""
        ...

    def of(self, index: int, context_frames: int) -> Reference:
        """Return the truth of a frame that is denoised with some preceding ones."""
        ...

    def remarks(self) -> list[str]:
        """Return what a person should know about this truth."""
        ...


def require_one_truth(stack: Stack, truth: Stack | None, *, static: bool) -> None:
    """Raise InferenceError unless exactly one kind of truth was given."""
    if (truth is not None) == static:
        raise InferenceError(
            f"{stack.path}: give either --truth STACK or --static (repeats of one scene)"
        )


def references(
    stack: Stack,
    truth: Stack | None,
    *,
    static: bool,
    pixels: CameraPixels,
    noise_variance: NoiseVariance | None,
) -> References:
    """Return the truth of a stack's frames.

    Raises
    ------
    InferenceError
        If not exactly one kind of truth was given, or it does not fit.
    """
    require_truth_fits(stack, truth, static=static)
    if truth is not None:
        return GivenTruth(stack, truth)
    return MeanOfOthers(stack, pixels, noise_variance)


def require_truth_fits(stack: Stack, truth: Stack | None, *, static: bool) -> None:
    """Refuse a truth that cannot be a stack's, before anything is computed.

    Raises
    ------
    InferenceError
        If not exactly one kind of truth was given, or it does not fit.
    """
    require_one_truth(stack, truth, static=static)
    if truth is None:
        if stack.sizes.get("time", 1) < LEAST_REPEATS:
            raise InferenceError(
                f"{stack.path}: --static needs repeats of one scene along time, this stack has "
                f"{dict(stack.sizes)}; give --truth"
            )
        return
    fitting = truth.frame_shape == stack.frame_shape and all(
        size in (1, stack.sizes.get(name, 1)) for name, size in truth.sizes.items()
    )
    if not fitting:
        raise InferenceError(
            f"{truth.path}: the truth has frames {truth.frame_shape} along "
            f"{dict(truth.sizes)}, the stack {stack.frame_shape} along {dict(stack.sizes)}; "
            "give one true frame, or one per frame of the stack"
        )


class GivenTruth:
    """A stack of true frames that fits: one for each, or one along any axis."""

    def __init__(self, stack: Stack, truth: Stack) -> None:
        self._stack, self._truth = stack, truth
        self._nothing = np.zeros(stack.frame_shape)

    def holds(self, index: int) -> bool:
        """Whether the true frame was recorded."""
        return self._truth.is_present(self._place(index))

    def of(self, index: int, context_frames: int) -> Reference:
        """Return the true frame, which counts as exact."""
        signal = self._truth.frame(self._place(index)).astype(np.float64)
        return Reference(signal, self._nothing)

    def remarks(self) -> list[str]:
        """Return nothing: what was given is believed."""
        return []

    def _place(self, index: int) -> int:
        axes = self._stack.axes(index)
        place = {
            name: axes.get(name, 0) if size > 1 else 0 for name, size in self._truth.sizes.items()
        }
        return self._truth.index(place)


class MeanOfOthers:
    """Repeats of one scene: the mean of the frames that were not among the inputs.

    Scored against a mean that holds its own inputs, a denoiser would look better than it is: by
    0.25 to 0.7 dB with 50 repeats.
    """

    def __init__(
        self, stack: Stack, pixels: CameraPixels, noise_variance: NoiseVariance | None
    ) -> None:
        self._stack = stack
        self._pixels = pixels
        self._noise_variance = noise_variance
        self._scene: dict[str, int] | None = None
        self._repeats = 0
        self._sum = np.zeros(stack.frame_shape)
        self._squares = np.zeros(stack.frame_shape)
        self._moved: list[str] = []

    def holds(self, index: int) -> bool:
        """Whether the frame was recorded."""
        return self._stack.is_present(index)

    def of(self, index: int, context_frames: int) -> Reference:
        """Return the mean of the frames that were no inputs, and its variance."""
        self._sum_scene(index)
        inputs = [
            index,
            *(i for i in side_input_indices(self._stack, index, context_frames) if i is not None),
        ]
        others = self._repeats - len(inputs)
        if others < LEAST_REPEATS:
            raise InferenceError(
                f"{self._stack.path}: {self._repeats} repeats leave {others} frames "
                f"that are not inputs of the model, expected at least {LEAST_REPEATS}; record "
                "more repeats or give --truth"
            )
        total, squares = self._sum.copy(), self._squares.copy()
        for place in inputs:
            frame = self._pixels.corrected(self._stack.frame(place))
            total -= frame
            squares -= frame**2
        mean = total / others
        scatter = np.maximum(squares / others - mean**2, 0) * others / (others - 1)
        return Reference(mean, scatter / others)

    def remarks(self) -> list[str]:
        """Say which scenes did not rest: their mean is no truth."""
        return self._moved

    def _sum_scene(self, index: int) -> None:
        scene = {name: i for name, i in self._stack.axes(index).items() if name != "time"}
        if scene == self._scene:
            return
        self._sum[:], self._squares[:], self._repeats = 0, 0, 0
        step = max(1, int(np.prod(self._stack.frame_shape)) // SAMPLED_PIXELS)
        sample = []
        for frame in self._frames_of(scene):
            self._repeats += 1
            self._sum += frame
            self._squares += frame**2
            sample.append(frame.ravel()[::step].astype(np.float32))
        self._scene = scene
        if remark := self._motion_in(np.stack(sample)):
            where = ", ".join(f"{name} {i}" for name, i in scene.items() if i or len(scene) > 1)
            self._moved.append((f"{where}: " if where else "") + remark)

    def _motion_in(self, sample: NDArray[np.float32]) -> str:
        """Say how repeats differ beyond their noise; nothing if they show one scene at rest.

        Slow motion shows between parts of the recording, motion from frame to frame in more
        variance than the camera makes.
        """
        share = moved_share(sample)
        excess = 1.0
        if self._noise_variance is not None:
            expected = float(self._noise_variance(sample.mean(axis=0)).mean())
            excess = float(sample.var(axis=0, ddof=1).mean()) / expected if expected > 0 else 1.0
        if share <= MOST_MOTION and excess <= MOST_EXCESS_VARIANCE:
            return ""
        found = (
            f"its pixels vary {excess:.1f} times as much as the camera's noise"
            if excess > MOST_EXCESS_VARIANCE
            else f"its parts differ by {share:.0%} of the noise"
        )
        return (
            f"the scene moved or bleached ({found}), so the mean of the repeats is no truth and "
            "these scores are worth little; give a recording at rest, or --truth"
        )

    def _frames_of(self, scene: Mapping[str, int]) -> Iterator[FloatImage]:
        for time_point in range(self._stack.sizes["time"]):
            index = self._stack.index({**scene, "time": time_point})
            if self._stack.is_present(index):
                yield self._pixels.corrected(self._stack.frame(index))
