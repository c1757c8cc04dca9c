"""For what a library keeps a model: each camera in its setting, and each channel.

Owns which slots there are, and which runs belong to which. A slot has a model in use, or is one of
runs that no model in use serves. Which runs a candidate learns from is chosen in `run_choice`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...calibration.fingerprint import CameraFingerprint
from ...errors import QuietscopeError
from ...inference.library import Library
from ...inference.provenance import recorded_camera
from ...storage.open_stack import open_stack
from ...storage.stack import Stack
from ..data.side_inputs import channel_name, one_channel, other_channels_of
from ..errors import TrainingDataError

FEWEST_FRAMES = 8
"""Of a run; of fewer none is held out that stays the same."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A camera in its setting, and a channel.

    Attributes
    ----------
    channel
        By the name that a model knows it by; None where recordings have but one.
    camera
        What is known of it.
    current
        The model in use; None where there is none yet.
    """

    channel: str | None
    camera: CameraFingerprint
    current: Path | None = None

    @property
    def key(self) -> str:
        """What tells it from other slots of the library, readable."""
        return f"{self.channel or '*'} | {self.camera_words}"

    @property
    def camera_words(self) -> str:
        """The camera and its setting in a few words; empty where nothing is known."""
        known = self.camera.model_dump(exclude_none=True, exclude={"roi", "bit_depth"})
        return " ".join(str(value) for value in known.values())

    def holds(self, whole: Stack) -> bool:
        """Whether a run shows this channel by this camera in this setting."""
        return self._has_channel(whole) and not self.camera.differences(recorded_camera(whole))

    def _has_channel(self, whole: Stack) -> bool:
        several = whole.sizes.get("channel", 1) > 1
        if self.channel is None:
            return not several
        return _may_show(whole, self.channel)


def slots_of(shelf: Library, channel: str | None = None) -> list[Slot]:
    """Return the slots of a library, those with a model in use first.

    Parameters
    ----------
    shelf
        The library.
    channel
        By its name; leaves out all other channels.

    Raises
    ------
    QuietscopeError
        If the library is none, or its pointer is damaged.
    """
    slots = [Slot(one.channel, one.camera, shelf.bundle(one.model)) for one in shelf.in_use()]
    wanted = {channel}
    for whole in _opened(shelf):
        for name in _channels(whole, channel):
            wanted.add(name)
            if not any(_serves(slot, name, whole) for slot in slots):
                slots.append(Slot(name, recorded_camera(whole)))
    if channel is None:
        return slots
    named = [slot for slot in slots if slot.channel in wanted]
    return named or [slot for slot in slots if slot.channel is None]


def stacks_of(
    shelf: Library,
    slot: Slot,
    other_channels: Sequence[str] = (),
    fit: Callable[[Stack, Stack], bool] = lambda whole, own: True,
    most: int | None = None,
) -> list[Stack]:
    """Return the runs of a slot that belong together, newest first.

    Region, shape and type are one, those of the newest of all that are fit: `fit` is asked of a
    whole run and of its channel. The runs are whole; each has the channel and the other channels.
    """
    stacks: list[Stack] = []
    for whole in _opened(shelf):
        if len(stacks) == most:
            break
        if not slot.holds(whole) or (stacks and not _alike(whole, stacks[0])):
            continue
        try:
            own = one_channel(whole, slot.channel)
            other_channels_of(whole, slot.channel, other_channels)
            if _is_enough(own) and fit(whole, own):
                stacks.append(whole)
        except QuietscopeError:
            continue  # a run that turns out damaged must not stop the night
    return stacks


def setting_of(stack: Stack) -> tuple[object, ...]:
    """Return what all runs of one training have in common, besides the camera."""
    return stack.frame_shape, stack.dtype, recorded_camera(stack).roi


def _opened(shelf: Library) -> Iterator[Stack]:
    for run in shelf.runs():
        try:
            yield open_stack(run)
        except QuietscopeError:
            continue  # nor may one that is unreadable or unfinished


def _channels(whole: Stack, wanted: str | None) -> list[str | None]:
    """Return the channels of a run as models name them; None for one that needs no name."""
    count = whole.sizes.get("channel", 1)
    if count == 1:
        known = wanted is None or _may_show(whole, wanted)
        return [wanted] if known else []
    if wanted is not None:
        try:
            return [channel_name(whole, wanted)]
        except TrainingDataError:
            return []
    return [channel_name(whole, str(number)) for number in range(count)]


def _serves(slot: Slot, channel: str | None, whole: Stack) -> bool:
    several = whole.sizes.get("channel", 1) > 1
    return slot.holds(whole) and (slot.channel == channel or not several)


def _may_show(whole: Stack, channel: str) -> bool:
    """Whether a run has a channel; one that does not name its only channel may show any."""
    count = whole.sizes.get("channel", 1)
    unnamed = count == 1 and not whole.channel_names
    return unnamed or channel in (*whole.channel_labels, *map(str, range(count)))


def _is_enough(own: Stack) -> bool:
    return len(own) - own.absent >= FEWEST_FRAMES and own.sizes.get("channel", 1) == 1


def _alike(one: Stack, other: Stack) -> bool:
    same = setting_of(one) == setting_of(other)
    return same and not recorded_camera(one).differences(recorded_camera(other))
