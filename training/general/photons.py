"""From generated scenes to what a camera counts: brightness, motion, photons, read noise.

Owns the ranges that the general model has to know: peaks from half a photoelectron to
thousands, backgrounds, read noise of every camera and of single pixels, amplified electrons,
specimens that rest, drift, blink and appear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.general import MOST_CONTEXT
from .scenes import Scene

PEAKS_E = (0.7, 2000.0)
COMMON_PEAKS_E = (3.0, 400.0)
"""Half of the examples: what most recordings of dim specimens have."""
BACKGROUNDS_E = (0.01, 60.0)
MOST_READ_NOISE_E = 6.0
ALONE_SHARE = 0.3
"""Examples without preceding frames: the first frame of a run, and single images."""
RESTING_SHARE = 0.45
FASTEST_PX = 3.0
AMPLIFIED_SHARE = 0.12
"""Examples of amplified electrons (EM-CCD, photomultiplier), whose gain is itself random; in units
of the gain times the excess factor their variance is that of photons, their form is not."""
GAIN_ERROR, READ_ERROR = 0.25, 0.25
"""Of the logarithm: how wrong gain and read noise are that a recording tells of itself. Those of
microscope images are by more, where their pixels are not what a camera counted."""
UNEVEN_SHARE = 0.2
"""Examples whose pixels differ in read noise, as those of sCMOS cameras do."""


@dataclass(frozen=True)
class Examples:
    """What one step learns from, in photoelectrons.

    Attributes
    ----------
    frames
        (N, 1 + T, Y, X), newest first.
    there
        (N, T, 1, 1): 1 where a preceding frame is there.
    read
        (N, 1, Y, X): variance that does not come from light, e⁻².
    signal
        (N, 1, Y, X): the truth.
    """

    frames: Tensor
    there: Tensor
    read: Tensor
    signal: Tensor


def draw_examples(
    pool: NDArray[np.float16], batch: int, edge: int, rng: np.random.Generator
) -> Examples:
    """Draw a batch from a pool of scenes (M, E, E)."""
    one = [_example(pool, edge, rng) for _ in range(batch)]
    return Examples(
        *(torch.from_numpy(np.stack(part).astype(np.float32)) for part in zip(*one, strict=True))
    )


def told_wrongly(drawn: Examples, rng: np.random.Generator) -> Examples:
    """Return the examples of cameras whose calibration is wrong, as one from a recording may be.

    Photoelectrons are what counts were divided by the gain into: one that is wrong makes signal
    and frames larger or smaller alike, and the noise not what their brightness says.
    """
    gain, read = (
        torch.from_numpy(np.exp(rng.normal(0, spread, (len(drawn.frames), 1, 1, 1)))).float()
        for spread in (GAIN_ERROR, READ_ERROR)
    )
    return Examples(
        drawn.frames * gain, drawn.there, drawn.read * (gain * read) ** 2, drawn.signal * gain
    )


def _example(
    pool: NDArray[np.float16], edge: int, rng: np.random.Generator
) -> tuple[NDArray[Any], ...]:
    """Draw one example: the four arrays of `Examples`, without the batch."""
    peaks = COMMON_PEAKS_E if rng.random() < 0.5 else PEAKS_E
    peak = np.exp(rng.uniform(*np.log(peaks)))
    background = np.exp(rng.uniform(*np.log(BACKGROUNDS_E))) * min(1.0, peak / 20 + 0.05)
    contrast = rng.choice([1.0, 1.0, 1.5, 0.7])
    count = 0 if rng.random() < ALONE_SHARE else int(rng.integers(1, MOST_CONTEXT + 1))
    shown = [
        background + peak * np.maximum(frame, 0) ** contrast
        for frame in _series(pool, edge, 1 + count, rng)
    ]
    read = _read_noise(edge, rng)
    amplified = rng.random() < AMPLIFIED_SHARE
    seen = [_seen(s, read, amplified, rng) for s in shown]
    if rng.random() < 0.3:  # a camera of coarse steps: rounding is part of the read noise
        step = rng.uniform(0.1, 1.0)
        seen = [np.rint(s / step) * step for s in seen]
        read = np.hypot(read, np.float32(step / np.sqrt(12)))
    frames = np.zeros((1 + MOST_CONTEXT, edge, edge), np.float32)
    frames[: 1 + count] = seen
    there = (np.arange(MOST_CONTEXT) < count).astype(np.float32)[:, None, None]
    return frames, there, read[None] ** 2, shown[0][None]


def _read_noise(edge: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the read noise of each pixel, (Y, X) e⁻."""
    level = 0.0 if rng.random() < 0.3 else MOST_READ_NOISE_E * rng.random() ** 2
    read = np.full((edge, edge), level, np.float32)
    if rng.random() < UNEVEN_SHARE:
        read *= np.exp(rng.normal(0, rng.uniform(0.05, 0.3), read.shape)).astype(np.float32)
        hot = rng.random(read.shape) < 10 ** rng.uniform(-4, -1.7)
        read[hot] = np.hypot(read[hot], rng.exponential(rng.uniform(2, 15), int(hot.sum())))
    return read


