"""What a right model leaves behind: the distribution that every figure is judged against.

Owns the record that training writes into a bundle, the limits that follow from it, and what is
known without it.

Why a record: the residual of a right model is no white noise. What the model takes over from its
input (its response; its trace is the divergence in Stein's estimate) makes it weaker, correlates
neighbours negatively, and differs with brightness; and every model loses a little structure. All
of that is measured best where it happened: on held-out frames of the training, with the very
figures that are measured later. What the record cannot tell for want of frames is bounded by
theory: limits never fall below those of ideal noise for this number of pixels and places.

The extremes of filtered residuals follow a Gumbel law, fitted to tiles; that of a whole frame
follows by its number of tiles. Below it lies the expected Euler characteristic of a Gaussian
field (Worsley et al. 1996, doi:10.1002/(SICI)1097-0193(1996)4:1<58::AID-HBM4>3.0.CO;2-O). A right
model is wrong at the same places again and again where structure is finest. How much so is
measured by simulated repeats: the picture of a held-out frame, with new noise, is denoised several
times, and the mean of what was removed is what will add up over the frames.

Old bundles have no record. Then the model's response is not known, and only what no response of a
right model can do is judged: the noise of the camera's own image, a positive correlation, places
at which more than white noise was removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, log1p, sqrt
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.optimize import brentq
from scipy.special import fdtri, stdtrit

from ...storage.bounded_text import read_text
from ..errors import BundleError
from .evidence import Evidence
from .local_evidence import FILTER_PX, SCALES, TILE_PX, Standing, tile_extremes
from .residuals import Image
from .training_domain import SHAPE, Features

FIGURE_ALPHA = 2e-5
"""Of a figure in a frame: twenty of them stay under one in two thousand together."""
DOMAIN_ALPHA = 1e-4
"""Of a feature. They follow no normal law; more could not be told from so few tiles."""
KIND_ALPHA = 5e-3
"""Of all features of shape together, of frames of one tile; of more tiles it is far less."""
FEWEST_TILES = 16
SHRINK = 0.2
"""Of the correlations between features, towards none: they are known from a few dozen tiles."""
FRAME_SHARE = 1 / 3
"""Of what differs between tiles, that which is taken to differ between frames: not recorded."""
PLACES_ALPHA = 5e-4
"""That a frame of noise alone shows a place at all, over all places, scales and signs."""
KNOTS = 6
SAMPLING = {
    "noise_dark": 4.0,
    "noise_bright": 4.0,
    "removed": 2.8,
    "lag_x": 1.1,
    "lag_y": 1.1,
    "softness": 1.0,
    "bias_dark": 1.4,
    "bias_bright": 2.0,
}
"""Scatter of a figure times the root of the number of pixels, of ideal noise."""
LINES_SAMPLING = 2.0
"""Scatter of `rows` and `columns` times the root of the number of lines."""
LEAST_TOLD = {
    "noise_dark": 0.06,
    "noise_bright": 0.06,
    "removed": 0.05,
    "lag_x": 0.02,
    "lag_y": 0.02,
    "rows": 0.35,
    "columns": 0.35,
    "softness": 0.012,
    "bias_dark": 0.06,
    "bias_bright": 0.06,
}
"""What is less is true and nobody's concern."""
WITHOUT_RECORD = {
    "noise_dark": (-0.15, 0.15),
    "noise_bright": (-0.15, 0.25),
    "lag_x": (-1.0, 0.06),
    "lag_y": (-1.0, 0.06),
    "rows": (-np.inf, 1.0),
    "columns": (-np.inf, 1.0),
}
"""Of bundles without a record: no response of a right model, nor fine structure, does that."""
STANDING_FACTOR = 4.0
"""The picture is smoother than the specimen, so repeats of it lose less; and a few pictures do not
hold the worst of all."""
WIDEST = 1.6
"""Limits of places in units of those of ideal noise: a model that lost more in training already is
told, not excused."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Spread(_Record):
    """A figure over frames or tiles: mean, standard deviation, least, most, how many."""

    mean: float
    spread: float = Field(ge=0)
    low: float
    high: float
    count: int = Field(ge=1)

    @classmethod
    def of(cls, values: Sequence[float] | NDArray[np.float64]) -> Spread:
        """Summarise at least one value."""
        found = np.asarray(values, np.float64)
        return cls(
            mean=float(found.mean()),
            spread=float(found.std(ddof=1)) if found.size > 1 else 0.0,
            low=float(found.min()),
            high=float(found.max()),
            count=found.size,
        )


class Extremes(_Record):
    """The largest values in tiles at one scale, of one sign.

    Attributes
    ----------
    location, width
        Of the Gumbel law, in units of the scale's own standard deviation.
    standing
        The largest mean over many frames, in the same units.
    """

    location: float
    width: float = Field(ge=0)
    standing: float = Field(ge=0)


class TrustReference(_Record):
    """What training found on held-out frames.

    Attributes
    ----------
    frames, pixels
        How many frames, and of how many pixels each.
    floor_adu
        What the camera gives without light.
    figures, domain
        Figures over frames, features over tiles.
    shape_correlation
        Of the features `training_domain.SHAPE`, over tiles; empty if too few were seen.
    levels_adu
        Brightnesses at which the response is given.
    response
        At each scale and level: the standard deviation of the filtered residual over that of white
        noise.
    lost, invented
        Extremes at each scale.
    """

    schema_version: Literal[1] = 1
    frames: int
    pixels: int
    floor_adu: float
    figures: dict[str, Spread]
    domain: dict[str, Spread]
    shape_correlation: tuple[tuple[float, ...], ...] = ()
    levels_adu: tuple[float, ...]
    response: tuple[tuple[float, ...], ...]
    lost: tuple[Extremes, ...] = Field(min_length=SCALES, max_length=SCALES)
    invented: tuple[Extremes, ...] = Field(min_length=SCALES, max_length=SCALES)

    @model_validator(mode="after")
    def _require_tables(self) -> TrustReference:
        """Refuse tables that do not fit together: a record may come from anywhere."""
        levels = np.asarray(self.levels_adu)
        if not levels.size or (np.diff(levels) <= 0).any():
            raise ValueError("levels_adu are expected to rise")
        if len(self.response) != SCALES or any(
            len(row) != levels.size or min(row) <= 0 for row in self.response
        ):
            raise ValueError("response is expected positive, for each scale and level")
        if self.figures and self.pixels < 1:
            raise ValueError("pixels are expected with figures")
        if self.shape_correlation:
            self._require_shape()
        return self

    def _require_shape(self) -> None:
        count = len(SHAPE)
        if [len(row) for row in self.shape_correlation] != [count] * count or (
            np.linalg.eigvalsh(_shrunk(self.shape_correlation)).min() <= 0
        ):
            raise ValueError(f"shape_correlation is expected to be one of {count} features")
        known = [self.domain.get(name) for name in SHAPE]
        if any(one is None or one.spread <= 0 or one.count <= count for one in known):
            raise ValueError("shape_correlation is expected with the features that it is of")


def _shrunk(correlation: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return a correlation of `SHAPE` as it is used."""
    return (1 - SHRINK) * np.asarray(correlation) + SHRINK * np.eye(len(SHAPE))


