"""Units in which a camera's noise is the same for every signal, and the exact way back.

Owns the transform and its inverse. A filter for white noise works in these units; what it returns
is a mean of transformed pixels, which is not the transform of their mean, so that the algebraic
inverse is biased where photons are few. The exact unbiased inverse maps E[f(x) | s] to s instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.noise_model import MixtureTable, NoiseModel
from ..trust import NoiseVariance

LEAST_VARIANCE_ADU2 = 1 / 12
"""A camera that counts in whole ADU is never more certain than this."""
SIGNALS = 400
"""At which the inverse is tabulated; densest where photons are few."""
QUADRATURE = 256
REACH = 9.0
"""Of the distribution of an observation, in its standard deviations to either side."""


class VarianceStabilisation:
    """The stabilising transform of a camera, for one frame or the mean of several.

    Parameters
    ----------
    noise_model
        Of the camera.
    frames
        How many observations of one signal a pixel is the mean of.
    exact
        Whether the inverse is the exact unbiased one; the algebraic one is kept to show its bias.

    Notes
    -----
    f(x) = √n ∫ dx / √(σ²(x) + 3/8 (dσ²/dx)²): for Poisson noise it is Anscombe's transform (1948,
    doi:10.1093/biomet/35.3-4.246), for Poisson and Gaussian noise the generalised one (Starck,
    Murtagh & Bijaoui 1998), and it takes any other law. The exact unbiased inverse (Mäkitalo & Foi
    2011, doi:10.1109/TIP.2010.2056693; 2013, doi:10.1109/TIP.2012.2202675) is tabulated:
    E[f(x) | s] by the noise model itself, so that it holds for mixtures and for means of frames.
    """

    def __init__(self, noise_model: NoiseModel, *, frames: int = 1, exact: bool = True) -> None:
        table = NoiseVariance(noise_model)
        self._signal = table.signal_adu
        variance = np.maximum(table.variance_adu2, LEAST_VARIANCE_ADU2)
        slope = np.maximum(np.gradient(variance, self._signal), 0)
        density = np.sqrt(frames / (variance + 3 / 8 * slope**2 / frames))
        steps = np.diff(self._signal) * (density[1:] + density[:-1]) / 2
        self._stable = np.concatenate([[0.0], np.cumsum(steps)])
        if exact:
            low, high = noise_model.signal_range_adu
            # Signals below the dark level do not exist, up to the error of its estimate.
            least = low - 3 * float(np.sqrt(variance[np.searchsorted(self._signal, low)] / frames))
            signals = least + (high - least) * np.linspace(0, 1, SIGNALS) ** 3
            signals = np.append(signals, self._signal[self._signal > high])
            expected = self._expectation(noise_model, signals, variance, frames)
            self._back_from = np.maximum.accumulate(expected)
            self._back_to = signals
        else:
            self._back_from, self._back_to = self._stable, self._signal

    def forward(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Transform observations in ADU; their noise is 1."""
        stable: NDArray[np.float32] = np.interp(image, self._signal, self._stable).astype(
            np.float32
        )
        return stable

    def back(self, image: NDArray[Any]) -> NDArray[np.float64]:
        """Return the signals, ADU, whose transformed observations have these means."""
        return np.asarray(np.interp(image, self._back_from, self._back_to))

    def _expectation(
        self,
        noise_model: NoiseModel,
        signals: NDArray[np.float64],
        variance: NDArray[np.float64],
        frames: int,
    ) -> NDArray[np.float64]:
        """Return E[f(x) | s] at the signals, x being the mean of `frames` observations."""
        scatter = np.sqrt(np.interp(signals, self._signal, variance) / frames)
        steps = np.linspace(-REACH, REACH, QUADRATURE, endpoint=False)
        weights = _density_of_mean(noise_model.mixture(signals), scatter, steps, frames)
        around = signals[:, None] + scatter[:, None] * steps
        transformed = np.interp(around, self._signal, self._stable)
        expected: NDArray[np.float64] = (weights * transformed).sum(axis=1)
        return expected


def _density_of_mean(
    mixture: MixtureTable, scatter: NDArray[np.float64], steps: NDArray[np.float64], frames: int
) -> NDArray[np.float64]:
    """Return the distribution (G, Q) of the mean of some observations, at `steps` of its scatter.

    By its characteristic function: that of a mixture is known in closed form, that of the sum of
    independent observations is its power. What is narrower than a step is drawn at its resolution,
    which leaves the mean of a smooth function as it is.
    """
    count, step = len(steps), steps[1] - steps[0]
    frequency = 2 * np.pi * np.fft.fftfreq(count, step) / scatter[:, None] / frames  # (G, Q)
    characteristic = np.zeros(frequency.shape, np.complex128)
    for weight, offset, variance in zip(
        mixture.weights, mixture.offsets, mixture.variances, strict=True
    ):
        exponent = 1j * offset[:, None] * frequency - variance[:, None] * frequency**2 / 2
        characteristic += weight[:, None] * np.exp(exponent)
    shifted = characteristic**frames * np.exp(
        -1j * frequency * frames * scatter[:, None] * steps[0]
    )
    density = np.fft.fft(shifted, axis=1).real
    found: NDArray[np.float64] = density / density.sum(axis=1, keepdims=True)
    return found
