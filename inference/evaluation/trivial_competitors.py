"""What needs no model: a Gaussian blur of the frame, and of the mean of the frames given.

Owns these competitors and the width that serves them best. A model's score says little without
theirs beside it; stronger filters are in `inference.classical`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .metrics import psnr_db

FloatImage = NDArray[np.float64]

WIDTHS_PX = (0.0, 0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0, 2.6, 3.3)
"""Standard deviations that are tried. The best on average over the frames counts, chosen with the
truth: the competitor is as strong as a blur of one width can be."""


@dataclass(frozen=True, slots=True)
class BestBlur:
    """The best of several blurs.

    Attributes
    ----------
    psnr_db
        Mean over the frames.
    sigma_px
        Its width; 0 leaves the picture as it is.
    """

    psnr_db: float
    sigma_px: float


@dataclass(slots=True)
class BlurCompetitor:
    """Blurs of all widths, scored frame by frame."""

    widths_px: Sequence[float] = WIDTHS_PX
    _scores: list[list[float]] = field(default_factory=list)

    def add(self, picture: FloatImage, truth: FloatImage) -> None:
        """Score the blurs of one picture (Y, X) against its truth."""
        from scipy.ndimage import gaussian_filter

        self._scores.append(
            [
                psnr_db(gaussian_filter(picture, width) if width else picture, truth)
                for width in self.widths_px
            ]
        )

    def best(self) -> BestBlur | None:
        """Return the width that is best on average; None before the first frame."""
        if not self._scores:
            return None
        means = np.mean(self._scores, axis=0)
        place = int(means.argmax())
        return BestBlur(float(means[place]), self.widths_px[place])
