"""A simulated living sample, for cameras that have nothing to look at.

Owns the truth: cells that drift, filaments that sway, vesicles that travel along them. The demo
camera of Micro-Manager has no noisy specimen, so `demo_camera` and the benchmarks put this one
before it. Whatever uses it must call it a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CameraLaw:
    """How a camera turns photoelectrons into numbers (EMVA 1288 linear model)."""

    gain_adu_per_e: float
    offset_adu: float
    read_noise_e: float
    saturation_adu: float = 65535.0

    def observe(
        self, photoelectrons: NDArray[Any], random: np.random.Generator
    ) -> NDArray[np.uint16]:
        """Draw one exposure of (Y, X) expected photoelectrons: shot, read and rounding noise."""
        electrons = random.poisson(photoelectrons) + self.read_noise_e * random.standard_normal(
            photoelectrons.shape, dtype=np.float32
        )
        adu = np.rint(self.gain_adu_per_e * electrons + self.offset_adu)
        return np.clip(adu, 0, self.saturation_adu).astype(np.uint16)

    def signal(self, photoelectrons: NDArray[Any]) -> FloatImage:
        """Return what a noiseless camera would have written, ADU."""
        return (self.gain_adu_per_e * photoelectrons + self.offset_adu).astype(np.float32)


@dataclass(frozen=True)
class Specimen:
    """A simulated sample whose every frame is a function of its index and the seed.

    Parameters
    ----------
    shape
        (Y, X) in pixels.
    law
        The camera that looks at it.
    peak_photoelectrons
        Roughly what the brightest structures give per frame; sets how noisy the frames are.
    seed
        Of the sample and of its noise.
    """

    shape: tuple[int, int]
    law: CameraLaw
    peak_photoelectrons: float = 20.0
    seed: int = 0

    def structure(self, index: int, *, stain: tuple[float, float] = (1.0, 1.0)) -> FloatImage:
        """Return how bright frame `index` is, (Y, X); the brightest structures are about 1.

        `stain` is how brightly cells and filaments show.
        """
        image = np.zeros(self.shape, dtype=np.float32)
        for cell in self._cells:
            cell.draw(image, index)
        image *= np.float32(stain[0])
        image += np.float32(stain[1]) * self._threads.draw(self.shape, index)
        return image + np.float32(0.03)

    def truth_photoelectrons(self, index: int) -> FloatImage:
        """Return the expected photoelectrons of frame `index`, (Y, X)."""
        return self.structure(index) * np.float32(self.peak_photoelectrons)

    def truth(self, index: int) -> FloatImage:
        """Return the noiseless frame `index` in ADU, (Y, X)."""
        return self.law.signal(self.truth_photoelectrons(index))

    def observe(self, index: int) -> NDArray[np.uint16]:
        """Return frame `index` as the camera would have written it, (Y, X) ADU."""
        random = np.random.default_rng((self.seed, 1, index))
        return self.law.observe(self.truth_photoelectrons(index), random)

    @cached_property
    def _cells(self) -> list[_Cell]:
        random = np.random.default_rng((self.seed, 2))
        count = max(3, round(self.shape[0] * self.shape[1] / 9000))
        return [_Cell.grow(self.shape, random) for _ in range(count)]

    @cached_property
    def _threads(self) -> _Threads:
        random = np.random.default_rng((self.seed, 3))
        count = max(4, round(self.shape[0] * self.shape[1] / 3600))
        return _Threads([_Thread.grow(self.shape, random) for _ in range(count)])


@dataclass(frozen=True)
class _Cell:
    """A soft textured body with a darker nucleus that drifts, turns back and breathes."""

    body: FloatImage
    start: NDArray[np.float64]
    velocity: NDArray[np.float64]
    breathing: tuple[float, float]

    @classmethod
    def grow(cls, shape: tuple[int, int], random: np.random.Generator) -> _Cell:
        radius = random.uniform(14, 24)
        half = int(radius * 1.7)
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
        angle = random.uniform(0, np.pi)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        distance = np.hypot(u / 1.25, v / 0.85)
        body = 1.0 / (1.0 + np.exp((distance - radius) / 1.3))
        grain = scipy.ndimage.gaussian_filter(random.standard_normal(body.shape), 2.0)
        body *= 0.30 + 0.10 * grain / grain.std()
        nucleus = 1.0 / (1.0 + np.exp((np.hypot(u - 2, v + 1) - 0.38 * radius) / 1.0))
        body *= 1.0 - 0.65 * nucleus
        return cls(
            body=np.clip(body, 0, None).astype(np.float32),
            start=random.uniform((0, 0), shape),
            velocity=random.normal(0, 0.12, 2),
            breathing=(random.uniform(0, 2 * np.pi), random.uniform(0.02, 0.06)),
        )

    def draw(self, image: FloatImage, index: int) -> None:
        phase, pace = self.breathing
        centre = _reflect(self.start + self.velocity * index, image.shape)
        corner = centre - (np.array(self.body.shape) - 1) / 2
        whole = np.floor(corner).astype(int)
        body = scipy.ndimage.shift(self.body, corner - whole, order=1, mode="constant")
        body *= np.float32(1.0 + 0.15 * np.sin(phase + pace * index))
        _paste(image, body, whole)


@dataclass(frozen=True)
class _Thread:
    """A filament (a smooth walk) that sways, with vesicles that travel along it."""

    path: NDArray[np.float64]
    sway: NDArray[np.float64]
    vesicle_start: NDArray[np.float64]
    vesicle_speed: NDArray[np.float64]
    vesicle_brightness: FloatImage

    @classmethod
    def grow(cls, shape: tuple[int, int], random: np.random.Generator) -> _Thread:
        steps = int(random.uniform(80, 220))
        heading = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, 0.06, steps))
        path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1) * 0.7, axis=0)
        vesicles = int(random.integers(0, 3))
        return cls(
            path=path + random.uniform((0, 0), shape),
            sway=random.uniform((0.5, 0.02, 0), (2.5, 0.07, 2 * np.pi)),
            vesicle_start=random.uniform(0, 1, vesicles),
            vesicle_speed=random.choice([-1, 1], vesicles)
            * random.uniform(0.002, 0.008, vesicles),
            vesicle_brightness=random.uniform(0.5, 1.0, vesicles).astype(np.float32),
        )


class _Threads:
    """All filaments in long arrays, so that one frame takes a few calls and no loop."""

    def __init__(self, threads: Sequence[_Thread]) -> None:
        lengths = np.array([len(thread.path) for thread in threads])
        self._path = np.concatenate([thread.path for thread in threads])
        self._across = np.concatenate([_normals(thread.path) for thread in threads])
        self._along = np.concatenate([np.linspace(0, np.pi, length) for length in lengths])
        # Amplitude, pace and phase of the sway, for every point.
        self._sway = np.repeat([thread.sway for thread in threads], lengths, axis=0)
        vesicles = [len(thread.vesicle_start) for thread in threads]
        self._first = np.repeat(np.cumsum(lengths) - lengths, vesicles)
        self._last = np.repeat(np.cumsum(lengths) - 1, vesicles)
        self._start = np.concatenate([thread.vesicle_start for thread in threads])
        self._speed = np.concatenate([thread.vesicle_speed for thread in threads])
        self._brightness = np.concatenate([thread.vesicle_brightness for thread in threads])

    def draw(self, shape: tuple[int, int], index: int) -> FloatImage:
        """Return filaments and vesicles of frame `index`, (Y, X)."""
        points = self._points(index)
        lines = _splatted(shape, points, np.ones(len(points), dtype=np.float32))
        spots = _splatted(shape, self._vesicles(points, index), self._brightness)
        image: FloatImage = scipy.ndimage.gaussian_filter(lines, 1.1) * np.float32(0.55)
        image += scipy.ndimage.gaussian_filter(spots, 1.4) * np.float32(9.0)
        return image

    def _points(self, index: int) -> NDArray[np.float64]:
        """Return the points of all filaments (N, 2) at frame `index`."""
        amplitude, pace, phase = self._sway.T
        offset = amplitude * np.sin(self._along + pace * index + phase)
        points: NDArray[np.float64] = self._path + self._across * offset[:, None]
        return points

    def _vesicles(self, points: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        # A triangle wave: vesicles run to the end of the filament and back.
        place = np.abs((self._start + self._speed * index) % 2.0 - 1.0)
        at = self._first + place * (self._last - self._first)
        low = np.minimum(at.astype(int), self._last - 1)
        part = (at - low)[:, None]
        vesicles: NDArray[np.float64] = points[low] * (1 - part) + points[low + 1] * part
        return vesicles


def _normals(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction across a path at each of its points, (N, 2)."""
    normals: NDArray[np.float64] = np.gradient(path, axis=0)[:, ::-1] * np.array([1.0, -1.0]) / 0.7
    return normals


