"""What a frame looks like, in a few figures that tell one kind of specimen from another.

Owns the figures by which a frame is compared with what the model was trained on: brightness, the
shares of fine and coarse structure, how it is distributed and whether it runs in lines. Measured
on the camera's image, with the power of its noise taken off, so that a picture that lost
something is not taken for a specimen without it; in squares of 128 pixels: what one square looked
like in training, a frame may look like. Figures of shape are ratios: light alone changes none.
"""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .residuals import Image, halved

TILE_PX = 128
OCTAVES = 4
LEAST_POWER = 1e-6
LEAST_SHARE = 0.03
"""Of the noise's power: what is left of structure below it is not known."""

SHAPE = (
    "contrast",
    "fine_detail",
    "detail",
    "coarse_detail",
    "peaks",
    "skewness",
    "threads",
)
"""Features of the kind of specimen, which light alone does not change."""

Features = dict[str, NDArray[np.float64]]
"""Name to a value for each tile of a frame."""


def domain_features(raw: Image, sigma_adu: Image, floor_adu: float) -> Features:
    """Measure a frame tile by tile.

    Parameters
    ----------
    raw
        (Y, X), ADU.
    sigma_adu
        (Y, X), the noise's standard deviation.
    floor_adu
        What the camera gives without light.

    Returns
    -------
    Empty for frames smaller than 32 pixels.
    """
    edge = min(TILE_PX, 1 << (min(raw.shape).bit_length() - 1))
    if edge < 32:
        return {}
    whole = tuple(slice(size // edge * edge) for size in raw.shape)
    noise = _tile_mean(sigma_adu[whole][::2, ::2] ** 2, edge >> 1)
    power, grid = [], raw
    for octave in range(OCTAVES):
        coarser = halved(grid)
        detail = _tile_mean(halved(grid**2) - coarser**2, edge >> (octave + 1)) * (4 / 3)
        alone = noise / 4**octave
        power.append(np.maximum(detail - alone, LEAST_SHARE * alone))
        if octave == 0:
            half = coarser
        grid = coarser
    band: Image = half - gaussian_filter(half, 1.2, mode="nearest", truncate=2.5)
    spread = np.sqrt(np.maximum(_tile_mean(band**2, edge >> 1), LEAST_POWER))
    light = np.maximum(_tile_mean(raw, edge) - floor_adu, 1e-3)
    top = np.maximum(_tile_quantile(half, edge >> 1, 0.995) - floor_adu, 1e-3)
    found = {
        "brightness": np.log(light),
        "highlights": np.log(top),
        "contrast": 0.5 * np.log(power[2]) - np.log(light),
        "fine_detail": 0.5 * np.log(power[0] / power[1]),
        "detail": 0.5 * np.log(power[1] / power[2]),
        "coarse_detail": 0.5 * np.log(power[2] / power[3]),
        "peaks": np.log(np.maximum(_tile_quantile(band, edge >> 1, 0.995) / spread, 1e-3)),
        "skewness": _tile_mean(band * band * band, edge >> 1) / spread**3,
        "threads": _tile_coherence(half, edge >> 1),
    }
    return {name: np.asarray(value, np.float64).ravel() for name, value in found.items()}


def _tiles(image: Image, edge: int) -> NDArray[np.float32]:
    rows, columns = image.shape[0] // edge, image.shape[1] // edge
    part = image[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge)
    return part.transpose(0, 2, 1, 3).reshape(rows * columns, edge * edge)


def _tile_mean(image: Image, edge: int) -> NDArray[np.float64]:
    rows, columns = image.shape[0] // edge, image.shape[1] // edge
    part = image[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge)
    mean: NDArray[np.float64] = part.mean(axis=(1, 3), dtype=np.float64).ravel()
    return mean


def _tile_quantile(image: Image, edge: int, share: float) -> NDArray[np.float64]:
    step = max(1, edge // 64)
    values = _tiles(np.ascontiguousarray(image[::step, ::step]), edge // step)
    place = min(values.shape[1] - 1, round(share * (values.shape[1] - 1)))
    found: NDArray[np.float64] = np.partition(values, place, axis=1)[:, place].astype(np.float64)
    return found


def _tile_coherence(image: Image, edge: int) -> NDArray[np.float64]:
    """Return how far gradients nearby agree in direction: 1 in threads, less in points."""
    down = (image[2:, 1:-1] - image[:-2, 1:-1]).astype(np.float32)
    across = (image[1:-1, 2:] - image[1:-1, :-2]).astype(np.float32)
    pad = ((1, 1), (1, 1))
    yy, xx, yx = (
        halved(halved(np.pad(product, pad))) for product in (down**2, across**2, down * across)
    )
    energy = yy + xx
    directed = np.sqrt((yy - xx) ** 2 + 4 * yx**2)
    total = np.maximum(_tile_mean(energy, edge >> 2), 1e-9)
    return _tile_mean(directed, edge >> 2) / total


def times(difference: float) -> float:
    """Return by which factor two logarithms differ, 1 or more."""
    return float(np.exp(min(abs(difference), log(1e6))))
