"""Three specimens before three cameras, for the verdict's benchmark: truth, frames, and faults.

Owns what is simulated; what is judged and stored is in `verdict_regimes`. Photoelectrons
throughout, until a camera turns them into ADU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen

SHAPE = (256, 256)
PSF_PX = 1.3
FloatImage = NDArray[np.float64]

CAMERAS = {
    "cells": CameraLaw(2.0, 100.0, 1.6),
    "puncta": CameraLaw(0.5, 100.0, 2.5),
    "filaments": CameraLaw(1.0, 200.0, 1.0),
}
"""Each specimen's camera."""
PEAK_E = {"cells": 60.0, "puncta": 80.0, "filaments": 40.0}


def truth_e(specimen: str, scene: int, frame: int, shape: tuple[int, int] = SHAPE) -> FloatImage:
    """Return the photoelectrons of a frame, (Y, X). Cells move; the others are still."""
    if specimen == "cells":
        cells = Specimen(
            shape, CAMERAS[specimen], peak_photoelectrons=PEAK_E[specimen], seed=scene
        )
        return np.asarray(cells.truth_photoelectrons(frame), np.float64) + 2.0
    return _still_e(specimen, scene, shape)


@lru_cache(maxsize=4)
def _still_e(specimen: str, scene: int, shape: tuple[int, int]) -> FloatImage:
    drawn = _puncta_scene if specimen == "puncta" else _filament_scene
    return PEAK_E[specimen] * drawn(np.random.default_rng((7, scene)), shape) + 2.0


def _puncta_scene(rng: np.random.Generator, shape: tuple[int, int]) -> FloatImage:
    """Nuclei of uneven stain, and bright points of all strengths around them."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    image = np.zeros(shape)
    area = shape[0] * shape[1]
    for _ in range(max(3, area // 7000)):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        a, b, turn = rng.uniform(10, 20), rng.uniform(8, 14), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        image = np.maximum(image, rng.uniform(0.15, 0.4) * ((u / a) ** 2 + (v / b) ** 2 < 1))
    image *= 0.7 + 0.6 * _texture(rng, shape, 3.0)
    points = np.zeros(shape)
    for _ in range(area // 450):
        points[rng.integers(shape[0]), rng.integers(shape[1])] += rng.gamma(1.5, 0.25)
    image += points * (2 * np.pi * PSF_PX**2) * 0.6
    return np.asarray(gaussian_filter(image, PSF_PX))


def _filament_scene(rng: np.random.Generator, shape: tuple[int, int]) -> FloatImage:
    """Curved threads of all strengths in an uneven haze."""
    lines = np.zeros(shape)
    for _ in range(max(6, shape[0] * shape[1] // 1800)):
        _draw_thread(lines, rng, rng.uniform(40, 160), rng.uniform(0.15, 0.8))
    haze = 0.15 * gaussian_filter(lines, 8) / max(1e-9, gaussian_filter(lines, 8).mean())
    return np.asarray(gaussian_filter(lines, PSF_PX)) + haze * 0.5


def _draw_thread(
    image: FloatImage, rng: np.random.Generator, length: float, peak: float, bend: float = 0.05
) -> None:
    """Add a curved line that has `peak` once it is blurred by the point spread."""
    y, x = rng.uniform(0, image.shape[0]), rng.uniform(0, image.shape[1])
    angle, step = rng.uniform(0, 2 * np.pi), 0.5
    for _ in range(int(length / step)):
        angle += bend * rng.standard_normal()
        y, x = y + step * np.sin(angle), x + step * np.cos(angle)
        row, column = int(np.floor(y)), int(np.floor(x))
        if 0 <= row < image.shape[0] - 1 and 0 <= column < image.shape[1] - 1:
            fy, fx = y - row, x - column
            share = step * peak * np.sqrt(2 * np.pi) * PSF_PX
            image[row, column] += share * (1 - fy) * (1 - fx)
            image[row, column + 1] += share * (1 - fy) * fx
            image[row + 1, column] += share * fy * (1 - fx)
            image[row + 1, column + 1] += share * fy * fx


def _texture(rng: np.random.Generator, shape: tuple[int, int], width: float) -> FloatImage:
    grain = gaussian_filter(rng.standard_normal(shape), width)
    return np.asarray(0.5 + grain / (4 * grain.std()))


def points_at_snr(
    truth: FloatImage, camera: CameraLaw, rng: np.random.Generator, count: int, snr: float
) -> FloatImage:
    """Return points whose peaks are `snr` times the noise at their place, photoelectrons."""
    impulses = np.zeros(truth.shape)
    sigma = np.sqrt(truth + camera.read_noise_e**2)
    for _ in range(count):
        y, x = (int(rng.integers(6, edge - 6)) for edge in truth.shape)
        impulses[y, x] += snr * sigma[y, x]
    return np.asarray(gaussian_filter(impulses, PSF_PX)) * 2 * np.pi * PSF_PX**2


def lines_at_snr(
    truth: FloatImage, camera: CameraLaw, rng: np.random.Generator, count: int, snr: float
) -> FloatImage:
    """Return thin threads of 40 pixels whose peak is `snr` times the noise, photoelectrons."""
    lines = np.zeros(truth.shape)
    sigma = float(np.median(np.sqrt(truth + camera.read_noise_e**2)))
    for _ in range(count):
        _draw_thread(lines, rng, 40.0, snr * sigma)
    return np.asarray(gaussian_filter(lines, PSF_PX))


@dataclass(frozen=True)
class Exposure:
    """How light becomes a frame, and what goes wrong on the way.

    Attributes
    ----------
    gain
        Times the calibrated gain.
    read
        Times the calibrated read noise.
    row_adu
        Noise that all pixels of a row share.
    """

    camera: CameraLaw
    gain: float = 1.0
    read: float = 1.0
    row_adu: float = 0.0

    def take(self, electrons: FloatImage, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Return one frame (Y, X), ADU."""
        law = self.camera
        read = self.read * law.read_noise_e * rng.standard_normal(electrons.shape)
        adu = self.gain * law.gain_adu_per_e * (rng.poisson(electrons) + read) + law.offset_adu
        adu += self.row_adu * rng.standard_normal((electrons.shape[0], 1))
        return np.clip(np.rint(adu), 0, 65535).astype(np.uint16)