def _reflect(place: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    size = np.array(shape, dtype=np.float64)
    reflected: NDArray[np.float64] = size - np.abs(place % (2 * size) - size)
    return reflected


def _paste(image: FloatImage, patch: FloatImage, corner: NDArray[np.int_]) -> None:
    """Add `patch` to `image` at `corner`, leaving out what lies outside."""
    first = np.maximum(corner, 0)
    last = np.minimum(corner + patch.shape, image.shape)
    if (last <= first).any():
        return
    inside = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    part = tuple(slice(a, b) for a, b in zip(first - corner, last - corner, strict=True))
    image[inside] += patch[part]


def _splatted(
    shape: tuple[int, int], points: NDArray[np.float64], weights: FloatImage
) -> FloatImage:
    """Return an image of points at sub-pixel places, each shared by its four neighbours."""
    low = np.floor(points).astype(int)
    part = points - low
    places, shares = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = low[:, 0] + dy, low[:, 1] + dx
            share = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1]) * weights
            inside = (y >= 0) & (x >= 0) & (y < shape[0]) & (x < shape[1])
            places.append(y[inside] * shape[1] + x[inside])
            shares.append(share[inside])
    size = shape[0] * shape[1]
    image = np.bincount(np.concatenate(places), np.concatenate(shares), minlength=size)
    return image.reshape(shape).astype(np.float32)
