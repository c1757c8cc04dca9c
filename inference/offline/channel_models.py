"""The models of a recording: one for each of its channels, and the check that they belong to it.

Owns what a recording on disk must be for its models: their channels, pixel type, camera and other
channels. Which of several models serves a channel is the rule of `model_choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...storage.stack import Stack
from ..bundle import Bundle
from ..errors import FrameMismatchError, InferenceError
from ..general.for_camera import SENTENCE, is_general
from ..model_choice import ModelChoice, open_models
from ..provenance import ModelIdentity, recorded_camera
from ..side_inputs import other_channel_numbers

OfflineModels = Bundle | Path | str | Mapping[str | int, Bundle | Path | str]
"""One bundle for every channel, or one for each by the channel's name."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelModels:
    """Which model denoises which channel of a recording."""

    choice: ModelChoice[Bundle]
    names: Sequence[str]
    """Of the recording's channels."""

    @classmethod
    def open(cls, stack: Stack, models: OfflineModels) -> ChannelModels:
        """Open the models and assign them to the channels of `stack`.

        Raises
        ------
        InferenceError
            If a name is no channel of the stack.
        """
        found = cls(open_models(models).of_bundles(), stack.channel_labels)
        found.choice.require_channels(found.names, where=str(stack.path))
        if len({bundle.manifest.pixel_type for bundle in found.distinct().values()}) > 1:
            raise InferenceError(
                f"{stack.path}: the models of its channels take different pixel types; train "
                "them on the same camera"
            )
        return found

    @property
    def by_channel(self) -> list[Bundle | None]:
        """The model of each channel, None where it stays as it is."""
        return [self.choice.of(name) for name in self.names]

    @property
    def pixel_type(self) -> np.dtype[Any]:
        """What all models take."""
        return np.dtype(next(iter(self.distinct().values())).manifest.pixel_type)

    def denoises(self, axes: Mapping[str, int]) -> bool:
        """Whether there is a model for a frame with these axes."""
        return self._model_at(axes) is not None

    def of(self, axes: Mapping[str, int]) -> Bundle:
        """Return the model for a frame with these axes.

        Raises
        ------
        InferenceError
            If there is none.
        """
        found = self._model_at(axes)
        if found is None:
            raise InferenceError(f"a frame at {dict(axes)} is of a channel without a model")
        return found

    def distinct(self) -> dict[Path, Bundle]:
        """Return every model once, by its path."""
        return {bundle.path: bundle for bundle in self.choice.distinct_bundles()}

    def require_uncertainty(self) -> None:
        """Refuse to write an uncertainty that one of the models does not state."""
        for bundle in self.choice.distinct_bundles():
            bundle.require_uncertainty()

    def identities(self) -> dict[str, ModelIdentity]:
        """Return what identifies the model of each channel."""
        return self.choice.identities(self.names)

    def said_of_general(self) -> str | None:
        """Return what the general model is, where it denoises a channel."""
        return SENTENCE if any(map(is_general, self.distinct().values())) else None

    def require_match(self, stack: Stack, *, force: bool) -> list[str]:
        """Refuse a recording of another camera; with `force`, return how it differs.

        Raises
        ------
        FrameMismatchError
            If the pixels are of another type (or, with `force`, cannot be widened without loss),
            or a channel is not the one that the model was trained on.
        CameraMismatchError
            If the recording names a camera or a setting that the model was not trained for.
        """
        remarks = self._channel_remarks(stack, force)
        for bundle in self.choice.distinct_bundles():
            other_channel_numbers(
                stack, bundle.manifest.other_channels, what=f"the model {bundle.path}"
            )
            remarks += _pixel_type_remarks(stack, bundle, force)
        remarks += self.choice.worth()
        return remarks + self.choice.require_camera(recorded_camera(stack), force=force)

    def _model_at(self, axes: Mapping[str, int]) -> Bundle | None:
        return self.choice.of(self.names[axes.get("channel", 0)])

    def _channel_remarks(self, stack: Stack, force: bool) -> list[str]:
        """Say which channels differ from the one their model was trained on."""
        found = [
            (name, bundle.manifest.channel)
            for name, bundle in zip(stack.channel_names, self.by_channel, strict=False)
            if bundle is not None
            and bundle.manifest.channel not in (None, name)
            and len(stack.channel_names) > 1
        ]
        if found and not force:
            raise FrameMismatchError(
                f"{stack.path}: channel {found[0][0]} would be denoised by a model of channel "
                f"{found[0][1]}; give one model per channel (--model CHANNEL=BUNDLE), or pass "
                "--force"
            )
        return [f"channel is {name}, trained on {trained}" for name, trained in found]


def _pixel_type_remarks(stack: Stack, bundle: Bundle, force: bool) -> list[str]:
    taken = np.dtype(bundle.manifest.pixel_type)
    if stack.dtype == taken:
        return []
    widens = np.can_cast(stack.dtype, taken, casting="safe")
    if force and widens:
        return [f"pixels are {stack.dtype}, trained on {taken}"]
    remedy = "train one on such pixels" + (", or pass --force" if widens else "")
    raise FrameMismatchError(
        f"{stack.path}: pixels are {stack.dtype}, the model {bundle.path} takes {taken}; {remedy}"
    )