def read_reference(path: Path) -> TrustReference:
    """Read a bundle's record.

    Raises
    ------
    BundleError
        If it is damaged.
    """
    try:
        return TrustReference.model_validate_json(read_text(path))
    except (OSError, ValueError, ValidationError) as error:
        raise BundleError(
            f"{path}: not a record of trust figures ({_first_reason(error)}); "
            "restore the bundle or train it anew"
        ) from error


def _first_reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def measure_reference(
    frames: Sequence[Evidence], repeats: Sequence[Sequence[Evidence]], floor_adu: float
) -> TrustReference | None:
    """Summarise held-out frames.

    Parameters
    ----------
    frames
        Held-out frames as they were denoised.
    repeats
        For some pictures, several repeats with new noise.
    floor_adu
        What the camera gives without light.

    Returns
    -------
    None if there are too few frames, or too small ones, to tell anything.
    """
    frames = [frame for frame in frames if len(frame.maps) == SCALES]
    if len(frames) < 2:
        return None
    bright = np.concatenate([frame.brightness[-1].ravel() for frame in frames])
    low, high = np.quantile(bright, (0.01, 0.995))
    # Even in the root of the light, as noise is: among pixels of one brightness, any finer
    # division would sort them by their noise.
    levels = np.unique(low + (high - low) * np.linspace(0, 1, KNOTS) ** 2)
    response = np.array([_response(frames, scale, levels) for scale in range(SCALES)])
    null = Null(_bare(levels, response, floor_adu))
    normal = [null.normalised(frame) for frame in frames]
    standing = [_standing([null.normalised(frame) for frame in of_one]) for of_one in repeats]
    lost, invented = (
        tuple(_extremes(normal, standing, scale, sign) for scale in range(SCALES))
        for sign in (0, 1)
    )
    return TrustReference(
        frames=len(frames),
        pixels=int(np.median([frame.pixels for frame in frames])),
        floor_adu=floor_adu,
        figures=_spreads([frame.figures for frame in frames]),
        domain=_spreads([frame.features for frame in frames]),
        shape_correlation=_shape_correlation([frame.features for frame in frames]),
        levels_adu=tuple(float(v) for v in levels),
        response=tuple(tuple(float(v) for v in row) for row in response),
        lost=lost,
        invented=invented,
    )


