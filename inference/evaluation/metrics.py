"""Scores of an image against its truth; the truth's own max − min is the range everywhere.

Owns the definitions, so that evaluation, comparison, retraining and benchmarks mean the same by a
number.
"""

from __future__ import annotations

from math import log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_squared_error(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the mean squared difference, in float64."""
    return float(((image.astype(np.float64) - truth.astype(np.float64)) ** 2).mean())


def span(truth: NDArray[Any]) -> float:
    """Return max − min of the truth: the range of all scores."""
    return float(truth.max()) - float(truth.min())


def psnr_db(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite where the image equals the truth."""
    error = mean_squared_error(image, truth)
    return 10 * log10(span(truth) ** 2 / error) if error > 0 else float("inf")


def nrmse(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the root of the mean squared error over the range."""
    return sqrt(mean_squared_error(image, truth)) / span(truth)


def nrmse_euclidean(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the root of the mean squared error over the truth's own root mean square.

    What scikit-image's `normalized_root_mse` gives by default: an offset of the camera makes it
    smaller, which the other definition does not know.
    """
    power = float((truth.astype(np.float64) ** 2).mean())
    return sqrt(mean_squared_error(image, truth) / power) if power > 0 else float("nan")


def scale_invariant_psnr_db(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the PSNR of the image after the factor and offset that serve it best.

    For images whose brightness means nothing, as of networks that were trained on normalised data
    (Weigert et al. 2018, doi:10.1038/s41592-018-0216-7).
    """
    centred = image.astype(np.float64) - float(image.mean(dtype=np.float64))
    wanted = truth.astype(np.float64) - float(truth.mean(dtype=np.float64))
    power = float((centred**2).sum())
    factor = float((centred * wanted).sum()) / power if power > 0 else 0.0
    error = float(((factor * centred - wanted) ** 2).mean())
    return 10 * log10(span(truth) ** 2 / error) if error > 0 else float("inf")


def ssim_map(image: NDArray[Any], truth: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
    """Return the structural similarity and its map (Y, X), with a 7×7 window.

    Wang et al. 2004, doi:10.1109/TIP.2003.819861.
    """
    from skimage.metrics import structural_similarity

    edge = min(7, *(size - 1 + size % 2 for size in truth.shape))
    mean, local = structural_similarity(
        truth.astype(np.float64),
        image.astype(np.float64),
        win_size=edge,
        data_range=span(truth),
        full=True,
    )
    return float(mean), local


GAUSSIAN_SIGMA_PX = 1.5
REACH_IN_SIGMAS = 3.5
"""Of scikit-image: five pixels to either side, a window of 11, as the method's authors have it."""


def ssim_gaussian_map(
    image: NDArray[Any], truth: NDArray[Any]
) -> tuple[float, NDArray[np.float64]]:
    """Return the structural similarity and its map (Y, X), Gaussian window of 11 px, σ 1.5 px.

    As its authors have it (Wang et al. 2004, doi:10.1109/TIP.2003.819861); smaller frames get a
    narrower one that fits into them.
    """
    from skimage.metrics import structural_similarity

    room = (min(truth.shape) - 1) // 2
    mean, local = structural_similarity(
        truth.astype(np.float64),
        image.astype(np.float64),
        gaussian_weights=True,
        sigma=min(GAUSSIAN_SIGMA_PX, room / REACH_IN_SIGMAS),
        use_sample_covariance=False,
        data_range=span(truth),
        full=True,
    )
    return float(mean), local


FRC_THRESHOLD = 1 / 7
"""Below it two images no longer show the same (Rosenthal & Henderson 2003)."""
NYQUIST_PX = 2.0
"""Of the finest wave that pixels can show."""


def fourier_ring_correlation(
    image: NDArray[Any], truth: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies, cycles per pixel, and the correlation of both images in each ring.

    Nieuwenhuizen et al. 2013, doi:10.1038/nmeth.2448. Against a truth it tells down to which
    wavelength an estimate shows the structure that is there; it does not see how strongly.
    """
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in truth.shape))
    one, other = (
        np.fft.fft2((picture - picture.mean(dtype=np.float64)) * window)
        for picture in (image, truth)
    )
    shared = _over_rings((one * other.conj()).real)
    power = np.sqrt(_over_rings(np.abs(one) ** 2) * _over_rings(np.abs(other) ** 2))
    correlation = np.divide(shared, power, out=np.zeros_like(shared), where=power > 0)
    return _ring_frequencies(truth.shape), correlation


def _ring_frequencies(shape: tuple[int, ...]) -> NDArray[np.float64]:
    rings = max(1, min(shape) // 2)
    return np.arange(1, rings + 1) / (2 * rings)


def _over_rings(spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over each ring of a spectrum (Y, X), without its constant part."""
    rings = max(1, min(spectrum.shape) // 2)
    along = [np.fft.fftfreq(size) for size in spectrum.shape]
    ring = np.rint(2 * rings * np.hypot(along[0][:, None], along[1][None])).astype(int).ravel()
    total = np.bincount(ring, spectrum.ravel(), minlength=rings + 1)[1 : rings + 1]
    count = np.bincount(ring, minlength=rings + 1)[1 : rings + 1]
    found: NDArray[np.float64] = total / np.maximum(count, 1)
    return found


def frc_resolution_px(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the wavelength in pixels at which the correlation with the truth falls below 1/7.

    2 px, the finest that pixels can show, where it never does.
    """
    frequency, correlation = fourier_ring_correlation(image, truth)
    if correlation.size >= _FRC_SMOOTHING:  # one ring alone falls below it by chance
        kernel = np.ones(_FRC_SMOOTHING) / _FRC_SMOOTHING
        edge = _FRC_SMOOTHING // 2
        correlation = np.convolve(np.pad(correlation, edge, mode="edge"), kernel, mode="valid")
    below = np.flatnonzero(correlation < FRC_THRESHOLD)
    return float(1 / frequency[below[0]]) if below.size else NYQUIST_PX


_FRC_SMOOTHING = 3


def spectral_flatness(residual: NDArray[Any]) -> float | None:
    """Return how white a picture is: 1 for white noise, less where waves of some length prevail.

    The geometric over the arithmetic mean of its power, ring by ring of the spectrum; None where
    it does not vary. What a denoiser removed from camera noise has to be white.
    """
    power = radial_power(residual)[1]
    mean = float(power.mean())
    if mean <= 0:
        return None
    return float(np.exp(np.log(np.maximum(power, 1e-12 * mean)).mean()) / mean)


def radial_power(picture: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies, cycles per pixel, and the mean power of a picture in each ring."""
    centred = picture - picture.mean(dtype=np.float64)
    power = _over_rings(np.abs(np.fft.fft2(centred)) ** 2 / centred.size)
    return _ring_frequencies(centred.shape), power
