"""Whether recordings can teach a network at all.

Owns the refusals and what they say. Nothing is read here but what `recordings` has read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...calibration.noise_model import NoiseModel
from ...storage.stack import Stack
from ..errors import TrainingDataError
from .pixel_statistics import PixelStatistics

SMALLEST_PATCH = 32
"""Pixels: below it the deepest network has nothing around its target."""
PATCH_STEP = 16
"""Pixels: patches are multiples of it, which every network's pooling divides."""
MOST_SATURATED = 0.5
"""Share of pixels at full scale; with more of them there is no noise left to learn from."""
FULL_SCALES_ADU = tuple(2**bits - 1 for bits in range(8, 17))
"""Of cameras of 8 to 16 bits."""
MOST_OUTSIDE = 0.5
"""Share of pixels beyond the calibrated signals; with more the noise model is another camera's."""
NOTED_OUTSIDE = 0.01
"""The same, above which a person is told."""
NOISE_WIDTHS = 4
"""Standard deviations of noise around the calibrated signals in which pixels may lie."""


def require_any(stacks: Sequence[Stack]) -> None:
    """Raise TrainingDataError if there is nothing to learn from."""
    if not stacks:
        raise TrainingDataError("no stacks were given; name at least one recording to learn from")


def require_alike(stacks: Sequence[Stack]) -> None:
    """Refuse stacks of several pixel types, shapes or channels.

    Raises
    ------
    TrainingDataError
        With what differs.
    """
    require_any(stacks)
    first = stacks[0]
    for stack in stacks:
        if stack.dtype != first.dtype:
            raise TrainingDataError(
                f"{stack.path}: pixels are {stack.dtype}, those of {first.path} {first.dtype}; "
                "a model belongs to one pixel type: train one model for each"
            )
        if stack.frame_shape != first.frame_shape:
            raise TrainingDataError(
                f"{stack.path}: frames are {_shape(stack)}, those of {first.path} are "
                f"{_shape(first)}; give recordings of one camera setting, or crop them alike"
            )
        if stack.sizes.get("channel", 1) > 1:
            raise TrainingDataError(
                f"{stack.path}: holds {stack.sizes['channel']} channels; name one with --channel "
                "and train a model for each"
            )


def require_planes(stack: Stack, planes: int) -> None:
    """Refuse neighbouring planes where there are none.

    Raises
    ------
    TrainingDataError
        If the stack is no z-stack of more than one plane.
    """
    if planes and stack.sizes.get("z", 1) < 2:
        raise TrainingDataError(
            f"{stack.path}: has no planes along z ({dict(stack.sizes)}) that --planes {planes} "
            "could show; leave it out, or name the file's axes with --axes"
        )


def fitting_patch(stack: Stack, wanted: int) -> int:
    """Return the edge of the patches: what is wanted or what fits, in whole steps.

    Raises
    ------
    TrainingDataError
        If frames are smaller than the smallest patch.
    """
    fitting = min(edge // PATCH_STEP * PATCH_STEP for edge in (wanted, *stack.frame_shape))
    if fitting < SMALLEST_PATCH:
        raise TrainingDataError(
            f"{stack.path}: frames are {_shape(stack)} pixels, expected at least "
            f"{SMALLEST_PATCH}×{SMALLEST_PATCH}, one training patch; record a larger ROI"
        )
    return fitting


def _shape(stack: Stack) -> str:
    return f"{stack.frame_shape[0]}×{stack.frame_shape[1]}"


def require_contrast(stack: Stack, pixels: PixelStatistics) -> None:
    """Refuse images without content, or mostly saturated.

    Raises
    ------
    TrainingDataError
        With what was found.
    """
    if pixels.low_adu == pixels.high_adu and pixels.high_adu not in FULL_SCALES_ADU:
        raise TrainingDataError(
            f"{stack.path}: every pixel is {pixels.low_adu:g} ADU, expected an image; open the "
            "shutter, check the exposure and record again"
        )
    share = pixels.at_high / pixels.pixels
    if share > MOST_SATURATED:
        raise TrainingDataError(
            f"{stack.path}: {share:.0%} of the pixels are saturated at {pixels.high_adu:g} ADU, "
            "expected less than half; lower exposure or illumination and record again"
        )


def require_range(
    noise_model: NoiseModel,
    path: str,
    share_outside: Callable[[float, float], float],
    remark: Callable[[str], None],
) -> None:
    """Refuse a noise model that was calibrated for quite other signals than the recordings hold.

    Parameters
    ----------
    noise_model
        The camera's.
    path
        Of the recordings, for the message.
    share_outside
        Returns which share of their pixels lies outside of a range in ADU.
    remark
        Is told of a small share.

    Raises
    ------
    TrainingDataError
        If most pixels lie where it does not know the noise.
    """
    low, high = noise_model.covered_range_adu
    measured = noise_model.signal_range_adu[1]
    spread = NOISE_WIDTHS * np.sqrt(noise_model.variance(np.array([low, measured, high])))
    share = share_outside(low - spread[0], high + spread[2])
    brighter = share_outside(low - spread[0], measured + spread[1]) - share
    found = f"{share:.0%} of the pixels lie outside of the {low:.0f} to {high:.0f} ADU"
    if share > MOST_OUTSIDE:
        raise TrainingDataError(
            f"{path}: {found} that the noise model was calibrated for; calibrate with light like "
            "theirs (quietscope calibrate --out camera.npz --light-range LOW,HIGH), or leave out "
            "--noise-model to have one estimated from them"
        )
    if share > NOTED_OUTSIDE:
        remark(f"{found} that the noise model was calibrated for; it is extrapolated there")
    if brighter > NOTED_OUTSIDE:
        remark(
            f"{brighter:.0%} of the pixels are brighter than the {measured:.0f} ADU that were "
            "measured; there the camera's straight line of noise on light is used"
        )
