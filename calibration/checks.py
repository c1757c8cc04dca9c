"""What has to be true before a calibration is trusted.

Owns one function per check. Each says in a sentence what was found, and where it failed what is
invalid and what to do; value and limit are there for programs. A failed check is loud, not fatal:
the user decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..storage.stack import Stack
from .dark_frames import COARSE_ADU, Doubt
from .fit_photon_transfer import exposure_line
from .gaussian_mixture import GaussianMixtureNoiseModel
from .level_statistics import LevelStatistics
from .noise_autocorrelation import smoothing_of
from .noise_model import FloatArray
from .photon_transfer import LEAST_SUSPECTED_RATIO, PhotonTransfer
from .pixel_maps import PixelMaps

MOTION_BLOCKS = 4
MOST_MOTION = 0.01
"""Of a scene at rest: variance between parts of a recording, as a share of the noise."""
SIGNIFICANT = 4.0
"""Standard errors from which on a deviation is no accident."""
STEADY_LAMP = 0.005
"""Flicker, standard deviation over the light, above which it is pointed out."""
LEAST_SHARE = 1e-4
"""Smaller ones are no matter to anybody."""
KNOWN_FACTOR = 0.05
"""Relative half-width up to which the excess noise factor counts as known."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: passed if `value` does not exceed `limit` (or reach it, where more is better).

    Attributes
    ----------
    sentence
        What was found, for a person.
    advice
        What is invalid and what to do, where it failed.
    serious
        Whether a failure makes figures wrong (red), or only less good than they could be (amber).
    """

    name: str
    passed: bool
    value: float
    limit: float
    advice: str
    serious: bool = True
    sentence: str = ""

    @property
    def colour(self) -> Literal["green", "amber", "red"]:
        """Green, amber or red."""
        return "green" if self.passed else ("red" if self.serious else "amber")

    @property
    def says(self) -> str:
        """The sentence, and the advice where it failed."""
        return self.sentence if self.passed else f"{self.sentence} {self.advice}".strip()

    def result(self) -> dict[str, object]:
        """Return the check as the JSON contract has it."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": self.value,
            "limit": self.limit,
            "sentence": self.sentence,
            "advice": "" if self.passed else self.advice,
            "colour": self.colour,
        }


def _at_most(
    name: str,
    value: float,
    limit: float,
    good: str,
    bad: str,
    advice: str,
    *,
    serious: bool = True,
) -> Check:
    passed = bool(value <= limit)
    return Check(
        name, passed, float(value), float(limit), advice, serious, good if passed else bad
    )


def _percent(share: float) -> str:
    if 0 < share < LEAST_SHARE:
        return f"less than {100 * LEAST_SHARE:.2g} %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


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
        "No light level was so bright that the camera saturated.",
        f"In the brightest level {_percent(max(shares))} of the values are saturated, and have no "
        "noise left.",
        "Such levels were kept out of all figures: use less light or a shorter exposure there.",
    )


def clipping_at_zero(worst: float) -> Check:
    """Share of a level's observations at 0 beyond what photon counting explains."""
    return _at_most(
        "clipping_at_zero",
        worst,
        1e-3,
        "The dark end of the noise is whole: nothing is cut off at 0.",
        f"The camera cuts off its noise at 0: {_percent(worst)} of a level's values are zeros.",
        "Offset and read noise are not valid, nor are figures from levels as dim as that: raise "
        "the camera's offset (black level) until dark frames lie well above 0; calibrate anew.",
    )


def stuck_pixels(number: int, pixels: int) -> Check:
    """How many pixels always give one value."""
    return _at_most(
        "stuck_pixels",
        number / pixels,
        0.0,
        "No pixel is stuck at one value.",
        f"{number} {'pixel is' if number == 1 else 'pixels are'} stuck at one value.",
        "They were left out of all figures; in pictures they stay as they are.",
        serious=False,
    )


def motion(levels: Sequence[LevelStatistics], usable: FloatArray | None) -> Check:
    """Variance between parts of the recording that no common change of light explains."""
    worst = max((_moved_share(level, usable) for level in levels), default=0.0)
    return _at_most(
        "motion",
        worst,
        MOST_MOTION,
        "Nothing moved while a level was recorded.",
        "The scene moved, or bleached unevenly, while it was recorded "
        f"({_percent(worst)} of the noise is movement).",
        "The noise is overestimated: use a defocused, evenly lit field and wait until the stage "
        "and the lamp have settled.",
    )


def _moved_share(level: LevelStatistics, usable: FloatArray | None) -> float:
    kept = slice(None) if usable is None else usable.ravel()[level.sample_index] > 0
    return moved_share((level.sample - level.light_changes_adu)[:, kept])


