"""What a noise model is: the probability of an observation, given the signal.

Owns the protocol that every noise model fulfils and the tabulated form in which a model leaves
this package (into a training loss, into an ONNX graph). Fitting lives elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

LEAST_VARIANCE_ADU2 = 1e-6
"""Keeps the arithmetic finite where a camera has no noise at all."""


@runtime_checkable
class NoiseModel(Protocol):
    """p(observation | signal) of one camera in one setting."""

    @property
    def signal_range_adu(self) -> tuple[float, float]:
        """The calibrated range of signals; outside it the model follows photon transfer."""
        ...

    @property
    def covered_range_adu(self) -> tuple[float, float]:
        """The signals at which the noise is known: calibrated, or sure by photon transfer."""
        ...

    @property
    def least_variance_adu2(self) -> float:
        """The variance floor: no signal has less, ADU²."""
        ...

    def log_likelihood(self, observation: ArrayLike, signal: ArrayLike) -> FloatArray:
        """Return log p(observation | signal), elementwise and broadcast; ADU in, nats out."""
        ...

    def variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[observation | signal] in ADU², elementwise."""
        ...

    def mixture(self, signal: ArrayLike) -> MixtureTable:
        """Tabulate p(observation | signal) as a Gaussian mixture at the given signals (G,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MixtureTable:
    """A noise model as a Gaussian mixture on a grid of signals.

    p(x | s) = Σ_k weights[k] · N(x; s + offsets[k], variances[k]), linearly interpolated in s.
    This is the one form in which noise models reach a loss or an exported graph, whatever they
    were fitted as.

    Attributes
    ----------
    signal
        (G,) ADU, strictly increasing and evenly spaced.
    weights
        (K, G), non-negative, each column sums to 1.
    offsets
        (K, G) ADU, mean of component k minus the signal; Σ_k weights·offsets is 0, so that the
        observation is unbiased.
    variances
        (K, G) ADU², positive.
    """

    signal: FloatArray
    weights: FloatArray
    offsets: FloatArray
    variances: FloatArray

    def total_variance(self) -> FloatArray:
        """Return Var[x | s] on the grid, (G,) ADU²."""
        total: FloatArray = (self.weights * (self.variances + self.offsets**2)).sum(axis=0)
        return total
