"""What single pixels of a camera do: offset, variance and gain maps, hot and dead pixels.

Owns the maps, how they are measured from dark frames and light levels, what they make of an
observation, and which part of them a frame needs. Every pixel of an sCMOS camera has its own
amplifier (Huang et al. 2013, Nature Methods 10:653, doi:10.1038/nmeth.2488).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .level_statistics import LevelStatistics
from .noise_model import FloatArray, NoiseModel
from .pixel_faults import hot_without_light, typical_variance

DEAD_RESPONSE = 0.5
"""A pixel that sees less than this share of what the others see is called dead."""
EVEN_FIELD = 0.1
"""Spread of brightness about its neighbourhood up to which a level is an evenly lit field."""
CERTAIN_SIGMA = 3.0
"""A pixel that differs from the others by more than this is believed to."""
UNEVEN_OFFSET = 0.1
"""Scatter of the pixels' offsets, in units of the noise without light, that is worth a map."""
UNEVEN_VARIANCE = 5.0
"""Of one pixel over that of the typical one: more than chance makes of some twenty frames."""

Region = tuple[int, int, int, int]
"""x, y, width, height in unbinned sensor pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelMaps:
    """Per-pixel properties over one region of the sensor, (Y, X) each.

    Attributes
    ----------
    offset_adu, variance_adu2
        Mean and temporal variance without light.
    response
        Response to light over that of the pixels around it; None without an evenly lit level.
    hot, dead
        Pixels that are far noisier or brighter without light, or do not respond.
    """

    offset_adu: FloatArray
    variance_adu2: FloatArray
    response: FloatArray | None
    hot: NDArray[np.bool_]
    dead: NDArray[np.bool_]

    @property
    def noise_adu(self) -> FloatArray:
        """Standard deviation without light, ADU."""
        noise: FloatArray = np.sqrt(self.variance_adu2)
        return noise

    @property
    def usable(self) -> FloatArray:
        """1 where a pixel is neither hot nor dead."""
        sound: FloatArray = 1.0 - (self.hot | self.dead).astype(np.float64)
        return sound

    @property
    def uneven(self) -> bool:
        """Whether the pixels differ so much that it pays to treat each as its own."""
        typical = float(np.median(self.variance_adu2))
        shift = (self.offset_adu - np.median(self.offset_adu)) ** 2 / max(typical, 1e-12)
        return bool(
            self.dead.any()
            or shift.max() > 1
            or shift.mean() > UNEVEN_OFFSET**2
            or self.variance_adu2.max() > UNEVEN_VARIANCE * typical
        )

    def correction(
        self, *, offset_adu: float, dark_variance_adu2: float, range_adu: float
    ) -> NDArray[np.float32]:
        """Return what makes every pixel one of the camera's law, and how noisy it is then.

        Parameters
        ----------
        offset_adu, dark_variance_adu2
            Of the law that holds for all pixels.
        range_adu
            A dead pixel says as little as noise of this standard deviation leaves of it.

        Returns
        -------
        (3, Y, X): factor and summand, so that factor · observation + summand has the law's offset
        and gain, and the logarithm of its variance without light over that of the law.
        """
        response = np.ones_like(self.offset_adu) if self.response is None else self.response
        factor = 1 / np.where(self.dead, 1.0, response)
        summand = np.where(self.dead, 0.0, offset_adu - self.offset_adu * factor)
        variance = np.where(self.dead, range_adu**2, self.variance_adu2 * factor**2)
        excess = np.log(np.maximum(variance, 1e-2 * dark_variance_adu2) / dark_variance_adu2)
        return np.stack([factor, summand, excess]).astype(np.float32)


@runtime_checkable
class PixelNoiseModel(NoiseModel, Protocol):
    """A noise model that knows the single pixels of one region of the sensor."""

    @property
    def maps(self) -> PixelMaps | None:
        """The maps; None where all pixels count alike."""
        ...

    def pixel_variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[observation | signal] of every pixel, (…, Y, X) ADU²."""
        ...

    def pixel_log_likelihood(self, observation: ArrayLike, signal: ArrayLike) -> FloatArray:
        """Return log p(observation | signal) of images (…, Y, X), pixel by pixel."""
        ...


