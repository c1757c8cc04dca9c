"""Statistics of repeated frames of one scene under one light level.

Owns what is read from a stack of repeats: per-pixel mean and temporal variance over the whole
frame, and the observations of a sample of pixels for likelihood fits. Temporal variance comes
from differences of consecutive frames, so that slow drift of the lamp does not enter; what all
pixels of a frame share, a lamp that flickers, is taken out of them as well (EMVA Standard 1288,
release 4.0, section 6.6). Knows nothing of gain or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..storage.stack import Stack
from .errors import CalibrationError
from .noise_autocorrelation import LEAST_EDGE, Autocorrelation, AutocorrelationSums
from .noise_model import FloatArray

CODES = 65536
MIN_REPEATS = 2
SOME_PIXELS = 65_536
TYPICAL_PIXELS = 0.999
OUTLIER = 2.0
"""A pixel that changes by more than this many times what typical ones do counts as that much."""
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
        (N,) mean of each frame.
    light_slope
        How a change of light is spread: a pixel changes by (1 + light_slope · (its mean − mean of
        all)) where the mean of all changes by 1. Measured from the changes themselves; None where
        the light did not change.
    sample
        (N, P) observations of P sampled pixels in time order, for likelihood fits.
    sample_index
        (P,) flat indices of these pixels in the frame.
    autocorrelation
        Of the noise with that of the pixels around it, from frame differences.
    row_correlation, column_correlation
        Variance of row (column) means of the frame differences over what independent pixels
        give: 1 when rows (columns) have no noise in common.
    codes
        (65536,) how often each value occurred; a pile at either end is clipping.
    stuck
        (Y, X) pixels that gave one value only, in every frame.
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
    light_slope: float | None
    sample: NDArray[np.float32]
    sample_index: NDArray[np.intp]
    autocorrelation: Autocorrelation
    row_correlation: float
    column_correlation: float
    codes: NDArray[np.int64]
    stuck: NDArray[np.bool_]
    exposure_ms: float | None = None

    def without(self, pixels: NDArray[np.bool_]) -> LevelStatistics:
        """Return the level as if `pixels` (Y, X), stuck at one value each, were as the others."""
        if not pixels.any():
            return self
        number = int(pixels.sum())
        values = np.clip(np.rint(self.mean_adu[pixels]), 0, CODES - 1).astype(np.intp)
        kept = ~pixels.ravel()[self.sample_index]

        def filled(image: FloatArray) -> FloatArray:
            return np.where(pixels, np.mean(image, where=~pixels), image)

        total = self.frame_means_adu * self.pixels - float(self.mean_adu[pixels].sum())
        return replace(
            self,
            mean_adu=filled(self.mean_adu),
            variance_adu2=filled(self.variance_adu2),
            half_means_adu=np.stack([filled(half) for half in self.half_means_adu]),
            half_variances_adu2=np.stack([filled(half) for half in self.half_variances_adu2]),
            frame_means_adu=total / (self.pixels - number),
            sample=self.sample[:, kept],
            sample_index=self.sample_index[kept],
            codes=self.codes - self.frames * np.bincount(values, minlength=CODES),
            stuck=self.stuck & ~pixels,
        )

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
    def lag_correlation(self) -> tuple[float, float]:
        """Correlation of the noise with that of the right and of the lower neighbour, (x, y)."""
        return self.autocorrelation.at(0, 1), self.autocorrelation.at(1, 0)

    @property
    def light_changes_adu(self) -> FloatArray:
        """(N, P): what the sampled pixels owe to changes of light from frame to frame."""
        if self.light_slope is None:
            return np.zeros(self.sample.shape)
        share = 1 + self.light_slope * (self.mean_adu.ravel()[self.sample_index] - self.mean)
        changes: FloatArray = np.outer(self.frame_means_adu - self.frame_means_adu.mean(), share)
        return changes

    @property
    def flicker_adu(self) -> float:
        """Change of the light from one frame to the next, standard deviation, ADU."""
        between = float((np.diff(self.frame_means_adu) ** 2).mean() / 2)
        return float(np.sqrt(max(between - self.variance_of_frame_mean, 0.0)))

    @property
    def flickers(self) -> bool:
        """Whether frame means change more than the pixels' own noise explains."""
        between = float((np.diff(self.frame_means_adu) ** 2).mean() / 2)
        if self.light_slope is None:
            return False
        accident = 4 * np.sqrt(3 / self.frames)
        return between > self.variance_of_frame_mean * (1 + float(accident))

    @property
    def variance_of_frame_mean(self) -> float:
        """What the noise of single pixels, and of rows and columns, leaves of a frame's mean."""
        shared = max(self.row_correlation, self.column_correlation, 1.0)
        return self.variance * shared / self.pixels

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
        self.following = np.zeros((2, *shape))
        self.all_following = np.zeros(shape)
        self.changes = np.zeros(2)
        self.all_changes = 0.0
        self.least = np.full(shape, np.inf)
        self.most = np.full(shape, -np.inf)
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
        self.older = np.zeros(shape)
        self.first = self.older
        self.autocorrelation = AutocorrelationSums()
        self.power = 0.0
        self.line_variances = np.zeros(2)
        self.codes = np.zeros(CODES, dtype=np.int64)

    def add(self, index: int, pixels: NDArray[np.generic]) -> None:
        frame = pixels.astype(np.float64)
        half = (index // 2) % 2 if self.halves else 0
        self.sums[half] += frame
        self.sum_counts[half] += 1
        self.sample[index] = frame.ravel()[self.index]
        self.frame_means[index] = self._robust_mean(frame)
        np.minimum(self.least, frame, out=self.least)
        np.maximum(self.most, frame, out=self.most)
        self._count_codes(pixels)
        if self.previous is not None:
            change = float(self.frame_means[index] - self.frame_means[index - 1])
            self._add_difference(index, half, frame - self.previous, change)
            self.older += self.previous
        self.previous = frame

    def _robust_mean(self, frame: FloatArray) -> float:
        """Return the mean of a frame, in which no single pixel weighs more than others do.

        A cosmic ray, or a pixel that jumps, is no change of the light.
        """
        if self.previous is None:
            self.first = frame
            return float(frame.mean())
        change = frame - self.first
        some = np.abs(change.ravel()[self.index[:: 1 + self.index.size // SOME_PIXELS]])
        limit = OUTLIER * float(np.quantile(some, TYPICAL_PIXELS)) + 1.0
        return float(self.frame_means[0] + np.clip(change, -limit, limit).mean())

    def _add_difference(
        self, index: int, half: int, difference: FloatArray, change: float
    ) -> None:
        square, following = difference**2, change * difference
        self.all_squares += square
        self.all_following += following
        self.all_changes += change**2
        if not self.halves or index % 2:  # both frames of this difference belong to one half
            self.squares[half] += square
            self.following[half] += following
            self.changes[half] += change**2
            self.square_counts[half] += 1
        if index < 2 < len(self.sample):
            return  # a lamp that changes scales the picture, which is not known yet
        d = difference - change - self._scaled_picture(difference)
        self.power += float((d**2).mean())
        if min(d.shape) >= LEAST_EDGE:
            self.autocorrelation.add(d)
        self.line_variances += (
            (d.mean(axis=1) ** 2).mean() * d.shape[1],
            (d.mean(axis=0) ** 2).mean() * d.shape[0],
        )

    def _scaled_picture(self, difference: FloatArray) -> FloatArray | float:
        """Return what of a difference is the picture itself, brighter or darker.

        The picture is the mean of all frames before the two, with which it shares no noise.
        """
        spread = self.older - self.older.mean()
        power = float(np.vdot(spread, spread))
        return spread * (float(np.vdot(spread, difference)) / power) if power > 0 else 0.0

    def _count_codes(self, pixels: NDArray[np.generic]) -> None:
        codes = pixels
        if pixels.dtype.kind == "f":
            codes = np.clip(np.rint(pixels), 0, CODES - 1).astype(np.uint16)
        self.codes += np.bincount(codes.ravel(), minlength=CODES)

    def _light_slope(self, mean: FloatArray) -> float:
        """Return how much more a brighter pixel changes with the light than the average one.

        A lamp scales the picture; the line through all pixels is known far better than each of
        them, so that nothing of a pixel's own noise is taken for light.
        """
        spread = mean - mean.mean()
        power = float((spread**2).sum())
        if self.all_changes <= 0 or power <= 0:
            return 0.0
        return float((spread * self.all_following).sum() / power / self.all_changes)

    def _variance(
        self, squares: FloatArray, following: FloatArray, changes: float, share: FloatArray
    ) -> FloatArray:
        """Return summed squares of differences without what the light did to them.

        The change of a frame's mean holds 1/P of each pixel's own noise.
        """
        if not share.any():
            return squares
        left = squares - 2 * share * following + share**2 * changes
        found: FloatArray = np.maximum(left, 0.0) * share.size / max(share.size - 1, 1)
        return found

    def _light_changes(self) -> bool:
        """Whether frame means differ by more than the noise of their pixels explains."""
        frames, pixels = len(self.sample), self.all_squares.size
        own = float(self.all_squares.mean()) / (2 * (frames - 1)) / pixels
        between = max(
            float((np.diff(self.frame_means) ** 2).mean() / 2),
            float(self.frame_means.var(ddof=1)),
        )
        return between > own * (1 + 4 * float(np.sqrt(3 / frames)))

    def result(self, exposure_ms: float | None) -> LevelStatistics:
        frames = len(self.sample)
        pair_count = frames - 1
        total = self.sums.sum(axis=0) / frames
        # What the means of frames in steady light differ by is the pixels' own noise.
        slope = self._light_slope(total) if self._light_changes() else None
        share = np.zeros_like(total) if slope is None else 1 + slope * (total - total.mean())
        variance = self._variance(
            self.all_squares, self.all_following, self.all_changes, share
        ) / (2 * pair_count)
        if self.halves:
            means = self.sums / self.sum_counts[:, None, None]
            sums = zip(self.squares, self.following, self.changes, strict=True)
            variances = np.stack([self._variance(*one, share) for one in sums])
            variances /= 2 * self.square_counts[:, None, None]
        else:
            means, variances = np.stack([total, total]), np.stack([variance, variance])
        power = max(self.power, 1e-300)
        return LevelStatistics(
            name=self.stack.path.stem or str(self.stack.path),
            frames=frames,
            mean_adu=total,
            variance_adu2=variance,
            half_means_adu=means,
            half_variances_adu2=variances,
            frame_means_adu=self.frame_means,
            light_slope=slope,
            sample=self.sample,
            sample_index=self.index,
            autocorrelation=self.autocorrelation.result(variance, frames),
            row_correlation=self.line_variances[0] / power,
            column_correlation=self.line_variances[1] / power,
            codes=self.codes,
            stuck=self.least == self.most,
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
        (M,) W/(W − 1), times P/(P − 1) where the light of a frame of P pixels was taken from the
        frame: by this the variance of observation − signal is too small, because the signal holds
        the observation. 1 where both are independent.
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
    sample: NDArray[np.float32],
    *,
    light_changes_adu: FloatArray | None = None,
    frame_pixels: int | None = None,
    block_frames: int = BLOCK_FRAMES,
) -> Pairs:
    """Return the (signal, observation) pairs of repeats.

    The signal of a pixel is its mean over a block of W consecutive frames, so that bleaching and
    drift slower than that stay out, moved by what the light of each frame did.

    Parameters
    ----------
    sample
        (N, P) observations of P pixels in time order, ADU.
    light_changes_adu
        (N, P) what of them is owed to changes of light (see `LevelStatistics`); none by default.
    frame_pixels
        Of how many pixels the changes of light were measured.
    block_frames
        Upper limit of W.
    """
    frames = sample.shape[0]
    blocks = max(1, -(-frames // block_frames))
    parts = []
    for block in np.array_split(np.arange(frames), blocks):
        values = sample[block].astype(np.float64)
        changes = 0.0 if light_changes_adu is None else light_changes_adu[block]
        signal = (values - changes).mean(axis=0) + changes
        restore = len(block) / (len(block) - 1) if len(block) > 1 else 1.0
        if frame_pixels is not None and frame_pixels > 1:
            restore *= frame_pixels / (frame_pixels - 1)
        parts.append(
            Pairs(
                np.broadcast_to(signal, values.shape).ravel(),
                values.ravel(),
                np.full(values.size, restore),
            )
        )
    return joined(parts)