def _seen(
    signal: Scene, read: NDArray[np.float32], amplified: bool, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return one noisy frame of a signal, (Y, X) e⁻."""
    if amplified:  # Gamma after Poisson: variance 2·electrons, hence half the gain
        electrons = rng.poisson(2 * signal)
        seen: NDArray[Any] = rng.standard_gamma(np.maximum(electrons, 1e-3))
        seen = seen * (electrons > 0) / 2
    else:
        seen = rng.poisson(signal)
    return (seen + read * rng.standard_normal(signal.shape, np.float32)).astype(np.float32)


def _series(
    pool: NDArray[np.float16], edge: int, length: int, rng: np.random.Generator
) -> list[Scene]:
    """Return the scene now and at earlier times, newest first."""
    still = _patch(pool, edge, rng)
    if length == 1 or rng.random() < RESTING_SHARE:
        return [still(0.0, 0.0)] * length
    moving = _patch(pool, edge, rng)
    speed, heading = FASTEST_PX * rng.random() ** 2, rng.uniform(0, 2 * np.pi)
    step = speed * np.sin(heading), speed * np.cos(heading)
    share = rng.choice([0.0, 0.5, 1.0], p=[0.2, 0.5, 0.3])
    blink = rng.random() < 0.25
    fade = rng.uniform(0.85, 1.0) if rng.random() < 0.3 else 1.0
    frames = []
    for back in range(length):
        light = rng.choice([0.0, 1.0]) if blink else 1.0
        there = moving(back * step[0], back * step[1])
        frames.append(
            ((1 - share) * still(0.0, 0.0) + light * max(share, 0.3) * there) / fade**back
        )
    return frames


class _patch:
    """A piece of a scene, turned and flipped, that can be seen through a shifted window."""

    def __init__(self, pool: NDArray[np.float16], edge: int, rng: np.random.Generator) -> None:
        scene = pool[rng.integers(len(pool))]
        margin = int(np.ceil(FASTEST_PX * MOST_CONTEXT)) + 2
        self._edge, self._margin = edge, margin
        whole = edge + 2 * margin
        step = 2 if scene.shape[0] >= 2 * whole and rng.random() < 0.25 else 1
        y, x = (int(rng.integers(scene.shape[0] - step * whole + 1)) for _ in range(2))
        piece = scene[y : y + step * whole, x : x + step * whole].astype(np.float32)
        if step == 2:
            piece = piece.reshape(whole, 2, whole, 2).mean(axis=(1, 3))
        piece = np.rot90(piece, int(rng.integers(4)))
        self._piece = piece[:, ::-1] if rng.random() < 0.5 else piece

    def __call__(self, down: float, across: float) -> Scene:
        y, x = int(np.floor(down)), int(np.floor(across))
        fy, fx = np.float32(down - y), np.float32(across - x)
        top, left, e = self._margin + y, self._margin + x, self._edge
        p = self._piece
        shown: Scene = (
            (1 - fy) * (1 - fx) * p[top : top + e, left : left + e]
            + fy * (1 - fx) * p[top + 1 : top + 1 + e, left : left + e]
            + (1 - fy) * fx * p[top : top + e, left + 1 : left + 1 + e]
            + fy * fx * p[top + 1 : top + 1 + e, left + 1 : left + 1 + e]
        )
        return shown
