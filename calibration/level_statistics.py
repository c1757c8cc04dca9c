"""Statistics of repeated frames of one scene under one light level.

Owns what is read from a stack of repeats: per-pixel mean and temporal variance over the whole
frame, and the observations of a sample of pixels for likelihood fits. Temporal variance comes
from differences of consecutive frames, so that slow drift of the lamp does not enter (EMVA
Standard 1288, release 4.0, section 6.6). Knows nothing of gain or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..storage.stack import Stack
from .errors import CalibrationError
from .noise_model import FloatArray

CODES = 65536
MIN_REPEATS = 2
BLOCK_FRAMES = 32
"""Longest run of frames over which one pixel's signal is taken as constant."""


@dataclass(frozen=True, slots=True, eq=False)
class LevelStatistics:
    """One light level: what its repeats say about every pixel.

    Attributes
    ----------
    name
        For messages and the report.
    frames
        N, the number of repeats.
    mean_adu, variance_adu2
        (Y, X): temporal mean, and temporal variance from differences of consecutive frames.
    half_means_adu, half_variances_adu2
        (2, Y, X): the same from the first and from the second half of each four frames
        (0, 1, 4, 5, … and 2, 3, 6, 7, …): two independent measurements of every pixel, for
        groupings that must not select on their own noise. With fewer than four frames both halves
        are the whole.
    frame_means_adu
        (N,) mean of each frame over the sampled region.
    sample
        (N, P) observations of P sampled pixels in time order, for likelihood fits.
    sample_index
        (P,) flat indices of these pixels in the frame.
    lag_correlation
        Correlation of the noise with its right and with its lower neighbour, (x, y), from frame
        differences.
    row_correlation, column_correlation
        Variance of row (column) means of the frame differences over what independent pixels
        give: 1 when rows (columns) have no noise in common.
    codes
        (65536,) how often each value occurred; a pile at either end is clipping.
    exposure_ms
        Exposure of this level, where known.
    """

    name: str
    frames: int
    mean_adu: FloatArray
    variance_adu2: FloatArray
    half_means_adu: FloatArray
    half_variances_adu2: FloatArray
    frame_means_adu: FloatArray
    sample: NDArray[np.float32]
    sample_index: NDArray[np.intp]
    lag_correlation: tuple[float, float]
    row_correlation: float
    column_correlation: float
    codes: NDArray[np.int64]
    exposure_ms: float | None = None

    @property
    def pixels(self) -> int:
        """Pixels per frame."""
        return self.mean_adu.size

    @property
    def observations(self) -> int:
        """Number of single observations behind the maps."""
        return self.frames * self.pixels

    @property
    def mean(self) -> float:
        """Mean over frame and repeats, ADU."""
        return float(self.mean_adu.mean())

    @property
    def variance(self) -> float:
        """Mean temporal variance of a pixel, ADU²."""
        return float(self.variance_adu2.mean())

    @property
    def top_code(self) -> int:
        """Highest value that occurred."""
        return int(np.flatnonzero(self.codes)[-1])

    @property
    def zero_share(self) -> float:
        """Share of observations at 0."""
        return float(self.codes[0] / self.observations)

    @property
    def piled_at_top(self) -> bool:
        """Whether values pile up at the highest one, as only clipping makes them."""
        top = self.top_code
        below = int(self.codes[max(top - 3, 0) : top].max(initial=0))
        return top > 0 and int(self.codes[top]) > 10 + 3 * below


def level_statistics(
    stack: Stack,
    *,
    max_sample: int = 2_000_000,
    seed: int = 0,
    exposure_ms: float | None = None,
    on_frame: Callable[[], None] | None = None,
) -> LevelStatistics:
    """Read one stack of repeats, frame by frame.

    Parameters
    ----------
    stack
        N frames of one static scene under constant light. All its axes count as repeats; absent
        frames are left out.
    max_sample
        Upper limit of observations kept for likelihood fits (pixels are drawn at random).
    seed
        Of that draw.
    exposure_ms
        Exposure of this level where known.
    on_frame
        Called after every frame, for progress.

    Raises
    ------
    CalibrationError
        With fewer than two frames, of which no temporal variance can be had.
    """
    frames = len(stack) - stack.absent
    if frames < MIN_REPEATS:
        raise CalibrationError(
            f"{stack.path}: {frames} frame, expected repeats of one static scene (at least "
            f"{MIN_REPEATS}, better 50); record more, or use --bootstrap for ordinary data"
        )
    accumulator = _Accumulator(stack, max_sample, seed)
    for row, index in enumerate(stack.present_indices):
        accumulator.add(row, stack.frame(int(index)))
        if on_frame is not None:
            on_frame()
    return accumulator.result(exposure_ms)