def _bare(
    levels: NDArray[np.float64], response: NDArray[np.float64], floor_adu: float
) -> TrustReference:
    none = tuple(Extremes(location=0.0, width=0.0, standing=0.0) for _ in range(SCALES))
    return TrustReference(
        frames=0,
        pixels=0,
        floor_adu=floor_adu,
        figures={},
        domain={},
        levels_adu=tuple(float(v) for v in levels),
        response=tuple(tuple(float(v) for v in row) for row in response),
        lost=none,
        invented=none,
    )


def _spreads(
    found: Sequence[dict[str, float]] | Sequence[dict[str, NDArray[np.float64]]],
) -> dict[str, Spread]:
    names = {name for one in found for name in one}
    return {
        name: Spread.of(np.concatenate([np.atleast_1d(one[name]) for one in found if name in one]))
        for name in sorted(names)
    }


def _shape_correlation(found: Sequence[Features]) -> tuple[tuple[float, ...], ...]:
    whole = [one for one in found if one]
    if not whole:
        return ()
    tiles = np.array([np.concatenate([one[name] for one in whole]) for name in SHAPE])
    if tiles.shape[1] < FEWEST_TILES or (tiles.std(axis=1) == 0).any():
        return ()
    return tuple(tuple(float(v) for v in row) for row in np.corrcoef(tiles))


