"""The probability that a digital camera reports a code, given a Gaussian mixture behind it.

Owns the one likelihood formula that all models of this package share: a camera rounds to whole
ADU and clips at both ends of its range, so the probability of a code is the mixture's mass
between the rounding limits, with the tails on the first and the last code. It sums to 1 over
the camera's codes for any signal, and where the noise spans several ADU it equals the density.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

from .noise_model import FloatArray
from .photon_transfer import QUANTISATION_VARIANCE_ADU2

LEAST_LATENT_VARIANCE_ADU2 = 1e-3
"""Below this a component is a certain code; keeps the arithmetic finite."""

_TINY = 1e-300


class Codes(NamedTuple):
    """What a camera can report.

    `step` is 1 for integer pixels and 0 for float pixels, which are neither rounded nor clipped.
    """

    low: float = 0.0
    high: float = 65535.0
    step: float = 1.0


SIXTEEN_BIT = Codes()


def mixture_log_likelihood(
    observation: FloatArray,
    means: FloatArray,
    variances: FloatArray,
    weights: FloatArray,
    codes: Codes,
) -> FloatArray:
    """Return log p(observation) of Gaussian mixtures, nats.

    Parameters
    ----------
    observation
        (M,) ADU. Values between codes are taken as the centre of a rounding interval.
    means, variances, weights
        (K, M) of the components; variances are those of the observation, rounding included.
    codes
        The camera's range; the tails beyond it belong to its first and last code.

    Returns
    -------
    (M,) log probability per ADU.
    """
    if codes.step == 0:
        deviation = (observation - means) ** 2 / variances
        density = weights * np.exp(-0.5 * deviation) / np.sqrt(2 * np.pi * variances)
        return _log(density.sum(axis=0), observation, means, variances, weights)
    half = codes.step / 2
    mass = log_mass(
        np.where(observation <= codes.low, -np.inf, observation - half),
        np.where(observation >= codes.high, np.inf, observation + half),
        means,
        variances,
        weights,
        QUANTISATION_VARIANCE_ADU2 * codes.step**2,
    )
    per_adu: FloatArray = mass - np.log(codes.step)
    return per_adu


def log_mass(
    lower: FloatArray,
    upper: FloatArray,
    means: FloatArray,
    variances: FloatArray,
    weights: FloatArray,
    rounding_variance: FloatArray | float,
) -> FloatArray:
    """Return the log of the mixture's mass between `lower` and `upper`.

    Components come first in `means`, `variances` and `weights`; all else broadcasts.
    `rounding_variance` is the part of the variances that rounding made.
    """
    latent = np.maximum(variances - rounding_variance, LEAST_LATENT_VARIANCE_ADU2)
    sigma = np.sqrt(latent)
    below, above = (lower - means) / sigma, (upper - means) / sigma
    # Use the tail on the side of the interval: differences of numbers near 1 lose digits.
    flip = below > 0
    below, above = np.where(flip, -above, below), np.where(flip, -below, above)
    total = (weights * (scipy.special.ndtr(above) - scipy.special.ndtr(below))).sum(axis=0)
    nearest = np.where(np.isfinite(lower), lower, upper)
    return _log(total, nearest, means, latent, weights)


def _log(
    total: FloatArray,
    observation: FloatArray,
    means: FloatArray,
    variances: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Return log(total), continued by the tail of the nearest component where it vanishes."""
    near: FloatArray = np.log(np.maximum(total, _TINY))
    lost = total <= _TINY
    if not lost.any():
        return near
    edge = np.maximum(np.abs(observation - means) - 1.0, 0.0)
    terms = np.log(np.maximum(weights, _TINY)) + scipy.special.log_ndtr(-edge / np.sqrt(variances))
    return np.where(lost, np.minimum(terms.max(axis=0), np.log(_TINY)), near)