def moved_share(sample: NDArray[np.floating]) -> float:
    """Return the variance of pixels between parts of a recording as a share of their noise.

    Parameters
    ----------
    sample
        (N, P) observations of some pixels in time order, ADU.
    """
    blocks = [b for b in np.array_split(sample, MOTION_BLOCKS) if b.shape[0] >= 2]
    if len(blocks) < 2:
        return 0.0
    means = np.stack([block.mean(axis=0, dtype=np.float64) for block in blocks])
    length = float(np.mean([block.shape[0] for block in blocks]))
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
    worst = max((_drift(level, offset_adu or 0.0) for level in levels), default=0.0)
    return _at_most(
        "lamp_drift",
        worst,
        0.01,
        "The light stayed the same while a level was recorded.",
        f"The light changed by {_percent(worst)} while a level was recorded.",
        "What all pixels share was taken out of gain and noise, but levels and linearity are as "
        "uncertain as the light: let the lamp warm up, or switch off bleaching samples.",
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


def lamp_flicker(levels: Sequence[LevelStatistics], offset_adu: float | None) -> Check:
    """Change of the light from one frame to the next, standard deviation over the light."""
    lit = [(level, level.mean - (offset_adu or 0.0)) for level in levels]
    worst = max(
        (level.flicker_adu / light for level, light in lit if light > 0 and level.flickers),
        default=0.0,
    )
    return _at_most(
        "lamp_flicker",
        worst,
        STEADY_LAMP,
        "The lamp did not flicker from frame to frame.",
        f"The lamp flickers: its light changes by {_percent(worst)} from frame to frame.",
        "Flicker was taken out of gain and noise; in recordings it stays, and the noise model "
        "does not describe it: use a steadier lamp, or exposures of whole periods of the mains.",
        serious=False,
    )


def repeats(levels: Sequence[LevelStatistics]) -> Check:
    """Fewest repeats of a level."""
    fewest = min(level.frames for level in levels)
    return Check(
        "repeats",
        fewest >= 20,
        fewest,
        20,
        "That makes the signal itself uncertain: record at least 20 per level, better 100.",
        False,
        f"Each level has {fewest} repeats{'.' if fewest >= 20 else ' only.'}",
    )


def coverage(model: GaussianMixtureNoiseModel) -> Check:
    """How far up the camera's range the noise is known."""
    law = model.photon_transfer
    offset, full = law.offset_adu or 0.0, law.saturation_adu
    measured, known = model.signal_range_adu[1], model.covered_range_adu[1]
    error = model.uncertainty_of_variance(full)
    beyond = (
        f"the brightest level; above it, up to saturation at {full:.0f} ADU, the camera's "
        f"straight line is used (±{_percent(error)} of the variance there, if it stays linear)."
    )
    return Check(
        "coverage",
        known >= offset + 0.5 * (full - offset),
        (known - offset) / max(full - offset, 1.0),
        0.5,
        "Add brighter levels (quietscope calibrate --light-range LOW,HIGH) if your images are "
        "brighter than that.",
        False,
        f"The noise was measured up to {measured:.0f} ADU, "
        + (beyond if known >= full else f"and is known up to {known:.0f} ADU."),
    )


def coverage_of_data(model: GaussianMixtureNoiseModel, stack: Stack, *, frames: int = 8) -> Check:
    """Share of a recording's pixels that lie where the noise is not known."""
    there = stack.present_indices
    places = np.unique(np.linspace(0, len(there) - 1, min(frames, len(there))).astype(int))
    pixels = stack.frames([int(there[place]) for place in places])
    return coverage_of_pixels(model, pixels, name=str(stack.path))


def coverage_of_pixels(
    model: GaussianMixtureNoiseModel, pixels: np.ndarray, *, name: str = "the recording"
) -> Check:
    """Share of pixels (any shape, ADU) that lie where the noise is not known."""
    low, high = model.covered_range_adu
    # Noise reaches beyond the signals that are covered; that is no lack of coverage.
    reach = 4 * np.sqrt(model.variance(np.array([low, high])))
    darker = float((pixels < low - reach[0]).mean())
    brighter = float((pixels > high + reach[1]).mean())
    extrapolated = float((pixels > model.signal_range_adu[1] + reach[1]).mean())
    good = f"{name} lies within what was calibrated."
    if extrapolated > 0.01:
        error = model.uncertainty_of_variance(float(np.max(pixels)))
        good = (
            f"{_percent(extrapolated)} of {name} is brighter than the light levels of the "
            f"calibration; there the camera's straight line is used (±{_percent(error)})."
        )
    side = "brighter" if brighter >= darker else "darker"
    end = high if side == "brighter" else low
    wanted = float(np.max(pixels)) if side == "brighter" else float(np.min(pixels))
    return _at_most(
        "coverage_of_data",
        darker + brighter,
        0.01,
        good,
        f"{_percent(darker + brighter)} of {name} is {side} than {end:.0f} ADU, where this "
        "calibration knows the noise no more.",
        f"Calibrate with light down or up to {wanted:.0f} ADU: quietscope calibrate --out "
        "camera.npz --light-range LOW,HIGH, or one more stack for quietscope fit-noise.",
    )


def spatial_correlation(levels: Sequence[LevelStatistics], dark: LevelStatistics | None) -> Check:
    """Correlation of the noise of neighbouring pixels, or of whole rows and columns."""
    worst, where, when = 0.0, "neighbouring pixels", ""
    for level in [*levels, *([dark] if dark else [])]:
        rows, columns = level.mean_adu.shape
        if min(rows, columns) < 16:
            continue  # too few pixels to tell
        for share, place in _shared_noise(level):
            if share > worst:
                worst, where, when = share, place, " in the dark" if level is dark else ""
    smoothing = smoothing_of([level.autocorrelation for level in levels])
    told = (
        " The gain was corrected for it (variance times its summed autocorrelation)."
        if smoothing.found
        else ""
    )
    return _at_most(
        "spatial_correlation",
        worst,
        0.01,
        "The noise of each pixel is its own: neighbours, rows and columns share none.",
        f"The noise of {where} is shared{when} ({_percent(worst)} of it).{told}",
        "A blind-spot network takes that for signal: train with --algorithm r2r.",
    )


def _shared_noise(level: LevelStatistics) -> list[tuple[float, str]]:
    """Return how much is shared, and by whom, wherever it is no accident."""
    pairs = level.frames - 1
    rows, columns = level.mean_adu.shape
    found = []
    accident = SIGNIFICANT * level.autocorrelation.standard_error
    for lag, name in (((0, 1), "right"), ((1, 0), "lower")):
        value = abs(level.autocorrelation.at(*lag))
        if value > accident:
            found.append((value, f"each pixel and its {name} neighbour"))
    for name, ratio, lines, length in (
        ("row", level.row_correlation, rows, columns),
        ("column", level.column_correlation, columns, rows),
    ):
        if ratio - 1 > SIGNIFICANT * np.sqrt(3 / max(pairs * lines, 1)):
            found.append(((ratio - 1) / length, f"the pixels of a {name}"))
    return found


def hot_pixels(bad: np.ndarray, *, maps: PixelMaps | None) -> Check:
    """Share of pixels that are far noisier or brighter than the others, or do not respond."""
    share = float(bad.mean())
    looked = (
        "far noisier or brighter without light, or blind"
        if maps is not None
        else "far noisier than their brightness explains (there are no dark frames to tell more)"
    )
    return _at_most(
        "hot_pixels",
        share,
        1e-3,
        f"{int(bad.sum())} of {bad.size} pixels are {looked}.",
        f"{_percent(share)} of the pixels are {looked}.",
        "They were left out of gain and read noise: keep the per-pixel maps in the noise model, "
        "which needs dark frames over the same region of the sensor.",
        serious=False,
    )


def agreement_with_law(model: GaussianMixtureNoiseModel) -> Check:
    """Largest difference of mixture and photon-transfer line, in slope and at the low end."""
    law = model.photon_transfer
    low, high = model.signal_range_adu
    grid = np.linspace(low, high, 64)
    found = model.variance(grid)
    weight = 1 / found
    design = np.stack([grid, np.ones_like(grid)], axis=1) * weight[:, None]
    slope, intercept = np.linalg.lstsq(design, found * weight, rcond=None)[0]
    middle = (low + high) / 2
    height = intercept + slope * middle
    expected = float(law.variance(middle))
    value = max(abs(slope / law.slope_adu - 1), abs(height / expected - 1))
    return _at_most(
        "mixture_against_photon_transfer",
        value,
        0.05,
        "The noise grows with light along a straight line, as photon noise does "
        f"({_percent(value)} off).",
        f"The noise departs from the straight line of photon noise by {_percent(value)}.",
        "The gain is as uncertain as that: the camera is not linear, or the light or the scene "
        "changed; look at the residuals in the report.",
    )


def linearity(levels: Sequence[LevelStatistics], law: PhotonTransfer) -> Check | None:
    """Largest deviation of the means from a line in exposure time."""
    if exposure_line(levels) is None or law.nonlinearity is None:
        return None
    return _at_most(
        "linearity",
        law.nonlinearity,
        0.01,
        "Brightness grows in proportion to exposure time "
        f"({_percent(law.nonlinearity)} of full scale off).",
        "Brightness does not grow in proportion to exposure time "
        f"({_percent(law.nonlinearity)} of full scale off).",
        "The light was not constant, or the shutter needs longer than the shortest exposure.",
        serious=False,
    )


def held_out_likelihood(mixture: FloatArray, histogram: FloatArray, gaussian: FloatArray) -> Check:
    """Nats per observation by which a plain model beats the mixture on held-out pairs.

    Each array holds the negative log likelihood of every held-out pair.
    """
    worst, limit, rival = -np.inf, 0.0, ""
    for other, name in ((histogram, "histogram"), (gaussian, "Gaussian")):
        lost = mixture - other
        value = float(lost.mean())
        if value > worst:
            worst, rival = value, name
            limit = 2 * float(lost.std() / np.sqrt(lost.size)) + 1e-5
    return _at_most(
        "held_out_likelihood",
        worst,
        limit,
        "The noise model predicts pixels that it never saw at least as well as a histogram and a "
        "Gaussian do.",
        f"A plain {rival} predicts pixels that neither saw better than the noise model.",
        "The form of the noise is not right yet: record more repeats or more levels.",
    )


def gain_known(law: PhotonTransfer) -> Check:
    """Whether noise that grows with light was seen at all."""
    known = law.gain_known
    return Check(
        "gain_known",
        known,
        float(known),
        1.0,
        "Such a model holds for frames as bright as these alone: give recordings with dark and "
        "bright parts, or calibrate.",
        False,
        "The noise grows with light."
        if known
        else "The noise of these frames does not grow with light, so the gain is not known.",
    )


def offset_known(law: PhotonTransfer, *, why_not: str = "") -> Check:
    """Whether offset and read noise could be told apart."""
    known = law.offset is not None
    return Check(
        "offset_known",
        known,
        float(known),
        1.0,
        "Give frames without light (--dark) or the offset (--offset).",
        False,
        "Offset and read noise are known."
        if known
        else f"Offset and read noise are not known{why_not or ': there were no dark frames'}.",
    )


def dark_is_dark(light_adu: float | None, dimmer: float | None) -> Check:
    """Whether light fell on the dark frames.

    `light_adu` is what their photon noise says; `dimmer` by how much a level lies below them.
    """
    found = max(light_adu or 0.0, dimmer or 0.0)
    bad = (
        f"a light level is {dimmer:.3g} ADU dimmer than the dark frames."
        if dimmer
        else f"their noise is that of about {found:.3g} ADU of light."
    )
    return _at_most(
        "dark_is_dark",
        found,
        0.0,
        "The dark frames are dark.",
        f"The dark frames are not dark: {bad}",
        "They were not used, so offset and read noise are not known: close the shutter (does it "
        "stay open?), switch off the lamp, or give --offset.",
    )


def dark_fits_levels(doubt: Doubt | None) -> Check:
    """Whether dark frames have the offset that the light levels ask for."""
    difference = abs(doubt.difference_adu) if doubt else 0.0
    return _at_most(
        "dark_fits_levels",
        difference,
        0.0,
        "Dark frames and light levels agree on the offset.",
        f"Dark frames and light levels disagree about the offset by {difference:.3g} ADU"
        + (f" (the levels say {doubt.ladder_offset.value:.2f} ADU)." if doubt else "."),
        "Offset and read noise are not valid: record both in one go, at one temperature and with "
        "one setting of the camera.",
    )


def quantisation(noise_adu: float) -> Check:
    """Noise without light over the width of a grey value."""
    passed = noise_adu >= COARSE_ADU
    return Check(
        "quantisation",
        passed,
        noise_adu,
        COARSE_ADU,
        "The read noise is only known to lie below the upper end of its interval: choose a higher "
        "gain or bit depth of the camera.",
        False,
        f"The camera's grey values are {'finer' if passed else 'coarser'} than its noise "
        f"(σ = {noise_adu:.2g} ADU without light).",
    )


def multiplication(law: PhotonTransfer) -> Check | None:
    """Whether the excess noise of a multiplying register is known."""
    factor, ratio = law.excess_noise_factor, law.excess_noise_ratio
    if factor is None:
        if ratio is None or not law.excess_noise_suspected:
            return None
        return _at_most(
            "excess_noise",
            ratio.value,
            LEAST_SUSPECTED_RATIO,
            "",
            "The noise is more skewed than that of photons, as behind a register that multiplies "
            f"electrons (ratio of cumulants {ratio.value:.2f}, {ratio.low:.2f} to "
            f"{ratio.high:.2f}; photons alone: 1), but not surely.",
            "The gain and all figures per photoelectron are valid without such a register only; "
            "behind one they are up to twice too high. Record more frames of dim "
            "levels, or switch the EM gain off.",
            serious=False,
        )
    spread = (factor.high - factor.low) / 2 / factor.value
    return _at_most(
        "excess_noise",
        spread,
        KNOWN_FACTOR,
        f"An electron-multiplying camera: F² = {factor.value:.2f}.",
        "An electron-multiplying camera whose excess noise is known roughly only "
        f"(F² from {factor.low:.2f} to {factor.high:.2f}).",
        "Figures per photoelectron are as uncertain as that: record more frames of dim levels.",
        serious=False,
    )
