"""The noise model as a table, fast enough for every frame.

Owns Var[observation | signal] at whole images of signals. What the noise is, is measured by
`calibration`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel

_GRID = 2048
_BELOW = np.linspace(-0.1, 0, 20, endpoint=False)
_ABOVE = np.linspace(1, 11, 201)[1:]
"""Shares of the calibrated range: a frame brighter than the calibration is judged all the same."""
_FINE = 32_768
"""Entries of the table that is looked up by index: of a camera of 16 bits, one photoelectron over
the dark is told from two."""


class NoiseVariance:
    """Var[observation | signal] of a noise model as a table, fast enough for every frame.

    Parameters
    ----------
    noise_model
        Any noise model. The table is densest at low signals, where the variance bends, and goes
        on beyond the calibrated range, where the model follows photon transfer.

    Attributes
    ----------
    signal_adu, variance_adu2
        The table, (G,) each.
    least_variance_adu2
        Without light.
    """

    def __init__(self, noise_model: NoiseModel) -> None:
        low, high = noise_model.signal_range_adu
        if high <= low:  # told from frames of one brightness: noise is all that reaches further
            high = low + (float(np.sqrt(noise_model.variance(np.array([low]))[0])) or 1.0)
        self.signal_adu = low + (high - low) * np.concatenate(
            [_BELOW, np.linspace(0, 1, _GRID) ** 2, _ABOVE]
        )
        self.variance_adu2 = np.asarray(noise_model.variance(self.signal_adu), np.float64)
        self.least_variance_adu2 = noise_model.least_variance_adu2
        # Even in the root of the light, where photon noise is even: so it begins in the dark, and
        # not below it, where nothing changes.
        self._low = self._dark_adu()
        self._span = float(self.signal_adu[-1]) - self._low
        fine = self(self._low + self._span * np.linspace(0, 1, _FINE) ** 2)
        self._deviation = np.sqrt(np.maximum(fine, 1e-12)).astype(np.float32)

    def __call__(self, signal: NDArray[Any]) -> NDArray[np.float64]:
        """Return the variance in ADU² at `signal` in ADU, elementwise."""
        variance: NDArray[np.float64] = np.interp(signal, self.signal_adu, self.variance_adu2)
        return variance

    def deviation(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the standard deviation in ADU at `signal`, at a tenth of the cost.

        Where there is no signal (NaN), that of the dark.
        """
        place = (signal - np.float32(self._low)) * np.float32(1 / self._span)
        np.fmin(np.fmax(place, 0, out=place), 1, out=place)
        np.sqrt(place, out=place)
        place *= np.float32(_FINE - 1)
        place += np.float32(0.5)
        found: NDArray[np.float32] = self._deviation.take(place.astype(np.int32))
        return found

    def _dark_adu(self) -> float:
        """Return the signal of the table up to which the variance is that of the dark."""
        lit = np.flatnonzero(self.variance_adu2 > self.variance_adu2[0] * (1 + 1e-9))
        return float(self.signal_adu[max(lit[0] - 1, 0) if lit.size else 0])
