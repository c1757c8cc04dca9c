"""From camera values to the greys on the screen.

Owns the contrast limits that raw and denoised share, the choice of the pixels that a view can
show, the mapping to screen greys with saturated pixels marked, and the histogram. Knows no Qt
and no figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

GREYS = 255
"""Screen values 0 … 254 are greys; 255 marks a saturated pixel."""
SATURATED = 255
SAMPLE_PIXELS = 40_000
"""As many pixels as percentiles and histograms look at: enough for the eye, cheap at 25 Hz."""


class Limits(NamedTuple):
    """The camera values shown as black and as white, ADU."""

    low: float
    high: float

    @property
    def span(self) -> float:
        """White minus black, ADU."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class ContrastRule:
    """Share of the pixels, in percent, that automatic contrast lets go black and white."""

    name: str
    black_percent: float
    white_percent: float


CONTRAST_RULES = (
    ContrastRule("Standard", 0.3, 0.2),
    ContrastRule("Strong", 2.0, 2.0),
    ContrastRule("Full range", 0.0, 0.0),
)


class SharedContrast:
    """The one pair of limits for raw and denoised, automatic or set by hand.

    Automatic limits follow the denoised image, whose range is that of the specimen; the raw
    image's range is mostly that of its noise. They follow slowly, so that the picture does not
    flicker, and jump only when the light has changed a lot.
    """

    def __init__(self) -> None:
        self.automatic = True
        self.rule = CONTRAST_RULES[0]
        self.limits = Limits(0.0, 1.0)
        self._fresh = True

    def follow(self, image: NDArray[Any], seconds_since_last: float) -> Limits:
        """Move automatic limits towards those of `image` (Y, X) and return them."""
        if not self.automatic:
            return self.limits
        wanted = percentile_limits(image, self.rule)
        low, high = self.limits
        jumped = abs(wanted.span - self.limits.span) > 0.5 * max(self.limits.span, wanted.span)
        if self._fresh or jumped:
            self.limits, self._fresh = wanted, False
        else:
            weight = 1 - math.exp(-seconds_since_last / 0.8)
            self.limits = Limits(
                low + weight * (wanted.low - low), high + weight * (wanted.high - high)
            )
        return self.limits

    def set_by_hand(self, low: float, high: float) -> None:
        """Keep these limits, ADU, until `set_automatic`."""
        self.automatic = False
        self.limits = Limits(low, max(high, low + 1e-3))

    def set_automatic(self, rule: ContrastRule | None = None) -> None:
        """Follow the image again, at once."""
        self.automatic, self._fresh = True, True
        self.rule = rule or self.rule


