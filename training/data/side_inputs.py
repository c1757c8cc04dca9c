"""What a model learns from besides a channel's own frames: other channels, pixel maps, targets.

Owns the choice of a stack's channel and of its other channels, and which part of the camera's maps
belongs to a stack. Reading and drawing is done in `recordings`, `resident_frames` and `patches`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.pixel_maps import part_of
from ...inference.provenance import recorded_camera
from ...inference.side_inputs import arrives_earlier, index_at, moment_of, side_inputs
from ...storage.stack import Stack
from ..errors import TrainingDataError
from .pictures import Pictures
from .targets import Repeats, Truth


@dataclass(frozen=True, slots=True, eq=False)
class OtherChannel:
    """Another channel of a recording.

    Attributes
    ----------
    stack
        Its frames alone, with the axes of the channel that is trained on.
    number
        Its place among the channels of the recording.
    own
        That of the channel that is trained on.
    """

    stack: Stack
    number: int
    own: int

    def index(self, index: int) -> int | None:
        """Return its frame that is newest as frame `index` arrives; None if there is none."""
        axes = self.stack.axes(index)
        own = moment_of(axes)._replace(channel=self.own)
        (newest,) = side_inputs(own, 0, (self.number,))
        return index_at(self.stack, axes, newest)


@dataclass(frozen=True, slots=True, eq=False)
class SideInputs:
    """What one stack is seen together with.

    Attributes
    ----------
    other_channels
        Its other channels, in the order of the model's input.
    pixel_maps
        (3, Y, X) of `PixelMaps.correction` for its frames; None if all pixels count alike.
    target
        What is to be predicted of its frames; None where the frames themselves say.
    """

    other_channels: tuple[OtherChannel, ...] = ()
    pixel_maps: NDArray[np.float32] | None = None
    target: Truth | Repeats | Pictures | None = None

    def brought(self, target: NDArray[Any]) -> NDArray[Any]:
        """Return pixels of a target as bright as the frames, ADU."""
        return self.target.brought(target) if isinstance(self.target, Truth) else target

    @property
    def target_planes(self) -> int:
        """How many planes of a patch hold what is to be predicted."""
        if isinstance(self.target, Pictures):
            return self.target.planes
        return int(self.target is not None)


NO_SIDE_INPUTS = SideInputs()


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A real frame with its side inputs.

    Attributes
    ----------
    observations
        (1 + T + 2Z + C, Y, X) in the camera's pixel type; missing frames are zeros.
    pixel_maps
        (3, Y, X) of these pixels, where they count each as its own.
    target
        (Y, X) or (K, Y, X) ADU of what is to be predicted, where the frames themselves do not say.
    origin
        Stack, frame and the part of it that this is; None where it is of no use to know.
    """

    observations: NDArray[Any]
    pixel_maps: NDArray[np.float32] | None = None
    target: NDArray[Any] | None = None
    origin: tuple[Stack, int, tuple[slice, slice]] | None = None

    def crop(self, height: int, width: int) -> tuple[NDArray[Any], ...]:
        """Return the upper left of it, as the graph takes it."""
        planes = [self.observations] + ([] if self.pixel_maps is None else [self.pixel_maps])
        return tuple(np.ascontiguousarray(p[None, :, :height, :width]) for p in planes)


def one_channel(stack: Stack, channel: str | None) -> Stack:
    """Return the named or numbered channel of a stack; the stack itself where it has but one."""
    count = stack.sizes.get("channel", 1)
    if count == 1 or channel is None:
        return stack.channel(0) if count == 1 else stack
    return stack.channel(channel_number(stack, channel))


def channel_number(stack: Stack, channel: str) -> int:
    """Return the place of a channel that is given by its name or its number.

    Raises
    ------
    TrainingDataError
        If the stack has no such channel.
    """
    count = stack.sizes.get("channel", 1)
    if channel in stack.channel_names:
        return stack.channel_names.index(channel)
    if channel in map(str, range(count)):
        return int(channel)
    names = ", ".join(stack.channel_names) or f"0 to {count - 1}"
    raise TrainingDataError(f"{stack.path}: has no channel {channel!r}, it has {names}")


def channel_name(stack: Stack, channel: str) -> str:
    """Return by which name a model knows a channel that is given by its name or its number."""
    number, names = channel_number(stack, channel), stack.channel_names
    # Of two channels of one name only the number tells which.
    return names[number] if names and names.count(names[number]) == 1 else str(number)


def other_channels_of(
    stack: Stack, channel: str | None, names: Sequence[str]
) -> tuple[OtherChannel, ...]:
    """Return the other channels of a stack.

    Raises
    ------
    TrainingDataError
        If it has no such channels, or one can never have come before.
    """
    if not names:
        return ()
    if channel is None:
        raise TrainingDataError(
            f"{stack.path}: other channels {', '.join(names)} were named but no channel to "
            "denoise; name it with --channel"
        )
    own = channel_number(stack, channel)
    found = []
    for name in names:
        number = channel_number(stack, name)
        if number == own:
            raise TrainingDataError(
                f"{stack.path}: channel {channel} is named as another channel of its own; "
                "name a different one"
            )
        if not arrives_earlier(number, own) and stack.sizes.get("time", 1) == 1:
            raise TrainingDataError(
                f"{stack.path}: channel {name} is recorded after {channel} and there is no "
                "earlier time point, so it can never be given; leave it out"
            )
        found.append(OtherChannel(stack.channel(number), number, own))
    return tuple(found)


def place_maps(
    noise_model: GaussianMixtureNoiseModel, stacks: Sequence[Stack], remark: Callable[[str], None]
) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]] | None:
    """Return the maps of the calibrated region, and those of each stack.

    None where the camera's pixels are alike, or it is not known which of them a stack shows.
    """
    maps, law = noise_model.maps, noise_model.photon_transfer
    if maps is None or law.offset_adu is None or not maps.uneven:
        return None
    whole = maps.correction(
        offset_adu=law.offset_adu,
        dark_variance_adu2=noise_model.least_variance_adu2,
        range_adu=law.saturation_adu,
    )
    shape, calibrated = (whole.shape[1], whole.shape[2]), noise_model.fingerprint.roi
    parts = []
    for stack in stacks:
        part = part_of(calibrated, shape, recorded_camera(stack).roi, stack.frame_shape)
        if part is None:
            remark(
                f"{stack.path}: which of the {shape[1]}×{shape[0]} calibrated pixels it shows is "
                "not known, so that its pixels count alike; hot pixels stay in the result"
            )
            return None
        parts.append(np.ascontiguousarray(whole[:, part[0], part[1]]))
    return whole, tuple(parts)
