"""The probability that a digital camera reports a code, given a Gaussian mixture behind it.

Owns the one likelihood formula that all models of this package share: a camera rounds to whole
ADU and clips at both ends of its range, so the probability of a code is the mixture's mass
between the rounding limits, with the tails on the first and the last code. It sums to 1 over
the camera's codes for any signal, and where the noise spans several ADU it equals the density.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtr

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
        total = density.sum(axis=0)
        result: FloatArray = np.log(np.maximum(total, _TINY))
        return np.where(total > _TINY, result, _far(observation, means, variances, weights))
    latent = np.maximum(
        variances - QUANTISATION_VARIANCE_ADU2 * codes.step**2, LEAST_LATENT_VARIANCE_ADU2
    )
    sigma = np.sqrt(latent)
    half = codes.step / 2
    lower = (observation - half - means) / sigma
    upper = (observation + half - means) / sigma
    lower = np.where(observation <= codes.low, -np.inf, lower)
    upper = np.where(observation >= codes.high, np.inf, upper)
    # Use the tail on the side of the observation: differences of numbers near 1 lose digits.
    flip = lower > 0
    mass = np.where(flip, ndtr(-lower) - ndtr(-upper), ndtr(upper) - ndtr(lower))
    total = (weights * mass).sum(axis=0) / codes.step
    near: FloatArray = np.log(np.maximum(total, _TINY))
    if (total > _TINY).all():
        return near
    return np.where(total > _TINY, near, _far(observation, means, latent, weights))


def _far(
    observation: FloatArray, means: FloatArray, variances: FloatArray, weights: FloatArray
) -> FloatArray:
    """Log density where the probability itself is below what a double can hold."""
    edge = np.maximum(np.abs(observation - means) - 0.5, 0.0)
    terms = np.log(np.maximum(weights, _TINY)) + log_ndtr(-edge / np.sqrt(variances))
    largest: FloatArray = terms.max(axis=0)
    return np.minimum(largest, np.log(_TINY))
