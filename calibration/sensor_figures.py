"""The figures of a camera data sheet, after EMVA Standard 1288 (release 4.0).

Owns what is the sensor's own and stands still: dark signal and response that differ from pixel to
pixel (DSNU, PRNU), told apart from temporal noise and by rows and columns, their spectra, and what
follows from gain and read noise. How gain and read noise are found is the business of
`fit_photon_transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CalibrationError
from .fit_photon_transfer import exposure_line
from .level_statistics import LevelStatistics
from .noise_model import FloatArray
from .photon_transfer import PhotonTransfer
from .straight_line import Interval, weighted_line

EVEN_FIELD = 0.3
"""Spread of brightness about a smooth field, above which a level shows a scene and no sensor."""
MS_PER_S = 1000.0


@dataclass(frozen=True, slots=True)
class Nonuniformity:
    """Standard deviation of what stands still, all of it and by its parts.

    Attributes
    ----------
    total, rows, columns, pixels
        In one unit: total² = rows² + columns² + pixels².
    """

    total: float
    rows: float
    columns: float
    pixels: float

    def scaled(self, factor: float) -> Nonuniformity:
        """Return the same in another unit."""
        return Nonuniformity(*(factor * part for part in asdict(self).values()))


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Spectra of a picture that stands still, along rows and along columns.

    Attributes
    ----------
    cycles_per_pixel_x, along_x
        Frequencies along the rows, and amplitudes (as standard deviations: a white pattern has the
        same at all of them).
    cycles_per_pixel_y, along_y
        The same along the columns.
    """

    cycles_per_pixel_x: NDArray[np.floating]
    along_x: NDArray[np.floating]
    cycles_per_pixel_y: NDArray[np.floating]
    along_y: NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class SensorFigures:
    """What a data sheet says beside gain, offset and read noise.

    Attributes
    ----------
    dsnu_e
        Dark signal nonuniformity, e⁻; None without dark frames.
    prnu
        Photoresponse nonuniformity, a share of the light; None without an evenly lit level.
    dark_spectrum, light_spectrum
        Of the mean dark picture (e⁻) and of the response (a share of the light).
    linearity_error
        Mean deviation of the light from a line over exposure, each a share of its own light; None
        where exposures are not known.
    dark_current_e_per_s
        From dark frames of several exposures; None without.
    """

    dsnu_e: Nonuniformity | None = None
    prnu: Nonuniformity | None = None
    dark_spectrum: Spectrum | None = None
    light_spectrum: Spectrum | None = None
    linearity_error: float | None = None
    dark_current_e_per_s: Interval | None = None

    def result(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        current = self.dark_current_e_per_s
        return {
            "dsnu_e": self.dsnu_e and asdict(self.dsnu_e),
            "prnu": self.prnu and asdict(self.prnu),
            "linearity_error": self.linearity_error,
            "dark_current_e_per_s": current and current.value,
            "dark_current_interval": current and [current.low, current.high],
        }


def sensor_figures(
    levels: Sequence[LevelStatistics],
    dark: LevelStatistics | None,
    dark_series: Sequence[LevelStatistics],
    law: PhotonTransfer,
    usable: FloatArray | None,
) -> SensorFigures:
    """Work out the figures.

    Parameters
    ----------
    levels, dark
        Light levels and frames without light.
    dark_series
        Frames without light at several exposures.
    law
        Gain and offset.
    usable
        (Y, X), 1 where a pixel counts; hot ones would hide what the others do.
    """
    per_e = 1 / law.photoelectron_gain_adu_per_e
    dsnu = dark_spectrum = prnu = light_spectrum = None
    if dark is not None:
        picture = _filled(dark.mean_adu - dark.mean_adu.mean(), usable)
        dsnu = nonuniformity(picture, _error_of_means(dark, usable)).scaled(per_e)
        dark_spectrum = _spectrum(picture * per_e)
    response = _response(levels, dark, law, usable)
    if response is not None:
        prnu = nonuniformity(*response)
        light_spectrum = _spectrum(response[0])
    return SensorFigures(
        dsnu_e=dsnu,
        prnu=prnu,
        dark_spectrum=dark_spectrum,
        light_spectrum=light_spectrum,
        linearity_error=_linearity_error(levels, law),
        dark_current_e_per_s=_dark_current(dark_series, law) if dark_series else None,
    )


def nonuniformity(picture: FloatArray, error: float) -> Nonuniformity:
    """Split the spatial variance of a mean picture (Y, X) without its mean.

    `error` is the temporal variance that is left in each of its pixels; it is taken out.
    """
    rows, columns = picture.shape
    total = max(float(picture.var()) - error, 0.0)
    of_rows = float(picture.mean(axis=1).var()) - error / columns
    of_columns = float(picture.mean(axis=0).var()) - error / rows
    # Means of rows hold 1/X of the pixels' own variance, those of columns 1/Y.
    share = 1 - 1 / rows - 1 / columns
    pixels = max((total - of_rows - of_columns) / max(share, 1e-9), 0.0)
    parts = (of_rows - pixels / columns, of_columns - pixels / rows, pixels)
    return Nonuniformity(
        float(np.sqrt(total)), *(float(np.sqrt(max(part, 0.0))) for part in parts)
    )


def _error_of_means(level: LevelStatistics, usable: FloatArray | None) -> float:
    return float(_filled(level.variance_adu2, usable).mean()) / level.frames


def _filled(picture: FloatArray, usable: FloatArray | None) -> FloatArray:
    if usable is None:
        return picture
    kept = usable > 0
    return np.where(kept, picture, np.median(picture[kept]))


def _response(
    levels: Sequence[LevelStatistics],
    dark: LevelStatistics | None,
    law: PhotonTransfer,
    usable: FloatArray | None,
) -> tuple[FloatArray, float] | None:
    """Return response − 1 of every pixel, and the variance that time left in it."""
    offset = dark.mean_adu if dark is not None else law.offset_adu
    if offset is None:
        return None
    half = law.saturation_adu / 2
    level = min(levels, key=lambda one: abs(one.mean - half))
    light = _filled(level.mean_adu - offset, usable)
    field = _smooth_field(light)
    if float(light.mean()) <= 0 or field.min() <= 0:
        return None
    response = light / field - 1
    if float(response.std()) > EVEN_FIELD:
        return None
    left = _error_of_means(level, usable)
    left += _error_of_means(dark, usable) if dark is not None else 0.0
    return response - response.mean(), float(left * np.mean(1 / field**2))


def _smooth_field(light: FloatArray) -> FloatArray:
    """Return the illumination: a parabola in both directions, which no pixel pattern is."""
    y, x = (np.linspace(-1, 1, size) for size in light.shape)
    terms = [np.outer(y**i, x**j) for i in range(3) for j in range(3 - i)]
    design = np.stack([term.ravel() for term in terms])
    weights = np.linalg.solve(design @ design.T, design @ light.ravel())
    return (weights @ design).reshape(light.shape)


def _spectrum(picture: FloatArray) -> Spectrum:
    parts: list[NDArray[np.floating]] = []
    for axis in (1, 0):
        length = picture.shape[axis]
        lines = picture - picture.mean(axis=axis, keepdims=True)
        power = (np.abs(np.fft.rfft(lines, axis=axis)) ** 2).mean(axis=1 - axis) / length
        parts += [np.fft.rfftfreq(length)[1:], np.sqrt(power[1:])]
    return Spectrum(*parts)


def _linearity_error(levels: Sequence[LevelStatistics], law: PhotonTransfer) -> float | None:
    line = exposure_line(levels)
    if line is None or law.offset is None:
        return None
    errors = [
        abs(level.mean - line.at(level.exposure_ms).value)
        / max(level.mean - law.offset.value, 1.0)
        for level in levels
        if level.exposure_ms is not None
    ]
    return float(np.mean(errors))


def _dark_current(series: Sequence[LevelStatistics], law: PhotonTransfer) -> Interval:
    exposures = [level.exposure_ms for level in series]
    known = np.array([ms for ms in exposures if ms is not None], dtype=np.float64)
    if len(known) < len(exposures) or np.unique(known).size < 2:
        raise CalibrationError(
            f"dark series: exposures of {', '.join(map(str, exposures))} ms, expected at least "
            "two different ones, written in each recording; record the series with quietscope "
            "record"
        )
    means = np.array([level.mean for level in series])
    common = [level.frame_means_adu.var(ddof=1) / level.frames for level in series]
    errors = np.sqrt(np.array(common) + 1e-12)
    line = weighted_line(known / MS_PER_S, means, errors)
    return line.slope_interval.scaled(1 / law.photoelectron_gain_adu_per_e)
