"""Along which axis noise is correlated, and how far: the mask that structN2V needs.

Owns the measurement on ordinary recordings, and what a person is told about it. Nothing is masked
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..options import MaskAxis
from .resident_frames import ResidentChunk

LAGS = 8
FRAMES = 12
EDGE = 512
BLOCK = 32
LEAST_CORRELATION = 0.02
STRONG_CORRELATION = 0.1


@dataclass(frozen=True, slots=True)
class NoiseCorrelation:
    """The autocorrelation of the noise.

    Attributes
    ----------
    y, x
        Correlation at lags 1 to LAGS along each axis.
    """

    y: tuple[float, ...]
    x: tuple[float, ...]

    def axis(self) -> MaskAxis:
        """Return the axis along which noise is correlated more."""
        return "y" if abs(self.y[0]) > abs(self.x[0]) else "x"

    def along(self, axis: MaskAxis) -> float:
        """Return the correlation of neighbours along an axis."""
        return (self.y if axis == "y" else self.x)[0]

    def span(self, axis: MaskAxis) -> int:
        """Return the last lag up to which the correlation matters; 0 for white noise."""
        values = np.abs(self.y if axis == "y" else self.x)
        below = np.flatnonzero(values < LEAST_CORRELATION)
        return int(below[0]) if below.size else LAGS

    def is_strong(self) -> bool:
        """Return whether a method that takes noise for independent would show it as signal."""
        return max(abs(self.along("y")), abs(self.along("x"))) > STRONG_CORRELATION

    def described(self) -> str:
        """Return the finding in words."""
        axis = self.axis()
        other: MaskAxis = "x" if axis == "y" else "y"
        text = f"noise is correlated along {axis} ({self.along(axis):.2f} with the next pixel"
        if abs(self.along(other)) > STRONG_CORRELATION:
            text += f"; {self.along(other):.2f} along {other}"
        return text + ")"


def noise_correlation(resident: Sequence[ResidentChunk]) -> NoiseCorrelation:
    """Measure the correlation on what differs from frame to frame, or from pixel to pixel.

    Differences of successive frames hold noise and what moves. For the correlation along one axis
    the second difference along the other is taken as well: it cancels what is smooth and leaves
    the correlation of the noise as it is. Of what moves all the same, the median over blocks of
    the frames keeps little.
    """
    along_y, along_x = [], []
    for noise in _noise(resident):
        along_y.append(_autocorrelations(np.diff(noise, n=2, axis=1).T))
        along_x.append(_autocorrelations(np.diff(noise, n=2, axis=0)))
    y, x = (np.median(np.concatenate(along), axis=0) for along in (along_y, along_x))
    return NoiseCorrelation(y=tuple(y.tolist()), x=tuple(x.tolist()))


def _noise(resident: Sequence[ResidentChunk]) -> Iterator[NDArray[np.float32]]:
    pairs = [(part, row, earlier) for part in resident for row, earlier in _successive(part)]
    chosen = np.linspace(0, len(pairs) - 1, min(FRAMES, len(pairs))).astype(int)
    for part, row, earlier in (pairs[i] for i in chosen):
        yield _middle(part.pixels[row]) - _middle(part.pixels[earlier])
    if not pairs:
        yield from (_middle(part.pixels[0]) for part in resident[:FRAMES])


def _successive(part: ResidentChunk) -> Iterator[tuple[int, int]]:
    """Return rows and the rows of the same plane and position one time step earlier."""
    indices = part.chunk.indices.tolist()
    row_of = {index: row for row, index in enumerate(indices)}
    for row, index in enumerate(indices):
        earlier = row_of.get(part.chunk.stack.preceding(index, 1)[0])
        if earlier is not None:
            yield row, earlier


def _middle(frame: NDArray[np.generic]) -> NDArray[np.float32]:
    top, left = (max(0, (edge - EDGE) // 2) for edge in frame.shape)
    return frame[top : top + EDGE, left : left + EDGE].astype(np.float32)


def _autocorrelations(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation along x, (blocks, LAGS), of blocks of noise (Y, X)."""
    rows, columns = (max(1, edge // BLOCK) for edge in noise.shape)
    height, width = (min(edge, BLOCK) for edge in noise.shape)
    blocks = noise[: rows * height, : columns * width].reshape(rows, height, columns, width)
    blocks = blocks - blocks.mean(axis=(1, 3), keepdims=True)
    power = (blocks**2).mean(axis=(1, 3))
    products = [
        (blocks[..., lag:] * blocks[..., :-lag]).mean(axis=(1, 3)) for lag in range(1, LAGS + 1)
    ]
    found: NDArray[np.float32] = np.stack(products, axis=-1) / np.maximum(power, 1e-12)[..., None]
    return found.reshape(-1, LAGS)