class _Accumulator:
    """Sums over frames; one pass, so that a stack larger than memory can be read."""

    def __init__(self, stack: Stack, max_sample: int, seed: int) -> None:
        shape, frames = stack.frame_shape, len(stack) - stack.absent
        self.stack = stack
        self.sums = np.zeros((2, *shape))
        self.squares = np.zeros((2, *shape))
        self.all_squares = np.zeros(shape)
        self.sum_counts = np.zeros(2)
        self.square_counts = np.zeros(2)
        self.halves = frames >= 4
        pixels = prod(shape)
        kept = min(pixels, max(16, max_sample // frames))
        index = np.random.default_rng(seed).choice(pixels, size=kept, replace=False)
        self.index = np.sort(index)
        self.sample = np.empty((frames, kept), dtype=np.float32)
        self.frame_means = np.empty(frames)
        self.previous: FloatArray | None = None
        self.products = np.zeros(3)
        self.line_variances = np.zeros(2)
        self.codes = np.zeros(CODES, dtype=np.int64)

    def add(self, index: int, pixels: NDArray[np.generic]) -> None:
        frame = pixels.astype(np.float64)
        half = (index // 2) % 2 if self.halves else 0
        self.sums[half] += frame
        self.sum_counts[half] += 1
        self.sample[index] = frame.ravel()[self.index]
        self.frame_means[index] = frame.mean()
        self._count_codes(pixels)
        if self.previous is not None:
            self._add_difference(index, half, frame - self.previous)
        self.previous = frame

    def _add_difference(self, index: int, half: int, difference: FloatArray) -> None:
        square = difference**2
        self.all_squares += square
        if not self.halves or index % 2:  # both frames of this difference belong to one half
            self.squares[half] += square
            self.square_counts[half] += 1
        # The mean is lamp flicker, not noise of pixels.
        d = difference - difference.mean()
        self.products += (
            (d**2).mean(),
            (d[:, 1:] * d[:, :-1]).mean() if d.shape[1] > 1 else 0.0,
            (d[1:] * d[:-1]).mean() if d.shape[0] > 1 else 0.0,
        )
        self.line_variances += (
            (d.mean(axis=1) ** 2).mean() * d.shape[1],
            (d.mean(axis=0) ** 2).mean() * d.shape[0],
        )

    def _count_codes(self, pixels: NDArray[np.generic]) -> None:
        codes = pixels
        if pixels.dtype.kind == "f":
            codes = np.clip(np.rint(pixels), 0, CODES - 1).astype(np.uint16)
        self.codes += np.bincount(codes.ravel(), minlength=CODES)

    def result(self, exposure_ms: float | None) -> LevelStatistics:
        frames = len(self.sample)
        pair_count = frames - 1
        total = self.sums.sum(axis=0) / frames
        variance = self.all_squares / (2 * pair_count)
        if self.halves:
            means = self.sums / self.sum_counts[:, None, None]
            variances = self.squares / (2 * self.square_counts[:, None, None])
        else:
            means, variances = np.stack([total, total]), np.stack([variance, variance])
        power = max(self.products[0], 1e-300)
        return LevelStatistics(
            name=self.stack.path.stem or str(self.stack.path),
            frames=frames,
            mean_adu=total,
            variance_adu2=variance,
            half_means_adu=means,
            half_variances_adu2=variances,
            frame_means_adu=self.frame_means,
            sample=self.sample,
            sample_index=self.index,
            lag_correlation=(self.products[1] / power, self.products[2] / power),
            row_correlation=self.line_variances[0] / power,
            column_correlation=self.line_variances[1] / power,
            codes=self.codes,
            exposure_ms=exposure_ms,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Signals and observations of the same pixels.

    Attributes
    ----------
    signal
        (M,) ADU: mean over a block of W repeats that holds the observation itself.
    observation
        (M,) ADU, as the camera gave it.
    restore
        (M,) W/(W − 1): by this the variance of observation − signal is too small, because the
        mean holds the observation. 1 where signal and observation are independent.
    """

    signal: FloatArray
    observation: FloatArray
    restore: FloatArray

    def __len__(self) -> int:
        return self.signal.size

    @property
    def squares(self) -> FloatArray:
        """Squared residuals, unbiased, ADU²."""
        found: FloatArray = (self.observation - self.signal) ** 2 * self.restore
        return found


def joined(pairs: Sequence[Pairs]) -> Pairs:
    """Return several sets of pairs as one."""
    return Pairs(
        np.concatenate([part.signal for part in pairs]),
        np.concatenate([part.observation for part in pairs]),
        np.concatenate([part.restore for part in pairs]),
    )


def signal_observation_pairs(
    sample: NDArray[np.float32], *, block_frames: int = BLOCK_FRAMES
) -> Pairs:
    """Return the (signal, observation) pairs of repeats.

    The signal of a pixel is its mean over a block of W consecutive frames, so that bleaching and
    drift slower than that stay out.

    Parameters
    ----------
    sample
        (N, P) observations of P pixels in time order, ADU.
    block_frames
        Upper limit of W.
    """
    frames = sample.shape[0]
    blocks = max(1, -(-frames // block_frames))
    parts = []
    for block in np.array_split(np.arange(frames), blocks):
        values = sample[block].astype(np.float64)
        mean = values.mean(axis=0)
        restore = len(block) / (len(block) - 1) if len(block) > 1 else 1.0
        parts.append(
            Pairs(
                np.broadcast_to(mean, values.shape).ravel(),
                values.ravel(),
                np.full(values.size, restore),
            )
        )
    return joined(parts)
