"""What has to be true before a calibration is trusted.

Owns one function per check; each gives a value, its limit and what to do about it. A failed
check is loud, not fatal: the user decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..storage.stack import Stack
from .fit_photon_transfer import exposure_line
from .level_statistics import LevelStatistics
from .noise_model import FloatArray, NoiseModel
from .photon_transfer import PhotonTransfer

MOTION_BLOCKS = 4
MOST_MOTION = 0.01
"""Of a scene at rest: variance between parts of a recording, as a share of the noise."""
SIGNIFICANT = 4.0
"""Standard errors from which on a deviation is no accident."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: passed if `value` does not exceed `limit` (or reach it, where more is better).

    `level` is 'green', 'amber' (works, could be better) or 'red'.
    """

    name: str
    passed: bool
    value: float
    limit: float
    advice: str
    serious: bool = True

    @property
    def colour(self) -> Literal["green", "amber", "red"]:
        """Green, amber or red."""
        return "green" if self.passed else ("red" if self.serious else "amber")

    def result(self) -> dict[str, object]:
        """Return the check as the JSON contract has it."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": self.value,
            "limit": self.limit,
            "advice": "" if self.passed else self.advice,
            "colour": self.colour,
        }


def _at_most(name: str, value: float, limit: float, advice: str, *, serious: bool = True) -> Check:
    return Check(name, bool(value <= limit), float(value), float(limit), advice, serious)


def _at_least(
    name: str, value: float, limit: float, advice: str, *, serious: bool = True
) -> Check:
    return Check(name, bool(value >= limit), float(value), float(limit), advice, serious)


def saturation(levels: Sequence[LevelStatistics], saturation_adu: float) -> Check:
    """Share of observations at saturation in the worst level."""
    top = int(min(saturation_adu, levels[0].codes.size - 1))
    shares = [
        max(
            float(level.codes[top:].sum() / level.observations),
            float(level.codes[level.top_code] / level.observations) if level.piled_at_top else 0.0,
        )
        for level in levels
    ]
    return _at_most(
        "saturation",
        max(shares),
        1e-4,
        "saturated pixels have no noise left: use less light or a shorter exposure in the "
        "brightest level (such levels were kept out of the fit)",
    )


def clipping_at_zero(
    levels: Sequence[LevelStatistics], dark: LevelStatistics | None, law: PhotonTransfer
) -> Check:
    """Share of observations at 0 beyond what photon counting explains."""
    excess = 0.0
    for level in [*levels, *([dark] if dark else [])]:
        if level.zero_share == 0:
            continue
        electrons = np.maximum(level.mean_adu, 0.0) / law.gain_adu_per_e
        counted = float(np.exp(-electrons).mean()) if law.gain_adu_per_e > 0.5 else 0.0
        excess = max(excess, level.zero_share - 1.2 * counted)
    return _at_most(
        "clipping_at_zero",
        max(excess, 0.0),
        1e-3,
        "the camera cuts off its noise at 0: raise the camera's offset (black level) until dark "
        "frames lie well above 0",
    )


def motion(levels: Sequence[LevelStatistics]) -> Check:
    """Variance between parts of the recording that no common change of light explains."""
    return _at_most(
        "motion",
        max((moved_share(level.sample, level.frames) for level in levels), default=0.0),
        MOST_MOTION,
        "the scene moved or bleached unevenly while it was recorded: use a defocused, evenly lit "
        "field and wait until the stage and the lamp have settled",
    )