def part_of(
    calibrated: Region | None,
    maps_shape: tuple[int, int],
    region: Region | None,
    frame_shape: tuple[int, int],
) -> tuple[slice, slice] | None:
    """Return rows and columns of the maps that belong to a frame; None where that is not known.

    Parameters
    ----------
    calibrated, maps_shape
        The region that was calibrated, if known, and the shape of its maps.
    region, frame_shape
        The same of the frame.
    """
    if calibrated is None or region is None:
        whole = maps_shape == frame_shape
        return (slice(0, maps_shape[0]), slice(0, maps_shape[1])) if whole else None
    binning = max(1, calibrated[2] // maps_shape[1])
    if (region[2], region[3]) != (binning * frame_shape[1], binning * frame_shape[0]):
        return None
    x, rest_x = divmod(region[0] - calibrated[0], binning)
    y, rest_y = divmod(region[1] - calibrated[1], binning)
    inside = 0 <= y <= maps_shape[0] - frame_shape[0] and 0 <= x <= maps_shape[1] - frame_shape[1]
    if rest_x or rest_y or not inside:
        return None
    return slice(y, y + frame_shape[0]), slice(x, x + frame_shape[1])


def pixel_maps(
    dark: LevelStatistics,
    levels: Sequence[LevelStatistics],
    *,
    stuck: NDArray[np.bool_] | None = None,
) -> PixelMaps:
    """Measure the maps; the response from the brightest level, against its local median.

    `stuck` pixels (Y, X) always give one value; they count as dead.
    """
    response = _response(dark, levels)
    typical = typical_variance(dark.variance_adu2, dark.frames)
    dead = np.zeros(dark.mean_adu.shape, bool) if response is None else response < DEAD_RESPONSE
    return PixelMaps(
        offset_adu=_certain(
            dark.mean_adu, float(np.median(dark.mean_adu)), np.sqrt(typical / dark.frames)
        ),
        # The variance of one pixel is known to √(3/N) from differences of N frames.
        variance_adu2=_certain(dark.variance_adu2, typical, typical * np.sqrt(3 / dark.frames)),
        response=response,
        hot=hot_without_light(dark),
        dead=dead if stuck is None else dead | stuck,
    )


def _certain(values: FloatArray, centre: float, standard_error: FloatArray | float) -> FloatArray:
    """Keep of a map what is known of each pixel, not what chance made of it.

    Values are drawn towards `centre` by the share of their scatter that is error alone; a pixel
    that stands out stays where it is.
    """
    deviation = values - centre
    error = np.broadcast_to(np.asarray(standard_error, dtype=np.float64), values.shape) ** 2
    true = max(_robust_sigma(deviation) ** 2 - float(np.median(error)), 0.0)
    of_all = true / np.maximum(true + error, 1e-30)
    of_one = 1 - CERTAIN_SIGMA**2 * error / np.maximum(deviation**2, 1e-30)
    kept: FloatArray = centre + np.maximum(of_all, of_one) * deviation
    return kept


def _robust_sigma(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _response(dark: LevelStatistics, levels: Sequence[LevelStatistics]) -> FloatArray | None:
    from scipy.ndimage import median_filter

    if not levels:
        return None
    brightest = max(levels, key=lambda level: level.mean)
    light = brightest.mean_adu - dark.mean_adu
    around = median_filter(light, size=9, mode="nearest")
    if float(np.median(light)) <= 10 * np.sqrt(dark.variance):
        return None
    response: FloatArray = light / np.maximum(around, 1e-9)
    if _robust_sigma(response) > EVEN_FIELD:
        return None  # a scene, not an even field: its structure is not the camera's
    error = np.sqrt(brightest.variance_adu2 / brightest.frames) / np.maximum(around, 1e-9)
    return _certain(response, 1.0, error)