def sample(image: NDArray[Any]) -> NDArray[Any]:
    """Return about SAMPLE_PIXELS pixels of `image` (Y, X), evenly spread, finite ones only."""
    step = max(1, math.isqrt(image.size // SAMPLE_PIXELS))
    pixels = image[::step, ::step].ravel()
    return pixels if pixels.dtype.kind in "ui" else pixels[np.isfinite(pixels)]


def percentile_limits(image: NDArray[Any], rule: ContrastRule) -> Limits:
    """Return the limits between which all but the rule's share of `image` (Y, X) lies."""
    pixels = sample(image)
    if pixels.size == 0:
        return Limits(0.0, 1.0)
    low, high = np.percentile(pixels, [rule.black_percent, 100 - rule.white_percent])
    if high - low < 1e-6 * max(abs(low), abs(high), 1.0):
        low, high = low - 0.5, high + 0.5  # a flat image: mid-grey
    return Limits(float(low), float(high))


def symmetric_limits(image: NDArray[Any]) -> Limits:
    """Return limits around zero for an image of differences, so that zero is mid-grey."""
    pixels = sample(image)
    reach = float(np.percentile(np.abs(pixels), 99.5)) if pixels.size else 1.0
    reach = max(reach, 1e-6)
    return Limits(-reach, reach)


def saturation(pixel_type: str, saturation_adu: float | None) -> float:
    """Return the value from which on a pixel counts as saturated, ADU."""
    if saturation_adu is not None and math.isfinite(saturation_adu):
        return float(saturation_adu)
    kind = np.dtype(pixel_type)
    return float(np.iinfo(kind).max) if kind.kind in "ui" else math.inf


def screen_greys(
    image: NDArray[Any], limits: Limits, saturated: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Map `image` (Y, X) to screen values (Y, X) uint8: greys, and SATURATED where marked.

    What is not a number is shown black.
    """
    scaled = image.astype(np.float32)
    scaled -= np.float32(limits.low)
    scaled *= np.float32(GREYS / limits.span)
    np.fmax(scaled, 0, out=scaled)  # the larger one that is a number
    np.minimum(scaled, GREYS - 1, out=scaled)
    greys = scaled.astype(np.uint8)
    if saturated is not None:
        greys[saturated] = SATURATED
    return greys


class VisiblePart(NamedTuple):
    """The rows and columns that a view shows, thinned to about one pixel per screen pixel."""

    rows: slice
    columns: slice

    @property
    def rectangle(self) -> tuple[float, float, float, float]:
        """(x, y, width, height) in image pixels that the thinned pixels cover."""
        wide = len(range(self.columns.start, self.columns.stop, self.columns.step))
        high = len(range(self.rows.start, self.rows.stop, self.rows.step))
        step = self.rows.step
        return self.columns.start, self.rows.start, wide * step, high * step


def visible_part(
    shape: tuple[int, int],
    view_x: tuple[float, float],
    view_y: tuple[float, float],
    screen_pixels: tuple[int, int],
) -> VisiblePart:
    """Return the part of an image worth drawing.

    Pixels are left out, never averaged: an average would look less noisy than the camera is.

    Parameters
    ----------
    shape
        (Y, X) of the image.
    view_x, view_y
        What the view shows, in image pixels.
    screen_pixels
        (width, height) of the view on the screen.
    """
    step = max(
        1,
        int((view_x[1] - view_x[0]) / max(screen_pixels[0], 1)),
        int((view_y[1] - view_y[0]) / max(screen_pixels[1], 1)),
    )

    def covered(view: tuple[float, float], size: int) -> slice:
        start = min(max(int(view[0]), 0), size - 1) // step * step
        stop = min(max(math.ceil(view[1]), start + 1), size)
        return slice(start, stop, step)

    return VisiblePart(covered(view_y, shape[0]), covered(view_x, shape[1]))


def histogram(image: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, per bin between `edges`, log10(1 + count) of the pixels of `image` (Y, X)."""
    counts, _ = np.histogram(sample(image), edges)
    return np.log10(1.0 + counts)


def histogram_edges(raw: NDArray[Any], denoised: NDArray[Any] | None) -> NDArray[np.float64]:
    """Return bin edges that hold both images, and at whole numbers where the camera has few."""
    samples = [sample(image) for image in (raw, denoised) if image is not None]
    filled = [pixels for pixels in samples if pixels.size]
    low = float(min((pixels.min() for pixels in filled), default=0))
    high = float(max((pixels.max() for pixels in filled), default=1))
    if high - low < 1:
        high = low + 1
    low, high = math.floor(low) - 0.5, math.ceil(high) + 0.5
    width = max(1, math.ceil((high - low) / 160))
    return np.arange(low, high + width, width, dtype=np.float64)


def telling_row(image: NDArray[Any]) -> int:
    """Return the row of `image` (Y, X) with the most structure: a first line profile."""
    smooth = np.nan_to_num(image[:, :: max(1, image.shape[1] // 256)].astype(np.float32))
    margin = image.shape[0] // 8
    inner = smooth[margin : image.shape[0] - margin]
    return margin + int(inner.std(axis=1).argmax()) if inner.size else 0


def nice_scale_bar(view_width_um: float) -> float:
    """Return a round length (1, 2 or 5 times a power of ten) of about a fifth of the view, µm."""
    target = max(view_width_um, 1e-6) / 5
    power = 10.0 ** math.floor(math.log10(target))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= target * 1.0001)
