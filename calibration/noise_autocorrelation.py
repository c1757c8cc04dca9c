"""How far the noise of one pixel is shared with its neighbours.

Owns the autocorrelation of the noise at small distances, measured in differences of frames, and
the factor by which it makes the noise of a single pixel too small for the light that fell on it.
Knows nothing of gain.

Where a camera smooths, or charge spreads, neighbouring pixels share their noise: each has less of
it, and the slope of variance on mean is too small for a gain. The noise of a large area does not
change, and per pixel it is the variance times the autocorrelation summed over all distances
(Downing et al. 2006, doi:10.1117/12.671457; Astier et al. 2019, doi:10.1051/0004-6361/201935508).
What whole rows or columns share is no smoothing: it is known by not falling off with distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import scipy

from .noise_model import FloatArray

REACH = 4
FAR = range(REACH + 1, 2 * REACH + 1)
WINDOW = 256
"""Edge of the part of a frame that is looked at: enough to be good to 0.1 % in 50 frames."""
LAGS = tuple(
    (dy, dx) for dy in range(REACH + 1) for dx in range(-REACH, REACH + 1) if dy > 0 or dx > 0
)
FAR_LAGS = tuple((0, dx) for dx in FAR) + tuple((dy, 0) for dy in FAR)
LEAST_EDGE = 4 * REACH
"""Of a frame; smaller ones say nothing about neighbours."""
FALSE_ALARM = 1e-5
"""Chance that white noise is taken for correlated."""
LEAST_CORRELATION = 0.002
"""Between neighbours; less changes no gain by more than its interval."""


@dataclass(frozen=True, slots=True, eq=False)
class Autocorrelation:
    """Correlation of the noise of a pixel with those around it.

    Attributes
    ----------
    values
        (len(LAGS),) correlation at each of LAGS, (rows, columns) apart; what whole rows or columns
        share is taken out.
    observations
        Number of products behind each value.
    """

    values: FloatArray
    observations: int

    def at(self, dy: int, dx: int) -> float:
        """Return the correlation with the pixel `dy` rows and `dx` columns on."""
        return float(self.values[LAGS.index((dy, dx))])

    @property
    def standard_error(self) -> float:
        """Of each value where the noise is white.

        Consecutive differences of frames share a frame, so each product counts for two thirds.
        """
        return float(np.sqrt(1.5 / max(self.observations, 1)))


class AutocorrelationSums:
    """Products of a frame difference with itself, shifted; summed over frames.

    By the power spectrum: one transform a frame gives all shifts at once (Wiener-Khinchin).
    """

    def __init__(self) -> None:
        self._shape = (0, 0)
        self._transformed = (0, 0)
        self._spectrum: FloatArray = np.zeros(())
        self._frames = 0

    def add(self, difference: FloatArray) -> None:
        """Add one difference of frames (Y, X) without its mean; all of one shape."""
        part = _middle(difference)
        if not self._frames:
            self._shape = part.shape
            # Room for the farthest shift, so that no pixel meets those of the other edge.
            rows, columns = (scipy.fft.next_fast_len(s + FAR[-1], real=True) for s in part.shape)
            self._transformed = rows, columns
        transformed = scipy.fft.rfft2(part, s=self._transformed)
        self._spectrum = self._spectrum + transformed.real**2 + transformed.imag**2
        self._frames += 1

    def _correlations(self) -> FloatArray:
        """Return the correlation at each of LAGS and FAR_LAGS, of the pixels that overlap."""
        if not self._frames:
            return np.zeros(len(LAGS) + len(FAR_LAGS))
        rows, columns = self._shape
        sums = scipy.fft.irfft2(self._spectrum, s=self._transformed)
        power = max(float(sums[0, 0]) / (rows * columns), 1e-300)
        products = [
            sums[dy, dx] / ((rows - dy) * (columns - abs(dx))) for dy, dx in (*LAGS, *FAR_LAGS)
        ]
        return np.array(products) / power

    def result(self, variance: FloatArray, frames: int) -> Autocorrelation:
        """Return the correlations, those of whole rows and columns taken out.

        The mean of a frame was taken out of each difference, and with it that share of every
        correlation. `variance` (Y, X) of `frames` says how many pixels carry the noise: in a scene
        with few bright spots it is those alone.
        """
        pixels, part = variance.size, _middle(variance)
        # Variances of few frames scatter by themselves.
        scatter = 1 + 3 / frames
        even = float(part.mean()) ** 2 * scatter / max(float((part**2).mean()), 1e-300)
        found = self._correlations()
        near = 1 + 2 * float(found[: len(LAGS)].sum())
        found = found + near / max(pixels - 2 * len(LAGS) - 1, 1)
        values, far = found[: len(LAGS)].copy(), found[len(LAGS) :]
        for number, (dy, dx) in enumerate(LAGS):
            if dy == 0:
                values[number] -= far[: len(FAR)].mean()
            elif dx == 0:
                values[number] -= far[len(FAR) :].mean()
        return Autocorrelation(values, int(self._frames * prod(self._shape) * min(even, 1.0)))


def _middle(image: FloatArray) -> FloatArray:
    top, left = ((size - min(size, WINDOW)) // 2 for size in image.shape)
    return image[top : top + WINDOW, left : left + WINDOW]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """What neighbours share, put in figures.

    Attributes
    ----------
    reach
        How far the correlation reaches, pixels; 0 where the noise of neighbours is independent.
    neighbour
        Correlation with the right and with the lower neighbour, (x, y).
    """

    reach: int
    neighbour: tuple[float, float]

    @property
    def found(self) -> bool:
        """Whether neighbours share noise at all."""
        return self.reach > 0


def smoothing_of(measured: Sequence[Autocorrelation]) -> Smoothing:
    """Return whether, and how far, neighbours share noise in several recordings together.

    Consecutive differences of frames share a frame, so each product counts for two thirds.
    """
    weights = np.array([one.observations for one in measured], dtype=np.float64)
    if not weights.sum():
        return Smoothing(0, (0.0, 0.0))
    pooled = np.average([one.values for one in measured], axis=0, weights=weights)
    squares = pooled**2 * weights.sum() / 1.5
    distance = np.array([max(dy, abs(dx)) for dy, dx in LAGS])
    reach = 0
    for ring in range(REACH, 0, -1):
        chosen = distance == ring
        alarm = squares[chosen].sum() > scipy.stats.chi2.isf(FALSE_ALARM, int(chosen.sum()))
        if alarm and np.abs(pooled[chosen]).max() > LEAST_CORRELATION:
            # A kernel correlates pixels twice as far apart as it is wide, ever less of them.
            reach = min(ring + 1, REACH)
            break
    neighbour = (float(pooled[LAGS.index((0, 1))]), float(pooled[LAGS.index((1, 0))]))
    return Smoothing(reach, neighbour)


def summed(measured: Autocorrelation, smoothing: Smoothing) -> tuple[float, float]:
    """Return the autocorrelation summed over all distances in reach, and its standard error."""
    inside = [max(dy, abs(dx)) <= smoothing.reach for dy, dx in LAGS]
    total = max(1.0 + 2.0 * float(measured.values[inside].sum()), 0.05)
    # The sum is the power of the noise at long waves, and errs in proportion to itself.
    error = 2.0 * total * np.sqrt(1.5 * sum(inside) / max(measured.observations, 1))
    return total, float(error)
