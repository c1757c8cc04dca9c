"""Denoisers that need no training, behind the same protocol as the models.

Owns the names, the strengths and the units of the filters; the filters are scikit-image's. They
are the yardstick: a network that does not beat them is not worth its GPU. None of them states an
uncertainty, none uses context.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from math import pi, sqrt
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel
from ...errors import require_extra
from ..errors import FrameMismatchError, InferenceError
from ..trust import NoiseVariance

FloatImage = NDArray[np.float32]
Filter = Callable[[FloatImage], NDArray[Any]]


class ClassicalDenoiser:
    """A classical filter as a `Denoiser`.

    The frame is brought into units of its own noise first, so that one strength suits every
    camera and exposure. With a noise model these units follow the signal: y = ∫ ds / σ(s) makes
    the noise the same everywhere (Anscombe 1948, doi:10.1093/biomet/35.3-4.246, for any camera).

    Parameters
    ----------
    method
        A name of `METHODS`.
    frame_shape
        (Y, X) in pixels.
    noise_model
        Of the camera; without one the noise counts as the same in every pixel.
    noise_adu
        Standard deviation of the noise in ADU where no noise model is given; estimated from each
        frame by default.

    Raises
    ------
    InferenceError
        If there is no such method, or its library is not installed.
    """

    def __init__(
        self,
        method: str,
        frame_shape: tuple[int, int],
        *,
        noise_model: NoiseModel | None = None,
        noise_adu: float | None = None,
    ) -> None:
        if method not in METHODS:
            raise InferenceError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
        _require_library(method)
        self.method = method
        self._filter: Filter | None = METHODS[method]
        self._frame_shape = (int(frame_shape[0]), int(frame_shape[1]))
        self._noise_adu = noise_adu
        # A mean of stabilised values is not the mean: a linear filter is left in ADU.
        stabilises = noise_model is not None and method != "gaussian"
        self._stabilising = _Stabilising(noise_model) if noise_model and stabilises else None

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) in pixels."""
        return self._frame_shape

    @property
    def context_frames(self) -> int:
        """No classical filter here uses preceding frames."""
        return 0

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Filter the newest frame; see `Denoiser.denoise`. `out[1]` is zero."""
        if self._filter is None:
            raise InferenceError(f"{self.method}: the denoiser was closed; open it again")
        if observations.shape != (1, *self._frame_shape):
            raise FrameMismatchError(
                f"observations have shape {observations.shape}, the filter was built for "
                f"{(1, *self._frame_shape)}; build one for this shape"
            )
        if out.shape != (2, *self._frame_shape) or out.dtype != np.float32:
            raise FrameMismatchError(
                f"out is {out.dtype} {out.shape}, expected float32 {(2, *self._frame_shape)}"
            )
        image = observations[0].astype(np.float32)
        units = self._stabilising or self._uniform(image)
        if units is None or self.method == "identity":
            out[0] = image
        else:
            stable = units.forward(image)
            floor = stable.min()
            out[0] = units.back(self._filter(stable - floor) + floor)
        out[1] = 0

    def _uniform(self, image: FloatImage) -> _Uniform | None:
        noise = self._noise_adu if self._noise_adu is not None else estimated_noise_adu(image)
        return _Uniform(noise) if noise > 0 else None

    def close(self) -> None:
        """Release the filter. May be called more than once."""
        self._filter = None


class _Uniform:
    """Units of a noise that is the same in every pixel."""

    def __init__(self, noise_adu: float) -> None:
        self._noise = np.float32(noise_adu)

    def forward(self, image: FloatImage) -> FloatImage:
        scaled: FloatImage = image / self._noise
        return scaled

    def back(self, image: NDArray[Any]) -> NDArray[Any]:
        return image * self._noise


class _Stabilising:
    """Units in which the noise of a camera is the same for every signal, as a table."""

    def __init__(self, noise_model: NoiseModel) -> None:
        table = NoiseVariance(noise_model)
        self._signal = table.signal_adu
        noise = np.sqrt(np.maximum(table.variance_adu2, _LEAST_VARIANCE_ADU2))
        steps = np.diff(self._signal) * 2 / (noise[1:] + noise[:-1])
        self._stable = np.concatenate([[0.0], np.cumsum(steps)])

    def forward(self, image: FloatImage) -> FloatImage:
        stable: FloatImage = np.interp(image, self._signal, self._stable).astype(np.float32)
        return stable

    def back(self, image: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.interp(image, self._stable, self._signal))


_LEAST_VARIANCE_ADU2 = 1 / 12
"""A camera that counts in whole ADU is never more certain than this."""


def estimated_noise_adu(image: FloatImage) -> float:
    """Estimate the standard deviation of white noise in (Y, X), 0 where the frame is too small.

    The second difference along both axes leaves noise and little else (Immerkær 1996,
    doi:10.1006/cviu.1996.0060); its median is not moved by edges. Where most pixels are dark the
    median says nothing, and the mean is taken.
    """
    if min(image.shape) < 3:
        return 0.0
    along_y = image[:-2] - 2 * image[1:-1] + image[2:]
    difference = along_y[:, :-2] - 2 * along_y[:, 1:-1] + along_y[:, 2:]
    size = np.abs(difference, dtype=np.float64)
    typical = float(np.median(size)) / _MEDIAN_OF_NORMAL
    return (typical or sqrt(pi / 2) * float(size.mean())) / _SCATTER_OF_DIFFERENCE


_MEDIAN_OF_NORMAL = 0.6745
_SCATTER_OF_DIFFERENCE = 6.0
"""Root of the sum of squares of (1 −2 1)ᵀ(1 −2 1)."""


# --------------------------------------- filters: an image in units of its noise, from zero up


def _gaussian(image: FloatImage) -> NDArray[Any]:
    from skimage.filters import gaussian

    return np.asarray(gaussian(image, sigma=1.0, preserve_range=True))


def _median(image: FloatImage) -> NDArray[Any]:
    from skimage.filters import median

    return np.asarray(median(image, np.ones((3, 3)), mode="nearest"))


def _bilateral(image: FloatImage) -> NDArray[Any]:
    from skimage.restoration import denoise_bilateral

    if image.max() <= 0:
        return image
    return np.asarray(denoise_bilateral(image, win_size=7, sigma_color=2.5, sigma_spatial=1.5))


def _wavelet(image: FloatImage) -> NDArray[Any]:
    from skimage.restoration import denoise_wavelet

    # It expects values up to 1.
    span = max(float(image.max()), 1.0)
    return np.asarray(denoise_wavelet(image / span, sigma=1 / span, rescale_sigma=False)) * span


def _non_local_means(image: FloatImage) -> NDArray[Any]:
    from skimage.restoration import denoise_nl_means

    return np.asarray(
        denoise_nl_means(image, patch_size=5, patch_distance=6, h=0.8, sigma=1.0, fast_mode=True)
    )


def _total_variation(image: FloatImage) -> NDArray[Any]:
    from skimage.restoration import denoise_tv_chambolle

    return np.asarray(denoise_tv_chambolle(image, weight=1.5))


def _bm3d(image: FloatImage) -> NDArray[Any]:
    bm3d = importlib.import_module("bm3d")
    return np.asarray(bm3d.bm3d(image, sigma_psd=1.0))


def _identity(image: FloatImage) -> NDArray[Any]:
    return image


METHODS: Mapping[str, Filter] = MappingProxyType(
    {
        "identity": _identity,
        "gaussian": _gaussian,
        "median": _median,
        "bilateral": _bilateral,
        "wavelet": _wavelet,
        "non-local-means": _non_local_means,
        "total-variation": _total_variation,
        "bm3d": _bm3d,
    }
)
"""Gaussian and median filters; bilateral (Tomasi & Manduchi 1998, doi:10.1109/ICCV.1998.710815);
wavelet shrinkage (Chang et al. 2000, doi:10.1109/83.862633); non-local means (Buades et al. 2005,
doi:10.1109/CVPR.2005.38); total variation (Chambolle 2004,
doi:10.1023/B:JMIV.0000011325.36760.1e);
BM3D (Dabov et al. 2007, doi:10.1109/TIP.2007.901238), whose licence allows academic use only."""

_EXTRAS = {"wavelet": "classical", "bm3d": "bm3d"}


def _require_library(method: str) -> None:
    if method in _EXTRAS:
        require_extra(_EXTRAS[method], method)