def moved_share(sample: NDArray[np.float32], frames: int) -> float:
    """Return the variance of pixels between parts of a recording as a share of their noise.

    Parameters
    ----------
    sample
        (N, P) observations of some pixels in time order, ADU.
    frames
        How many frames they were taken from.
    """
    blocks = [b for b in np.array_split(sample, MOTION_BLOCKS) if b.shape[0] >= 2]
    if len(blocks) < 2:
        return 0.0
    means = np.stack([block.mean(axis=0, dtype=np.float64) for block in blocks])
    length = frames / len(blocks)
    overall = means.mean(axis=0)
    spread = overall - overall.mean()
    power = float((spread**2).mean())
    left = means - means.mean(axis=1, keepdims=True)
    # A lamp that changes scales the image; only what differs from that is motion.
    slopes = (left @ spread)[:, None] / (power * spread.size) if power > 0 else np.ones((1, 1))
    left = left - slopes * spread
    between = float((left**2).sum(axis=0).mean() / (len(blocks) - 1))
    difference = np.diff(sample.astype(np.float64), axis=0)
    within = float((difference**2).mean() / 2)
    if within <= 0:
        return 0.0
    ratio = between * length / within
    accident = SIGNIFICANT * np.sqrt(2 / (spread.size * (len(blocks) - 1)))
    return max(0.0, (ratio - 1) / length) if ratio - 1 > accident else 0.0


def lamp_drift(levels: Sequence[LevelStatistics], offset_adu: float | None) -> Check:
    """Change of the light within a level, as a share of it."""
    return _at_most(
        "lamp_drift",
        max((_drift(level, offset_adu or 0.0) for level in levels), default=0.0),
        0.01,
        "the light changed while a level was recorded: let the lamp warm up, or switch off "
        "bleaching samples (drift slower than the frames does not enter the gain)",
    )


def _drift(level: LevelStatistics, offset_adu: float) -> float:
    means = level.frame_means_adu
    light = level.mean - offset_adu
    if level.frames < 4 or light <= 0:
        return 0.0
    time = np.linspace(-0.5, 0.5, level.frames)
    slope = float((time * (means - means.mean())).sum() / (time**2).sum())
    # Pixel noise and lamp flicker from one frame to the next.
    noise = float((np.diff(means) ** 2).mean() / 2)
    accident = SIGNIFICANT * np.sqrt(noise / (time**2).sum())
    blocks = np.array([block.mean() for block in np.array_split(means, MOTION_BLOCKS)])
    between = float(np.ptp(blocks))
    accident_between = SIGNIFICANT * np.sqrt(2 * noise * MOTION_BLOCKS / level.frames)
    drift = max(
        abs(slope) if abs(slope) > accident else 0.0,
        between if between > accident_between else 0.0,
    )
    return drift / light


def repeats(levels: Sequence[LevelStatistics]) -> Check:
    """Fewest repeats of a level."""
    return _at_least(
        "repeats",
        min(level.frames for level in levels),
        20,
        "few repeats make the signal itself uncertain: record at least 20 frames per level, "
        "better 100",
        serious=False,
    )


def coverage(law: PhotonTransfer, range_adu: tuple[float, float]) -> Check:
    """How much of the camera's range the ladder covers."""
    offset = law.offset_adu or 0.0
    full = max(law.saturation_adu - offset, 1.0)
    return _at_least(
        "coverage",
        (range_adu[1] - offset) / full,
        0.5,
        f"signals above {range_adu[1]:.0f} ADU were not calibrated and follow the photon-transfer "
        "line: add brighter levels if your images are brighter than that",
        serious=False,
    )


def coverage_of_data(noise_model: NoiseModel, stack: Stack, *, frames: int = 8) -> Check:
    """Share of a recording's pixels that lie outside the calibrated range."""
    low, high = noise_model.signal_range_adu
    there = stack.present_indices
    chosen = sorted({int(i) for i in np.linspace(0, len(there) - 1, min(frames, len(there)))})
    pixels = stack.frames([int(there[i]) for i in chosen])
    # Noise reaches beyond the signals that were calibrated; that is no lack of coverage.
    reach = 4 * np.sqrt(noise_model.variance(np.array([low, high])))
    outside = (pixels < low - reach[0]) | (pixels > high + reach[1])
    return _at_most(
        "coverage_of_data",
        float(outside.mean()),
        0.01,
        f"the recording reaches from {pixels.min():.0f} to {pixels.max():.0f} ADU, the "
        f"calibration from {low:.0f} to {high:.0f}: calibrate with darker or brighter levels",
    )