def _response(
    frames: Sequence[Evidence], scale: int, levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    power, weight = np.zeros(levels.size), np.zeros(levels.size)
    for frame in frames:
        image, bright = frame.maps[scale], frame.brightness[scale]
        seen = image != 0
        nearest = np.abs(bright[seen][:, None] - levels).argmin(axis=1)
        # Some pixel in a thousand that is far off is no part of what noise leaves.
        power += np.bincount(
            nearest, np.minimum(image[seen].astype(np.float64) ** 2, 16), levels.size
        )
        weight += np.bincount(nearest, minlength=levels.size)
    whole = power.sum() / max(weight.sum(), 1)
    found = (power + 200 * whole) / (weight + 200)
    response: NDArray[np.float64] = np.sqrt(np.maximum(found, 1e-4))
    return response


def _standing(repeats: Sequence[list[Image]]) -> list[Image]:
    """Return the mean of repeats less what noise is left in it, of either sign."""
    means = []
    for maps in zip(*repeats, strict=True):
        mean = np.mean(maps, axis=0)
        chance = np.std(maps, axis=0).mean() / sqrt(max(len(maps) - 1, 1))
        means.append(
            np.asarray(np.sign(mean) * np.maximum(np.abs(mean) - 2 * chance, 0), np.float32)
        )
    return means


def _extremes(
    normal: Sequence[list[Image]], standing: Sequence[list[Image]], scale: int, sign: int
) -> Extremes:
    tiles = np.concatenate([tile_extremes(maps[scale], scale)[sign] for maps in normal])
    location, width = _gumbel(tiles)
    wrong = [tile_extremes(maps[scale], scale)[sign].max() for maps in standing]
    return Extremes(location=location, width=width, standing=float(max(wrong, default=0.0)))


def _gumbel(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return location and width by L-moments (Hosking 1990)."""
    ordered, size = np.sort(values), values.size
    if size < 2:
        return float(ordered.mean()), 0.3
    first = ordered.mean()
    second = 2 * (np.arange(size) * ordered).sum() / (size * (size - 1)) - first
    width = second / log(2)
    return float(first - 0.5772 * width), float(max(width, 0.05))


def ideal_limit(pixels: int, scale: int, alpha: float) -> float:
    """Return what the largest of so many places exceeds with probability `alpha`, of noise alone.

    By the expected Euler characteristic of a Gaussian field smoothed by `FILTER_PX`.
    """
    area = max(pixels / 4**scale, 16.0)
    density = area / (2 * FILTER_PX**2) / (2 * np.pi) ** 1.5

    def excess(u: float) -> float:
        return log(density) + log(u) - u * u / 2 - log(alpha)

    return float(brentq(excess, 1.5, 12.0)) if excess(1.5) > 0 else 1.5


def _share_of_mean(tiles: int) -> float:
    """Return the variance of the mean of a frame's tiles over that of single ones."""
    return FRAME_SHARE + (1 - FRAME_SHARE) / max(tiles, 1)


def _scatter(name: str, pixels: int) -> float:
    """Return the standard deviation of a figure over frames of ideal noise."""
    if name in ("rows", "columns"):
        return LINES_SAMPLING / sqrt(sqrt(pixels))
    return SAMPLING[name] / sqrt(pixels)


class Null:
    """Limits for the figures of one model.

    Parameters
    ----------
    reference
        The bundle's record; None for bundles without.
    """

    def __init__(self, reference: TrustReference | None) -> None:
        self.reference = reference
        if reference is None or len(reference.levels_adu) < 2:
            self._table: NDArray[np.float32] | None = None
            self._low = self._high = 0.0
            if reference is not None:
                self._flat = [row[0] for row in reference.response]
            else:
                self._flat = [1.0] * SCALES
            return
        levels = np.asarray(reference.levels_adu)
        self._low, self._high = float(levels[0]), float(levels[-1])
        grid = np.linspace(self._low, self._high, 64)
        self._table = np.array(
            [1 / np.interp(grid, levels, row) for row in reference.response], np.float32
        )

    @property
    def known(self) -> bool:
        """Whether there is a record of this model."""
        return self.reference is not None

    def normalised(self, frame: Evidence) -> list[Image]:
        """Return the maps of a frame in units of what this model leaves there."""
        if self._table is None:
            return [
                image / np.float32(flat)
                for image, flat in zip(frame.maps, self._flat, strict=False)
            ]
        scale_to = np.float32(63 / (self._high - self._low))
        found = []
        for scale, (image, bright) in enumerate(zip(frame.maps, frame.brightness, strict=False)):
            place = (bright - np.float32(self._low)) * scale_to
            np.fmin(np.fmax(place, 0, out=place), 63, out=place)
            found.append(image * self._table[scale].take(place.astype(np.intp)))
        return found

    def figure_limits(
        self, name: str, pixels: int, averaged: float = 1.0
    ) -> tuple[float, float] | None:
        """Return between which values a figure of a right model lies; None if not known.

        `averaged` is how many frames' worth of noise was averaged away. What differs from scene to
        scene does not average; it is known from a few frames only, by Student's law.
        """
        if self.reference is None:
            return WITHOUT_RECORD.get(name)
        found = self.reference.figures.get(name)
        if found is None:
            return None
        recorded = _scatter(name, self.reference.pixels) ** 2
        chance = _scatter(name, pixels) ** 2 / averaged
        scenes = max(found.spread**2 - recorded, 0.0) + found.spread**2 / found.count
        variance, freedom = chance + scenes, max(found.count - 1, 1)
        effective = freedom * (variance / scenes) ** 2 if scenes else np.inf
        quantile = float(stdtrit(min(effective, 1e6), 1 - FIGURE_ALPHA / 2))
        reach = max(quantile * sqrt(variance), LEAST_TOLD[name])
        return found.mean - reach, found.mean + reach

    def domain_limits(self, name: str, tiles: int) -> tuple[float, float] | None:
        """Return between which values a feature lies that was like training; None if not known.

        At least what one tile of the training had; beyond it what chance allows, by Student's law,
        the mean of so many tiles.
        """
        found = None if self.reference is None else self.reference.domain.get(name)
        if found is None or found.count < 4:
            return None
        quantile = float(stdtrit(found.count - 1, 1 - DOMAIN_ALPHA / 2))
        reach = quantile * found.spread * sqrt(_share_of_mean(tiles) + 1 / found.count)
        return min(found.low, found.mean - reach), max(found.high, found.mean + reach)

    def strangeness(self, features: Mapping[str, float], tiles: int) -> float | None:
        """Return how unlike training the shape features are together, 1 at the limit.

        Hotelling's T² of the mean of so many tiles; None if not known.
        """
        reference = self.reference
        if reference is None or not reference.shape_correlation:
            return None
        if not set(SHAPE) <= set(features):
            return None
        known = [reference.domain[name] for name in SHAPE]
        away = np.array(
            [
                (features[name] - one.mean) / one.spread
                for name, one in zip(SHAPE, known, strict=True)
            ]
        )
        shrunk = _shrunk(reference.shape_correlation)
        squared = float(away @ np.linalg.solve(shrunk, away))
        count, size = known[0].count, len(SHAPE)
        quantile = float(fdtri(size, count - size, 1 - KIND_ALPHA))
        limit = size * (count - 1) / (count - size) * quantile
        return squared / (limit * (_share_of_mean(tiles) + 1 / count))

    def place_limits(
        self, pixels: int, *, lost: bool, standing: Standing | None = None
    ) -> NDArray[np.float64]:
        """Return beyond which value a place stands out at each scale, (SCALES,).

        Of a single frame, or of the sum over frames `standing`, in which what the model gets wrong
        again and again has added up.
        """
        alpha = PLACES_ALPHA / (2 * SCALES)
        limits = []
        for scale in range(SCALES):
            ideal = ideal_limit(pixels, scale, alpha)
            limit, allowed = ideal, 0.0
            if self.reference is not None:
                own = (self.reference.lost if lost else self.reference.invented)[scale]
                tiles = max(1.0, pixels / TILE_PX**2)
                gumbel = own.location + own.width * (log(tiles) - log(-log1p(-alpha)))
                limit = min(max(ideal, gumbel), WIDEST * ideal)
                allowed = STANDING_FACTOR * own.standing
            if standing is not None and standing.frames > 1:
                limit += allowed * standing.gain if self.reference is not None else np.inf
            limits.append(limit)
        return np.array(limits)
