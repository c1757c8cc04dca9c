"""Filters that need no training, behind the same protocol as the models.

Owns the way of a frame: the mean with the frames before it, the units of its noise, the strength,
the filter, and back. The filters are in `methods`. They are the yardstick: a network that does not
beat them is not worth its GPU. None of them states an uncertainty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel
from ..errors import FrameMismatchError, InferenceError
from ..trust import NoiseVariance
from .methods import Method, method_named
from .noise_estimate import estimated_noise_adu
from .strength import chosen_strength
from .variance_stabilisation import LEAST_VARIANCE_ADU2, VarianceStabilisation

FloatImage = NDArray[np.float32]
MOST_FRAMES = 64
MOST_OF_STRONGEST = 20
"""Times the strongest that is ever chosen: nothing is left of a picture, and windows that are
larger still take all of the memory."""
LEAST_EDGE = 16
"""Pixels that each filter can work on (BM3D's library ends the program at 8×8); what is smaller is
mirrored up to it."""


class ClassicalDenoiser:
    """A classical filter as a `Denoiser`.

    Filters work in units of the noise, so that one strength suits every camera and exposure. With
    a noise model these units follow the signal (`variance_stabilisation`); without one the noise
    counts as the same in every pixel.

    Parameters
    ----------
    method
        A name of `METHODS`.
    frame_shape
        (Y, X) in pixels.
    frames
        The frame itself and those before it, whose mean is filtered; frames that are not there
        (all zeros) are left out of it.
    strength
        What it means, `METHODS` says. None: the one of the first frame, chosen by J-invariance
        from that frame alone.
    noise_model
        Of the camera.
    noise_adu
        Standard deviation of the noise of one frame in ADU where no noise model is given;
        estimated from each picture by default.
    exact_inverse
        See `VarianceStabilisation`.

    Attributes
    ----------
    strength
        In use; None until it was chosen.

    Raises
    ------
    InferenceError
        If there is no such method, or strength or frames are none.
    MissingExtraError
        If the method's library is not installed.
    """

    def __init__(
        self,
        method: str,
        frame_shape: tuple[int, int],
        *,
        frames: int = 1,
        strength: float | None = None,
        noise_model: NoiseModel | None = None,
        noise_adu: float | None = None,
        exact_inverse: bool = True,
    ) -> None:
        self._method: Method | None = method_named(method)
        self.method = method
        if not 1 <= frames <= MOST_FRAMES:
            raise InferenceError(f"frames is {frames}, expected 1 to {MOST_FRAMES}")
        if strength is not None and not (np.isfinite(strength) and strength > 0):
            raise InferenceError(
                f"strength is {strength}, expected a positive number "
                f"({self._method.strength_is}), or none to have it chosen"
            )
        most = MOST_OF_STRONGEST * self._method.strengths[-1]
        if strength is not None and self.method != "identity" and strength > most:
            raise InferenceError(
                f"strength is {strength:g}, expected at most {most:g} "
                f"({self._method.strength_is}); leave it out to have it chosen"
            )
        self.frames = frames
        self.strength = strength
        self._frame_shape = (int(frame_shape[0]), int(frame_shape[1]))
        self._noise_model = noise_model
        self._noise_adu = noise_adu
        self._exact = exact_inverse
        self._stabilisations: dict[int, VarianceStabilisation] = {}
        self._variance = None if noise_model is None else NoiseVariance(noise_model)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) in pixels."""
        return self._frame_shape

    @property
    def context_frames(self) -> int:
        """How many preceding frames are averaged with the newest one."""
        return self.frames - 1

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Filter the mean of the frames; see `Denoiser.denoise`. `out[1]` is zero."""
        method = self._require_fit(observations, out)
        there = [0, *(np.flatnonzero(observations[1:].any(axis=(1, 2))) + 1)]
        image = observations[there].mean(axis=0, dtype=np.float64).astype(np.float32)
        height, width = image.shape
        if min(image.shape) < LEAST_EDGE:
            missing = [(0, max(0, LEAST_EDGE - edge)) for edge in image.shape]
            image = np.pad(image, missing, mode="symmetric")
        out[0] = self._filtered(method, image, len(there))[:height, :width]
        out[1] = 0

    def close(self) -> None:
        """Release the filter. May be called more than once."""
        self._method = None

    def _filtered(self, method: Method, image: FloatImage, frames: int) -> NDArray[Any]:
        if method.units == "ADU":
            return self._at_strength(method.filter, method, image)
        noise = self._noise_of(image, frames)
        if method.units == "noise":
            variance = self._variance_of_mean(noise, frames)
            return self._at_strength(
                lambda pixels, strength: method.filter(pixels, strength, variance), method, image
            )
        if self._noise_model is not None:
            units = self._stabilisation(self._noise_model, frames)
            return units.back(self._at_strength(method.filter, method, units.forward(image)))
        if noise <= 0:
            return image
        return noise * self._at_strength(method.filter, method, image / np.float32(noise))

    def _at_strength(
        self,
        filtered: Callable[[FloatImage, float], NDArray[Any]],
        method: Method,
        image: FloatImage,
    ) -> NDArray[Any]:
        if self.strength is None:
            self.strength = chosen_strength(filtered, method.strengths, image)
        return filtered(image, self.strength)

    def _noise_of(self, image: FloatImage, frames: int) -> float:
        """Return the standard deviation of the mean of some frames, without a noise model."""
        if self._noise_adu is not None:
            return self._noise_adu / float(np.sqrt(frames))
        return estimated_noise_adu(image)

    def _variance_of_mean(
        self, noise: float, frames: int
    ) -> Callable[[NDArray[Any]], NDArray[Any]]:
        known = self._variance
        if known is None:
            return lambda signal: np.full(signal.shape, noise**2)
        return lambda signal: np.asarray(np.maximum(known(signal), LEAST_VARIANCE_ADU2) / frames)

    def _stabilisation(self, noise_model: NoiseModel, frames: int) -> VarianceStabilisation:
        if frames not in self._stabilisations:
            self._stabilisations[frames] = VarianceStabilisation(
                noise_model, frames=frames, exact=self._exact
            )
        return self._stabilisations[frames]

    def _require_fit(self, observations: NDArray[Any], out: NDArray[np.float32]) -> Method:
        if self._method is None:
            raise InferenceError(f"{self.method}: the denoiser was closed; open it again")
        if observations.shape != (self.frames, *self._frame_shape):
            raise FrameMismatchError(
                f"observations have shape {observations.shape}, the filter was built for "
                f"{(self.frames, *self._frame_shape)}; build one for this shape"
            )
        if out.shape != (2, *self._frame_shape) or out.dtype != np.float32:
            raise FrameMismatchError(
                f"out is {out.dtype} {out.shape}, expected float32 {(2, *self._frame_shape)}"
            )
        return self._method
