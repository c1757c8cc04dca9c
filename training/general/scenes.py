"""Scenes that no microscope has seen: the only thing that the general model learns from.

Owns the shapes (dead leaves, filaments, puncta, membranes, nuclei, networks, textures, haze, empty
fields), their blur and their brightness. No recording and no test image is in it. Noise is added
in `photons`; what moves, moves there.

Dead leaves have the edges and the scale invariance of natural images (Lee, Mumford & Huang 2001,
doi:10.1023/A:1011109015675); a network that learned from them alone denoises photographs nearly
as well as one that saw photographs (Achddou et al. 2021, doi:10.1007/978-3-030-75549-2_36).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Scene = NDArray[np.float32]


def draw_scene(edge: int, rng: np.random.Generator) -> Scene:
    """Return one scene, (edge, edge), non-negative, its brightest part about 1."""
    if rng.random() < EMPTY_SHARE:
        return np.zeros((edge, edge), np.float32)
    scene = np.zeros((edge, edge), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        drawn = KINDS[int(rng.integers(len(KINDS)))](edge, rng)
        scene += drawn * np.float32(np.exp(rng.normal(0, 0.7)))
    if rng.random() < 0.35:
        scene *= _soft_mask(edge, rng)
    if rng.random() < 0.4:
        scene += _haze(edge, rng) * np.float32(rng.uniform(0.02, 0.5) * max(scene.max(), 0.1))
    sharp = ndimage.gaussian_filter(scene, float(np.exp(rng.uniform(np.log(0.4), np.log(3)))))
    if rng.random() < 0.3:  # a wide-field microscope: what is out of focus lies under it all
        share = np.float32(rng.uniform(0.1, 0.6))
        sharp = (1 - share) * sharp + share * ndimage.gaussian_filter(sharp, rng.uniform(4, 16))
    top = np.quantile(sharp, 0.998)
    return (np.maximum(sharp, 0) / max(float(top), 1e-6)).astype(np.float32)


EMPTY_SHARE = 0.03
"""Fields without a specimen: there the answer is a plain."""


def _dead_leaves(edge: int, rng: np.random.Generator) -> Scene:
    image = np.full((edge, edge), rng.uniform(0, 1), np.float32)
    smallest = rng.uniform(1.5, 6)
    rows, columns = np.mgrid[:edge, :edge].astype(np.float32)
    texture = _band_noise(edge, rng) if rng.random() < 0.5 else None
    for _ in range(int(rng.integers(60, 260))):
        radius = smallest / np.sqrt(rng.uniform((2 * smallest / edge) ** 2, 1))
        y, x = rng.uniform(0, edge, 2)
        low_y, high_y = (int(np.clip(y + s * 1.6 * radius, 0, edge)) for s in (-1, 1))
        low_x, high_x = (int(np.clip(x + s * 1.6 * radius, 0, edge)) for s in (-1, 1))
        place = np.s_[low_y:high_y, low_x:high_x]
        turn, flat = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
        dy, dx = rows[place] - y, columns[place] - x
        u, v = np.cos(turn) * dy + np.sin(turn) * dx, np.cos(turn) * dx - np.sin(turn) * dy
        inside = (
            np.maximum(np.abs(u), np.abs(v) / flat) < radius
            if rng.random() < 0.3
            else u**2 + (v / flat) ** 2 < radius**2
        )
        level = np.float32(rng.uniform(0, 1) ** 2)
        filling = level if texture is None else level * (0.6 + 0.4 * texture[place])
        image[place] = np.where(inside, filling, image[place])
    return image


def _filaments(edge: int, rng: np.random.Generator) -> Scene:
    image = np.zeros((edge, edge), np.float32)
    stiffness = rng.uniform(0.02, 0.3)
    for _ in range(int(rng.integers(3, 50))):
        length = int(rng.integers(edge // 4, 2 * edge))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, stiffness * 0.5, length))
        y = rng.uniform(0, edge) + np.cumsum(np.sin(heading)) * 0.7
        x = rng.uniform(0, edge) + np.cumsum(np.cos(heading)) * 0.7
        light: Any = np.float32(np.exp(rng.normal(0, 0.5)))
        if rng.random() < 0.3:
            light = light * np.exp(ndimage.gaussian_filter1d(rng.normal(0, 3, length), 6))
        _splat(image, y, x, np.broadcast_to(light, length))
    return ndimage.gaussian_filter(image, rng.uniform(0.5, 1.5))


def _puncta(edge: int, rng: np.random.Generator) -> Scene:
    count = int(np.exp(rng.uniform(np.log(4), np.log(900))))
    if rng.random() < 0.5:
        centres = rng.uniform(0, edge, (max(1, count // 30), 2))
        places = centres[rng.integers(len(centres), size=count)] + rng.normal(
            0, rng.uniform(4, 25), (count, 2)
        )
    else:
        places = rng.uniform(0, edge, (count, 2))
    light = np.exp(rng.normal(0, rng.uniform(0.1, 1), count))
    image = np.zeros((edge, edge), np.float32)
    _splat(image, places[:, 0], places[:, 1], light)
    return ndimage.gaussian_filter(image, rng.uniform(0.6, 3.0)) * np.float32(8)


def _membranes(edge: int, rng: np.random.Generator) -> Scene:
    if rng.random() < 0.5:
        field = _band_noise(edge, rng)
        width = rng.uniform(0.02, 0.12)
        return _as_scene(np.exp(-((field / width) ** 2)))
    nearest, second, _ = _cells(edge, rng)
    return _as_scene(np.exp(-(((second - nearest) / rng.uniform(0.8, 3)) ** 2)))


def _tissue(edge: int, rng: np.random.Generator) -> Scene:
    """Cells side by side, each of its own brightness, with a nucleus that is darker or lighter."""
    nearest, second, owner = _cells(edge, rng)
    light = rng.uniform(0, 1, int(owner.max()) + 1).astype(np.float32)[owner]
    nucleus = nearest < rng.uniform(0.25, 0.6) * np.median(second)
    light = np.where(nucleus, light * np.float32(rng.uniform(0, 1.8)), light)
    return (light * (0.7 + 0.3 * _band_noise(edge, rng))).clip(0).astype(np.float32)


def _nuclei(edge: int, rng: np.random.Generator) -> Scene:
    rows, columns = np.mgrid[:edge, :edge].astype(np.float32)
    image = np.zeros((edge, edge), np.float32)
    texture = 1 + rng.uniform(0, 0.8) * _band_noise(edge, rng)
    for _ in range(int(rng.integers(1, 25))):
        y, x, radius = rng.uniform(0, edge), rng.uniform(0, edge), rng.uniform(5, edge / 5)
        flat, turn = rng.uniform(0.5, 1), rng.uniform(0, np.pi)
        dy, dx = rows - y, columns - x
        u, v = np.cos(turn) * dy + np.sin(turn) * dx, np.cos(turn) * dx - np.sin(turn) * dy
        away = np.sqrt(u**2 + (v / flat) ** 2) - radius
        body = 1 / (1 + np.exp(np.clip(away / rng.uniform(0.4, 3), -30, 30)))
        image = np.maximum(image, body.astype(np.float32) * np.float32(np.exp(rng.normal(0, 0.5))))
    return (image * texture).clip(0).astype(np.float32)


def _network(edge: int, rng: np.random.Generator) -> Scene:
    """Tubes that branch, as of mitochondria: ridges of a smooth random field."""
    field = _band_noise(edge, rng)
    along_y, along_x = np.gradient(field)
    steep = np.sqrt(along_y**2 + along_x**2) + 1e-3
    ridge = np.exp(-((field / (steep * rng.uniform(1, 3))) ** 2))
    return _as_scene(ridge * (_band_noise(edge, rng) > rng.uniform(-1, 0.5)))


def _texture(edge: int, rng: np.random.Generator) -> Scene:
    noise = _band_noise(edge, rng)
    return _as_scene(np.exp(rng.uniform(0.3, 1.5) * noise) / 5)


def _as_scene(image: NDArray[Any]) -> Scene:
    return image.astype(np.float32)


def _haze(edge: int, rng: np.random.Generator) -> Scene:
    field = _band_noise(edge, rng, low=edge / 3, high=2 * edge)
    return _as_scene((field - field.min()) / max(float(np.ptp(field)), 1e-6))


KINDS: tuple[Callable[[int, np.random.Generator], Scene], ...] = (
    _dead_leaves, _dead_leaves, _filaments, _puncta, _membranes, _tissue, _nuclei, _network,
    _texture,
)  # fmt: skip


def _band_noise(
    edge: int, rng: np.random.Generator, low: float = 4.0, high: float | None = None
) -> Scene:
    """Return a Gaussian random field of unit variance around one wavelength, in pixels."""
    wavelength = np.exp(rng.uniform(np.log(low), np.log(high or edge / 2)))
    spectrum = np.fft.rfft2(rng.standard_normal((edge, edge)))
    frequency = np.hypot(np.fft.fftfreq(edge)[:, None], np.fft.rfftfreq(edge)[None])
    if rng.random() < 0.5:
        weight = np.exp(-(((frequency * wavelength - 1) / rng.uniform(0.2, 0.8)) ** 2))
    else:  # a power law, as of natural images, below the band
        weight = (frequency + 1 / (4 * wavelength)) ** -rng.uniform(1, 2.2)
        weight *= np.exp(-((frequency * wavelength / 2) ** 2))
    weight[0, 0] = 0
    field = np.fft.irfft2(spectrum * weight, s=(edge, edge))
    return (field / max(float(field.std()), 1e-9)).astype(np.float32)


def _cells(edge: int, rng: np.random.Generator) -> tuple[Scene, Scene, NDArray[np.intp]]:
    """Return the distances to the nearest and second nearest of random points, and which it is."""
    from scipy.spatial import cKDTree

    points = rng.uniform(-10, edge + 10, (int(rng.integers(8, 120)), 2))
    bend = rng.uniform(0, 6)
    grid = np.mgrid[:edge, :edge].astype(np.float32)
    bent = np.stack([axis + bend * _band_noise(edge, rng, low=edge / 6) for axis in grid], axis=-1)
    found: tuple[Any, Any] = cKDTree(points).query(bent, k=2)
    distance, owner = found
    return distance[..., 0].astype(np.float32), distance[..., 1].astype(np.float32), owner[..., 0]


def _soft_mask(edge: int, rng: np.random.Generator) -> Scene:
    """Return where the specimen is: one region or several, with an edge."""
    field = _band_noise(edge, rng, low=edge / 3, high=1.5 * edge) - np.float32(rng.normal(0, 0.5))
    return _as_scene(1 / (1 + np.exp(np.clip(-field * rng.uniform(3, 40), -30, 30))))


def _splat(
    image: Scene, y: NDArray[np.float64], x: NDArray[np.float64], light: NDArray[np.floating]
) -> None:
    """Add points of light, shared among the four pixels around each."""
    edge = image.shape[0]
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    for down in (0, 1):
        for across in (0, 1):
            share = np.abs(1 - down - (y - row)) * np.abs(1 - across - (x - column))
            inside = (row + down >= 0) & (row + down < edge)
            inside &= (column + across >= 0) & (column + across < edge)
            np.add.at(
                image,
                (row[inside] + down, column[inside] + across),
                (share * light)[inside].astype(np.float32),
            )
