"""The two classical noise models beside the mixture: Poisson–Gaussian and histogram.

Owns both under the same protocol. They are what the mixture has to beat on held-out pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .errors import CalibrationError
from .likelihood import SIXTEEN_BIT, Codes, mixture_log_likelihood
from .noise_model import LEAST_VARIANCE_ADU2, FloatArray, MixtureTable
from .photon_transfer import PhotonTransfer


@dataclass(frozen=True, slots=True, eq=False)
class PoissonGaussianNoiseModel:
    """A Gaussian around the signal whose variance follows the photon-transfer law.

    Foi et al. 2008, IEEE TIP 17:1737, doi:10.1109/TIP.2008.2001399.
    """

    photon_transfer: PhotonTransfer
    signal_range_adu: tuple[float, float]
    codes: Codes = SIXTEEN_BIT

    @property
    def covered_range_adu(self) -> tuple[float, float]:
        """The calibrated range, ADU."""
        return self.signal_range_adu

    @property
    def least_variance_adu2(self) -> float:
        """The variance without light, ADU²."""
        return max(self.photon_transfer.dark_variance_adu2, LEAST_VARIANCE_ADU2)

    def variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[observation | signal] in ADU², elementwise."""
        return self.photon_transfer.variance(signal)

    def log_likelihood(self, observation: ArrayLike, signal: ArrayLike) -> FloatArray:
        """Return log p(observation | signal), elementwise and broadcast."""
        x, s = np.broadcast_arrays(
            np.asarray(observation, dtype=np.float64), np.asarray(signal, dtype=np.float64)
        )
        flat = s.reshape(1, -1)
        result = mixture_log_likelihood(
            x.ravel(), flat, self.variance(flat), np.ones((1, 1)), self.codes
        )
        return result.reshape(x.shape)

    def mixture(self, signal: ArrayLike) -> MixtureTable:
        """Tabulate the model at the given signals (G,)."""
        grid = np.asarray(signal, dtype=np.float64)
        return _one_gaussian(grid, self.variance(grid))


def _one_gaussian(grid: FloatArray, variance: FloatArray) -> MixtureTable:
    return MixtureTable(
        signal=grid,
        weights=np.ones((1, grid.size)),
        offsets=np.zeros((1, grid.size)),
        variances=variance[None, :].copy(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class HistogramNoiseModel:
    """p(x | s) as a two-dimensional histogram, as in PN2V (Krull et al. 2020).

    Attributes
    ----------
    edges_adu
        (B + 1,) edges, the same for signal and observation.
    probability
        (B, B): row = signal bin, column = observation bin; rows sum to 1.
    """

    edges_adu: FloatArray
    probability: FloatArray

    @property
    def signal_range_adu(self) -> tuple[float, float]:
        """The range of the histogram, ADU."""
        return float(self.edges_adu[0]), float(self.edges_adu[-1])

    @property
    def covered_range_adu(self) -> tuple[float, float]:
        """The range of the histogram, ADU."""
        return self.signal_range_adu

    @property
    def least_variance_adu2(self) -> float:
        """The least variance of any signal, ADU²."""
        return max(float(self.variance(self._centres).min()), LEAST_VARIANCE_ADU2)

    @property
    def _centres(self) -> FloatArray:
        return (self.edges_adu[1:] + self.edges_adu[:-1]) / 2

    def log_likelihood(self, observation: ArrayLike, signal: ArrayLike) -> FloatArray:
        """Return log p(observation | signal), interpolated between signal bins."""
        x, s = np.broadcast_arrays(
            np.asarray(observation, dtype=np.float64), np.asarray(signal, dtype=np.float64)
        )
        bins = self.probability.shape[0]
        width = self.edges_adu[1] - self.edges_adu[0]
        column = np.clip(((x - self.edges_adu[0]) / width).astype(np.intp), 0, bins - 1)
        position = np.clip((s - self.edges_adu[0]) / width - 0.5, 0, bins - 1)
        below = np.minimum(position.astype(np.intp), max(bins - 2, 0))
        share = position - below
        above = np.minimum(below + 1, bins - 1)
        mass = (1 - share) * self.probability[below, column]
        mass += share * self.probability[above, column]
        result: FloatArray = np.log(mass / width)
        return result

    def variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[observation | signal] in ADU², elementwise."""
        centres = self._centres
        mean = self.probability @ centres
        spread = self.probability @ centres**2 - mean**2
        result: FloatArray = np.interp(np.asarray(signal, dtype=np.float64), centres, spread)
        return result

    def mixture(self, signal: ArrayLike) -> MixtureTable:
        """Tabulate as one Gaussian of the histogram's variance at the given signals (G,)."""
        grid = np.asarray(signal, dtype=np.float64)
        return _one_gaussian(grid, np.maximum(self.variance(grid), LEAST_VARIANCE_ADU2))


def fit_histogram(
    signal: FloatArray, observation: FloatArray, *, bins: int = 256, pseudo_count: float = 1e-3
) -> HistogramNoiseModel:
    """Count pairs; every bin holds a small share of what was never seen.

    Raises
    ------
    CalibrationError
        Without pairs.
    """
    if signal.size == 0:
        raise CalibrationError("histogram: no signal-observation pairs, expected some")
    low = float(np.floor(observation.min())) - 0.5
    high = float(np.ceil(observation.max())) + 0.5
    # Whole codes per bin: else some bins hold one code more than others and look likelier.
    width = float(np.ceil((high - low) / bins))
    bins = int(np.ceil((high - low) / width))
    edges = low + width * np.arange(bins + 1, dtype=np.float64)
    row = np.clip(((signal - low) / width).astype(np.intp), 0, bins - 1)
    column = np.clip(((observation - low) / width).astype(np.intp), 0, bins - 1)
    count = np.bincount(row * bins + column, minlength=bins * bins).reshape(bins, bins)
    filled = _nearest_filled(count.astype(np.float64)) + pseudo_count
    return HistogramNoiseModel(edges, filled / filled.sum(axis=1, keepdims=True))


def _nearest_filled(count: FloatArray) -> FloatArray:
    """Give signal bins that were never seen the nearest row that was."""
    seen = np.flatnonzero(count.sum(axis=1) > 0)
    rows = np.arange(count.shape[0])
    after = np.clip(np.searchsorted(seen, rows), 0, seen.size - 1)
    before = np.clip(after - 1, 0, seen.size - 1)
    nearer_before = np.abs(seen[before] - rows) <= np.abs(seen[after] - rows)
    return count[np.where(nearer_before, seen[before], seen[after])]
