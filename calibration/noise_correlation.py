"""What pixels share of their noise: with which neighbours, and with their whole row or column.

Owns the measurement on ordinary recordings, and what a person is told about it. That of repeats,
to a thousandth and with the gain in mind, is in `noise_autocorrelation`.

Differences of successive frames hold noise, and what moves. Where nothing moves their
autocorrelation is that of the noise as it stands. Elsewhere, and in single frames, a second
difference in both directions (the Laplacian) is taken first: it leaves next to nothing of what is
smooth. What it does to the noise is known, since its own autocorrelation is, and is undone by
least squares for a noise that is correlated over a few pixels. The median over blocks of the
frames keeps little of what moves or is sharp all the same.

What a whole row shares, however little, is summed up by an eye along the row. It is measured
apart, as the covariance of distant parts of the same row: their pixels share nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from ..storage.stack import Stack

REACH = 8
"""Pixels: the longest lag along either axis."""
FAR = 6
"""Lags from here on say whether anything moved: what moves is larger than a few pixels."""
MOVES = 0.015
"""Correlation at far lags that noise of a few pixels' reach does not have."""
FILTERED_REACH = 5
"""Of the correlation that is found through the Laplacian."""
MARGIN = 2
"""Further lags that are looked at there: the filter's own reach."""
PRIOR_REACH = 1.5
"""Pixels over which correlation is expected to fall off where data cannot tell: the Laplacian
leaves little of long waves."""
COMPARED_FRAMES = 12
"""Pairs of frames of a recording: of a quarter of a million pixels, good to half a percent."""
EDGE = 512
BLOCK = 32
CALM_SHARE = 0.25
"""Of the blocks of single frames, those with least structure, that count."""
FEWEST_BLOCKS = 9
"""That count all the same: of fewer the median says little."""
LEAST_CORRELATION = 0.02
STRONG_CORRELATION = 0.1
LEAST_LINE_SHARE = 0.005
"""Of the noise's variance, shared by whole rows: a tenth of the error that a good model leaves."""
MOST_LINE_SHARE = 0.95
"""Of rows and columns together, as noise like it is drawn."""
SURE = 4.0
"""Standard errors by which line noise has to differ from none."""
CONFIDENCE = 1.96
LARGEST_ERROR_OF_POWER = 1.0
"""Of a wave, of what it has in white noise: by so much it may come out below zero by chance."""
SMALLEST_ERROR = 1e-3
"""Of a correlation that was measured: structure is never gone altogether."""

FloatArray = NDArray[np.float64]
Axis = Literal["x", "y"]
Origin = Literal["resting frames", "moving frames", "single frames", "no noise"]


@dataclass(frozen=True, slots=True)
class LineNoise:
    """What the pixels of whole rows, or columns, share.

    Attributes
    ----------
    share
        Of the noise's variance.
    error
        Its standard error.
    """

    share: float
    error: float

    @property
    def found(self) -> bool:
        """Whether there is any, beyond chance and beyond what matters."""
        return self.share > max(SURE * self.error, LEAST_LINE_SHARE)


