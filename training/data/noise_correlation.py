"""The correlation of the noise in the frames that a run has in memory.

Owns which frames are compared. The measurement is in `calibration.noise_correlation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...calibration.noise_correlation import NoiseCorrelation, correlation_of
from .resident_frames import ResidentChunk

FRAMES = 12
"""Of a quarter of a million pixels: good to half a percent."""


def noise_correlation(resident: Sequence[ResidentChunk]) -> NoiseCorrelation:
    """Measure the correlation on what differs from frame to frame, or from pixel to pixel."""
    pairs = [(part, row, earlier) for part in resident for row, earlier in _successive(part)]
    chosen = np.linspace(0, len(pairs) - 1, min(FRAMES, len(pairs))).astype(int)
    differences = [
        part.pixels[row].astype(np.float32) - part.pixels[earlier].astype(np.float32)
        for part, row, earlier in (pairs[i] for i in chosen)
    ]
    return correlation_of(differences, [part.pixels[0] for part in resident[:FRAMES]])


def _successive(part: ResidentChunk) -> Iterator[tuple[int, int]]:
    """Yield rows and the rows of the same plane and position one time step earlier."""
    indices = part.chunk.indices.tolist()
    row_of = {index: row for row, index in enumerate(indices)}
    for row, index in enumerate(indices):
        earlier = row_of.get(part.chunk.stack.preceding(index, 1)[0])
        if earlier is not None:
            yield row, earlier