def spatial_correlation(levels: Sequence[LevelStatistics]) -> Check:
    """Correlation of the noise of neighbouring pixels, or of whole rows and columns."""
    worst, where = 0.0, "neighbouring pixels"
    for level in levels:
        pairs = level.frames - 1
        rows, columns = level.mean_adu.shape
        if min(rows, columns) < 16:
            continue  # too few pixels to tell
        accident = SIGNIFICANT * np.sqrt(1.5 / max(pairs * level.pixels, 1))
        for name, value in zip(("right", "lower"), level.lag_correlation, strict=True):
            if abs(value) > max(accident, worst):
                worst, where = abs(value), f"each pixel and its {name} neighbour"
        for name, ratio, lines, length in (
            ("row", level.row_correlation, rows, columns),
            ("column", level.column_correlation, columns, rows),
        ):
            by_chance = SIGNIFICANT * np.sqrt(3 / max(pairs * lines, 1))
            share = (ratio - 1) / length
            if ratio - 1 > by_chance and share > worst:
                worst, where = share, f"the pixels of a {name}"
    return _at_most(
        "spatial_correlation",
        worst,
        0.01,
        f"the noise of {where} is correlated, which a blind-spot network would take for signal: "
        "train with --algorithm structn2v",
    )


def hot_pixels(hot: np.ndarray | None, dead: np.ndarray | None) -> Check:
    """Share of pixels that are far noisier or brighter than the others, or do not respond."""
    share = 0.0
    if hot is not None:
        bad = hot if dead is None else hot | dead
        share = float(bad.mean())
    return _at_most(
        "hot_pixels",
        share,
        1e-3,
        "hot or dead pixels differ from the rest: keep the per-pixel maps in the noise model "
        "(calibrate with dark frames over the same ROI)",
        serious=False,
    )


def agreement_with_law(model: NoiseModel, law: PhotonTransfer) -> Check:
    """Largest difference of mixture and photon-transfer line, in slope and at the low end."""
    low, high = model.signal_range_adu
    grid = np.linspace(low, high, 64)
    found = model.variance(grid)
    weight = 1 / found
    design = np.stack([grid, np.ones_like(grid)], axis=1) * weight[:, None]
    slope, intercept = np.linalg.lstsq(design, found * weight, rcond=None)[0]
    middle = (low + high) / 2
    height = intercept + slope * middle
    expected = float(law.variance(middle))
    value = max(abs(slope / law.gain_adu_per_e - 1), abs(height / expected - 1))
    return _at_most(
        "mixture_against_photon_transfer",
        value,
        0.05,
        "the mixture's variance and the photon-transfer line disagree: the camera is not linear, "
        "or the light or the scene changed; look at the residuals in the report",
    )


def linearity(levels: Sequence[LevelStatistics], law: PhotonTransfer) -> Check | None:
    """Largest deviation of the means from a line in exposure time."""
    if exposure_line(levels) is None or law.nonlinearity is None:
        return None
    return _at_most(
        "linearity",
        law.nonlinearity,
        0.01,
        "brightness does not grow in proportion to exposure time: the light was not constant, "
        "or the shutter needs longer than the shortest exposure",
        serious=False,
    )


def held_out_likelihood(mixture: FloatArray, histogram: FloatArray, gaussian: FloatArray) -> Check:
    """Nats per observation by which a plain model beats the mixture on held-out pairs.

    Each array holds the negative log likelihood of every held-out pair.
    """
    worst, limit = -np.inf, 0.0
    for other in (histogram, gaussian):
        lost = mixture - other
        value = float(lost.mean())
        if value > worst:
            worst = value
            limit = 2 * float(lost.std() / np.sqrt(lost.size)) + 1e-5
    return _at_most(
        "held_out_likelihood",
        worst,
        limit,
        "a plainer model explains held-out pixels better: record more repeats or more levels",
    )


def offset_known(law: PhotonTransfer) -> Check:
    """Whether offset and read noise could be told apart."""
    return _at_least(
        "offset_known",
        float(law.offset is not None),
        1.0,
        "without dark frames or a known offset, offset and read noise cannot be told apart: "
        "give --dark or --offset",
        serious=False,
    )
