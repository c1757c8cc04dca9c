"""What the general model has to know of a camera: three numbers.

Owns the way from a noise model to offset, gain and read variance in units in which light has the
variance of photons. The pixels of the camera may have maps beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel

MOST_READ_VARIANCE_E2 = 36.0
"""Up to which the network was trained; more is light that is always there, which is the same."""
MOST_DARK_LIGHT_E = 4e4
"""Noise without light that no light adds to (a camera that saw none): its gain is told to be such
that the noise is that of so many photons, to which those of a picture add little."""


@dataclass(frozen=True, slots=True)
class CameraConstants:
    """Var[observation | signal] = gain · (signal − offset) + gain² · read variance.

    Attributes
    ----------
    offset_adu
        The signal without light.
    gain_adu_per_e
        By how much the variance grows with the signal: the system gain, times the excess noise
        factor of a camera that multiplies electrons.
    read_variance_e2
        What is left without light, in units of the gain.
    """

    offset_adu: float
    gain_adu_per_e: float
    read_variance_e2: float

    @classmethod
    def of(cls, noise_model: GaussianMixtureNoiseModel) -> CameraConstants:
        """Return the constants of a camera.

        Where the offset is not known (a bootstrapped model), the darkest signal that was seen
        stands for it. That moves nothing else: the variance at each signal, on which the root
        depends, stays what it is.
        """
        law = noise_model.photon_transfer
        offset = noise_model.signal_range_adu[0] if law.offset_adu is None else law.offset_adu
        dark = max(float(noise_model.variance(offset)), noise_model.least_variance_adu2)
        gain = max(law.slope_adu, (dark / MOST_DARK_LIGHT_E) ** 0.5)
        read = dark / gain**2
        if read > MOST_READ_VARIANCE_E2:
            offset -= gain * (read - MOST_READ_VARIANCE_E2)
            read = MOST_READ_VARIANCE_E2
        return cls(float(offset), float(gain), float(read))

    def as_input(self) -> NDArray[np.float32]:
        """Return them as the graph takes them, (3,)."""
        return np.array([self.offset_adu, self.gain_adu_per_e, self.read_variance_e2], np.float32)

    def dark_variance_adu2(self) -> float:
        """Return the variance without light, ADU²."""
        return self.read_variance_e2 * self.gain_adu_per_e**2
