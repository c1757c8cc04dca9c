"""Score a filter without training as models are scored.

Owns the opening of the filter and the choice of one channel; the scores are `evaluate`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...calibration.noise_model import NoiseModel
from ...storage.stack import Stack
from ..classical.denoiser import ClassicalDenoiser
from ..classical.settled_strength import settle_strength
from ..errors import InferenceError
from .evaluate import Evaluation, OnProgress, evaluate


def evaluate_method(
    stack: Stack,
    method: str,
    *,
    averaged_frames: int = 1,
    strength: float | None = None,
    noise_model: NoiseModel | None = None,
    truth: Stack | None = None,
    static: bool = False,
    channel: str | None = None,
    frames: Iterable[int] | None = None,
    figures: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Score a filter frame by frame against the truth.

    Parameters
    ----------
    stack
        Noisy frames.
    method, strength, noise_model
        See `ClassicalDenoiser`. A strength that is not given is settled without the truth, and
        not timed.
    averaged_frames
        The frame itself and those before it, whose mean is filtered.
    truth, static, frames, figures, on_progress
        See `evaluate`.
    channel
        Name or number of one of several channels.

    Raises
    ------
    InferenceError
        If there is no such method or channel, or one of several was not named.
    """
    stack, truth = one_channel(stack, channel), truth and one_channel(truth, channel)
    denoiser = ClassicalDenoiser(
        method,
        stack.frame_shape,
        frames=averaged_frames,
        strength=strength,
        noise_model=noise_model,
    )
    settle_strength(denoiser, stack, range(len(stack)))
    evaluation = evaluate(
        stack,
        denoiser,
        truth=truth,
        static=static,
        noise_model=noise_model,
        frames=frames,
        figures=figures,
        on_progress=on_progress,
    )
    said: dict[str, str | int | float | None] = {
        "name": method,
        "frames": averaged_frames,
        "strength": denoiser.strength,
    }
    return replace(evaluation, method=said)


def one_channel(stack: Stack, channel: str | None) -> Stack:
    """Return a stack of one channel: the only one, or the one that is named or numbered.

    Raises
    ------
    InferenceError
        If there are several and none is named, or there is none of that name.
    """
    names, count = stack.channel_names, stack.sizes.get("channel", 1)
    if count == 1:
        return stack.channel(0)
    if channel is not None and channel in names:
        return stack.channel(names.index(channel))
    if channel is not None and channel.isdigit() and int(channel) < count:
        return stack.channel(int(channel))
    labels = ", ".join(stack.channel_labels)
    if channel is not None:
        raise InferenceError(f"{stack.path}: has no channel {channel!r}; name one of {labels}")
    raise InferenceError(
        f"{stack.path}: has several channels; name one of {labels} with --channel"
    )