NO_LINES = LineNoise(0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class NoiseCorrelation:
    """The autocorrelation of the noise.

    Attributes
    ----------
    table
        (2·REACH + 1, 2·REACH + 1) correlation with the pixel so many rows and columns away; 1 in
        the middle. What whole rows and columns share is taken out elsewhere.
    interval
        Of the same shape: half of its 95 % interval.
    rows, columns
        What whole rows and whole columns share.
    origin
        What it was measured on. Only resting frames show it as it is. Where structure hides all
        noise, or there is none, nothing is known, and nothing said to be correlated.
    duplicates
        Pairs of successive frames that are the same to the last digit.
    """

    table: FloatArray
    interval: FloatArray
    rows: LineNoise = NO_LINES
    columns: LineNoise = NO_LINES
    origin: Origin = "resting frames"
    duplicates: int = 0

    def at(self, dy: int, dx: int) -> float:
        """Return the correlation with the pixel `dy` rows and `dx` columns on."""
        return float(self.table[REACH + dy, REACH + dx])

    @property
    def x(self) -> tuple[float, ...]:
        """Correlation at lags 1 to REACH along x."""
        return tuple(self.table[REACH, REACH + 1 :].tolist())

    @property
    def y(self) -> tuple[float, ...]:
        """Correlation at lags 1 to REACH along y."""
        return tuple(self.table[REACH + 1 :, REACH].tolist())

    @property
    def rests(self) -> bool:
        """Whether successive frames differ by noise alone."""
        return self.origin == "resting frames"

    def axis(self) -> Axis:
        """Return the axis along which noise is correlated more."""
        if not self.is_strong() and self.rows.found != self.columns.found:
            return "x" if self.rows.found else "y"
        return "y" if abs(self.y[0]) > abs(self.x[0]) else "x"

    def along(self, axis: Axis) -> float:
        """Return the correlation of neighbours along an axis."""
        return (self.y if axis == "y" else self.x)[0]

    def span(self, axis: Axis) -> int:
        """Return the last lag up to which the correlation matters; 0 for white noise."""
        if not self.is_strong() and (self.rows if axis == "x" else self.columns).found:
            return REACH
        there = self.shared()
        line = there[REACH + 1 :, REACH] if axis == "y" else there[REACH, REACH + 1 :]
        below = np.flatnonzero(~line)
        return int(below[0]) if below.size else REACH

    def shared(self, least: float = LEAST_CORRELATION) -> NDArray[np.bool_]:
        """Return for each lag whether the correlation is more than `least` and than chance."""
        return np.asarray(np.abs(self.table) > np.maximum(least, self.interval))

    def _strong(self) -> NDArray[np.bool_]:
        # Of so many lags of a single frame one is beyond its own interval by chance.
        return np.asarray(np.abs(self.table) > np.maximum(STRONG_CORRELATION, 2 * self.interval))

    def is_strong(self) -> bool:
        """Return whether a method that takes noise for independent would show it as signal."""
        return bool(self._strong().sum() > 1)

    def line_shares(self) -> tuple[float, float]:
        """Return what rows and columns share of the variance; some is always the pixel's own."""
        rows, columns = (one.share * one.found for one in (self.rows, self.columns))
        whole = max(1.0, (rows + columns) / MOST_LINE_SHARE)
        return rows / whole, columns / whole

    def amplitudes(self) -> FloatArray:
        """Return the kernel that turns white noise of unit variance into noise like this.

        (K, K), of unit energy: the inverse transform of the square root of the power spectrum.
        What is not told from chance, and what whole rows and columns share, is left out.
        """
        size = 8 * REACH
        lag = np.arange(-REACH, REACH + 1)
        wrapped = np.zeros((size, size))
        wrapped[np.ix_(lag, lag)] = np.where(self.shared(), self.table, 0.0)
        wrapped[0, 0] = 1.0 - sum(self.line_shares())
        # Taken from few frames, it may say that some waves have less than no power.
        spectrum = np.maximum(np.fft.fft2(wrapped).real, 0.0)
        kernel = np.fft.ifft2(np.sqrt(spectrum)).real[np.ix_(lag, lag)]
        unit: FloatArray = kernel / np.sqrt((kernel**2).sum())
        return unit

    def high_pass_share(self, kernel: FloatArray) -> float:
        """Return what a high-pass filter of unit energy leaves of the noise's variance.

        (K, K) with K at most REACH + 1; 1 for white noise.
        """
        own = scipy.signal.correlate2d(kernel, kernel)
        reach = len(own) // 2
        inside = slice(REACH - reach, REACH + reach + 1)
        known = np.where(self.shared(), self.table, 0.0)[inside, inside]
        return float((own * known).sum())

    def drawn(self, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
        """Return noise (Y, X) of unit variance, correlated as this is."""
        white = rng.standard_normal((shape[0] + 2 * REACH, shape[1] + 2 * REACH))
        noise = scipy.signal.fftconvolve(white, self.amplitudes(), mode="valid")
        rows, columns = self.line_shares()
        noise *= np.sqrt(1 - rows - columns)
        noise += np.sqrt(rows) * rng.standard_normal((shape[0], 1))
        noise += np.sqrt(columns) * rng.standard_normal((1, shape[1]))
        return noise

    def is_two_dimensional(self) -> bool:
        """Return whether a line of pixels along one axis does not hold what is shared."""
        strong = self._strong()
        return bool(strong[:, REACH].sum() > 1 and strong[REACH].sum() > 1) or bool(
            strong.sum() > max(strong[:, REACH].sum(), strong[REACH].sum())
        )

    @property
    def is_correlated(self) -> bool:
        """Return whether pixels share noise that a method for independent noise leaves in."""
        return self.is_strong() or bool(self.lines())

    def lines(self) -> list[str]:
        """Return by name which of rows and columns share noise of their own."""
        return [
            name for name, noise in (("rows", self.rows), ("columns", self.columns)) if noise.found
        ]

    def described(self) -> str:
        """Return the finding in words."""
        axis = self.axis()
        other: Axis = "x" if axis == "y" else "y"
        found = []
        if self.is_strong() or not self.lines():
            text = f"noise is correlated along {axis} ({self.along(axis):.2f} with the next pixel"
            if abs(self.along(other)) > STRONG_CORRELATION:
                text += f"; {self.along(other):.2f} along {other}"
            found.append(text + ")")
        for name in self.lines():
            share = (self.rows if name == "rows" else self.columns).share
            found.append(f"whole {name} share {100 * share:.2g} % of the noise's variance")
        return ", and ".join(found)


def correlation_of(
    differences: Sequence[NDArray[Any]], frames: Sequence[NDArray[Any]] = ()
) -> NoiseCorrelation:
    """Measure the correlation.

    Parameters
    ----------
    differences
        Of successive frames of one scene, (Y, X) each, signed.
    frames
        What to go by where there are no differences.

    Raises
    ------
    ValueError
        If there is neither.
    """
    parts = [_middle(one) for one in differences]
    different = [part for part in parts if part.any()]
    images = different or [_middle(frame) for frame in frames]
    if not images:
        raise ValueError("neither differences nor frames were given")
    found = _at_rest(images) if different else None
    if found is not None:
        table, interval = found
        origin: Origin = "resting frames"
    else:
        table, interval = _through_laplacian(images, 1.0 if different else CALM_SHARE)
        origin = "moving frames" if different else "single frames"
    if _is_impossible(table, interval):
        return _unseen(len(parts) - len(different))
    rows = _line_noise(images, table[:, REACH])
    columns = _line_noise([image.T for image in images], table[REACH])
    for lines, along in ((rows, table[REACH]), (columns, table[:, REACH])):
        along -= lines.share * lines.found * (np.arange(len(along)) != REACH)
    return NoiseCorrelation(table, interval, rows, columns, origin, len(parts) - len(different))


def _is_impossible(table: FloatArray, interval: FloatArray) -> bool:
    """Return whether no noise has this autocorrelation.

    A pixel shares most with itself, and no wave has less than no power.
    """
    power = np.fft.fft2(np.fft.ifftshift(table)).real
    return bool((np.abs(table) > 1 + interval).any() or power.min() < -LARGEST_ERROR_OF_POWER)


def _unseen(duplicates: int) -> NoiseCorrelation:
    alone = np.zeros((2 * REACH + 1, 2 * REACH + 1))
    alone[REACH, REACH] = 1.0
    return NoiseCorrelation(alone, 1 - alone, origin="no noise", duplicates=duplicates)


def correlation_in(stacks: Sequence[Stack]) -> NoiseCorrelation:
    """Measure the correlation on a few frames of some recordings, evenly spread."""
    differences: list[NDArray[Any]] = []
    frames: list[NDArray[Any]] = []
    each = max(1, COMPARED_FRAMES // len(stacks))
    for stack in stacks[:: max(1, len(stacks) // COMPARED_FRAMES)]:
        there = stack.present_indices
        frames.append(stack.frame(int(there[0])))
        for place in np.unique(np.linspace(0, len(there) - 1, each + 1).astype(int)):
            index = int(there[place])
            (earlier,) = stack.preceding(index, 1)
            if earlier is not None:
                difference = stack.frame(index).astype(np.float32) - stack.frame(earlier)
                differences.append(difference)
    return correlation_of(differences, frames)


def _middle(frame: NDArray[Any]) -> FloatArray:
    top, left = (max(0, (edge - EDGE) // 2) for edge in frame.shape)
    return frame[top : top + EDGE, left : left + EDGE].astype(np.float64)


def _at_rest(differences: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray] | None:
    """Return the autocorrelation and its interval; None if something moves."""
    table, interval = _median(_autocovariances(_blocks(differences), REACH))
    lag = np.abs(np.arange(-REACH, REACH + 1))
    far = np.maximum(lag[:, None], lag[None, :]) >= FAR
    # Lines reach far by themselves and are no motion.
    far[REACH] = far[:, REACH] = False
    return None if table[far].mean() > MOVES else (table, interval)


def _through_laplacian(images: Sequence[FloatArray], calm: float) -> tuple[FloatArray, FloatArray]:
    """Return the autocorrelation of the noise from what a Laplacian leaves of the images."""
    blocks = _blocks([scipy.ndimage.laplace(image)[1:-1, 1:-1] for image in images])
    if calm < 1:
        level = _blocks([image[1:-1, 1:-1] for image in images])
        blocks = blocks[_calmest(level, blocks, calm)]
    seen, error = _median(_autocovariances(blocks, FILTERED_REACH + MARGIN))
    lags, design = _design()
    error = np.maximum(error.ravel() / CONFIDENCE, SMALLEST_ERROR)
    # In units of the noise's variance: white noise has 20 after the filter.
    scale = design[:, lags.index((0, 0))].max()
    distance = np.array([np.hypot(*lag) for lag in lags])
    prior = np.exp(-distance / PRIOR_REACH) + 1e-3
    weighted = design / scale / error[:, None]
    inverse = np.linalg.inv(weighted.T @ weighted + np.diag(1 / prior**2))
    solved = inverse @ (weighted.T @ (seen.ravel() / error))
    spread = np.sqrt(np.diag(inverse))
    table, interval = np.zeros((2, 2 * REACH + 1, 2 * REACH + 1))
    for (dy, dx), value, deviation in zip(lags, solved, spread, strict=True):
        for sign in (1, -1):
            table[REACH + sign * dy, REACH + sign * dx] = value
            interval[REACH + sign * dy, REACH + sign * dx] = CONFIDENCE * deviation
    middle = max(table[REACH, REACH], 1e-6)
    table, interval = table / middle, interval / middle
    interval[REACH, REACH] = 0.0
    return table, interval


@cache
def _design() -> tuple[list[tuple[int, int]], FloatArray]:
    """Return lags of half a plane, and what each makes of the filtered autocovariance."""
    kernel = scipy.ndimage.laplace(np.pad([[1.0]], 2))[1:-1, 1:-1]
    own = scipy.signal.correlate2d(kernel, kernel)
    reach, edge = len(own) // 2, FILTERED_REACH + MARGIN
    lags = [
        (dy, dx)
        for dy in range(FILTERED_REACH + 1)
        for dx in range(-FILTERED_REACH, FILTERED_REACH + 1)
        if dy > 0 or dx >= 0
    ]
    columns = []
    for dy, dx in lags:
        seen = np.zeros((2 * (edge + reach) + 1,) * 2)
        for sign in (1, -1) if (dy, dx) != (0, 0) else (1,):
            y, x = edge + sign * dy, edge + sign * dx
            seen[y : y + len(own), x : x + len(own)] += own
        columns.append(seen[reach:-reach, reach:-reach].ravel())
    return lags, np.stack(columns, axis=1)


def _blocks(images: Sequence[FloatArray]) -> FloatArray:
    """Return the images cut into blocks (N, B, B); those without any noise are left out."""
    edge = min(BLOCK, *images[0].shape)
    found = []
    for image in images:
        rows, columns = (length // edge for length in image.shape)
        cut = image[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge)
        found.append(cut.swapaxes(1, 2).reshape(-1, edge, edge))
    return np.concatenate(found)


def _calmest(level: FloatArray, filtered: FloatArray, share: float) -> NDArray[np.intp]:
    """Return which blocks hold least structure beside their noise."""
    edge = level.shape[1] // 4 * 4
    coarse = level[:, :edge, :edge].reshape(len(level), edge // 4, 4, edge // 4, 4).mean((2, 4))
    contrast = coarse.var(axis=(1, 2)) / np.maximum(filtered.var(axis=(1, 2)), 1e-12)
    return np.argsort(contrast)[: max(FEWEST_BLOCKS, int(share * len(contrast)))]


def _autocovariances(blocks: FloatArray, reach: int) -> FloatArray:
    """Return the autocorrelation (N, 2·reach + 1, 2·reach + 1) of each block with any noise."""
    edge = blocks.shape[1]
    blocks = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    blocks = blocks[(blocks**2).mean(axis=(1, 2)) > 1e-9]
    if not len(blocks):
        return np.zeros((1, 2 * reach + 1, 2 * reach + 1))
    power = np.abs(np.fft.rfft2(blocks, s=(2 * edge, 2 * edge))) ** 2
    lag = np.arange(-reach, reach + 1)
    found = np.fft.irfft2(power, s=(2 * edge, 2 * edge))[:, lag][:, :, lag]
    found /= np.multiply.outer(edge - np.abs(lag), edge - np.abs(lag))
    # The mean that was taken out of each block held a little of the noise.
    near = found.sum(axis=(1, 2), keepdims=True) / edge**2
    found = found + np.clip(near, 0, None)
    normed: FloatArray = found / found[:, reach : reach + 1, reach : reach + 1]
    return normed


def _median(found: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the median over blocks and half of its 95 % interval."""
    middle = np.median(found, axis=0)
    deviation = 1.4826 * np.median(np.abs(found - middle), axis=0)
    # Of few blocks the deviation itself is not known: what white noise has in one.
    deviation = np.maximum(deviation, 1 / BLOCK)
    half: FloatArray = CONFIDENCE * 1.2533 * deviation / np.sqrt(len(found))
    half[len(half) // 2, len(half) // 2] = 0.0
    return middle, half


def _line_noise(images: Sequence[FloatArray], across: FloatArray) -> LineNoise:
    """Return what whole rows share: the covariance of distant parts of the same row.

    Rows are compared with those beside them first, which takes out what is smooth across rows, and
    of the pixels' own noise what `across`, its autocorrelation from row to row, says.
    """
    shares = []
    left = across[REACH] - 4 / 3 * across[REACH + 1] + across[REACH + 2] / 3
    for image in images:
        edge = min(BLOCK, image.shape[1] // 4)
        if edge < 4 or image.shape[0] < 8:
            continue
        # Rows i, i + 3, …: none enters two of the second differences.
        second = (2 * image[1:-1] - image[:-2] - image[2:])[::3] / np.sqrt(6)
        parts = second[:, : second.shape[1] // edge * edge].reshape(len(second), -1, edge)
        means = parts.mean(axis=2)  # (rows, parts)
        limit = 4 * 1.4826 * np.median(np.abs(means)) + 1e-12
        means = np.clip(means, -limit, limit)  # a cell that moved is bright in few of them
        apart = np.abs(np.subtract.outer(np.arange(means.shape[1]), np.arange(means.shape[1]))) > 1
        covariance = np.einsum("ri,ij,rj->r", means, apart, means) / apart.sum()
        power = float(np.median((parts**2).mean(axis=2)))
        shares.append(max(left, 0.0) * covariance / max(power, 1e-12))
    if not shares:
        return NO_LINES
    found = np.concatenate(shares)
    return LineNoise(float(found.mean()), float(found.std() / np.sqrt(len(found))))
