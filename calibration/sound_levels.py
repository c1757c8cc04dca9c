"""Which levels, dark frames and pixels of a recording a calibration may use.

Owns what is left out, and why: levels that saturate or are cut off at 0, dark frames that are not
dark, pixels that are stuck or hot. What is drawn from the rest is the business of
`fit_photon_transfer` and `fit_gaussian_mixture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .clipping import clipped_share, gain_of_whole
from .dark_frames import light_in_dark, offset_by_skewness
from .errors import CalibrationError
from .fit_photon_transfer import (
    fit_photon_transfer,
    offset_of_exposures,
    third_cumulant,
)
from .level_statistics import LevelStatistics
from .noise_model import FloatArray
from .pixel_faults import hot_without_light, noisy_in_light, stuck_pixels

TOLERATED_SATURATION = 1e-4
LEAST_LEVELS = 2


@dataclass(frozen=True, slots=True, eq=False)
class SoundLevels:
    """What may be used, and what was found wrong on the way.

    Attributes
    ----------
    levels
        The light levels without saturated and clipped ones, stuck pixels filled in.
    all_levels
        With them.
    dark
        The dark frames if they can be used.
    recorded_dark
        The dark frames as they were recorded.
    bad_pixels, stuck
        (Y, X): what is left out; of it the pixels that give one value only.
    saturation_adu, saturation_reached
        The highest code, and whether it was seen.
    clipped_share
        Of a level's observations, the largest share that was cut off at 0.
    light_in_dark_adu, dimmer_than_dark_adu
        Light on the dark frames by their noise, and how far a level lies below them.
    """

    levels: Sequence[LevelStatistics]
    all_levels: Sequence[LevelStatistics]
    dark: LevelStatistics | None
    recorded_dark: LevelStatistics | None
    bad_pixels: NDArray[np.bool_]
    stuck: NDArray[np.bool_]
    saturation_adu: float
    saturation_reached: bool
    clipped_share: float
    light_in_dark_adu: float | None = None
    dimmer_than_dark_adu: float | None = None

    @property
    def usable(self) -> FloatArray | None:
        """(Y, X): 1 where a pixel may be used; None where all may."""
        return (~self.bad_pixels).astype(np.float64) if self.bad_pixels.any() else None

    @property
    def why_no_dark(self) -> str:
        """Why the dark frames could not be used, as the end of a sentence."""
        if self.recorded_dark is None or self.dark is not None:
            return ""
        if self.light_in_dark_adu or self.dimmer_than_dark_adu:
            return ": the dark frames are not dark"
        return ": the dark frames are cut off at 0"


def sound_levels(
    levels: Sequence[LevelStatistics],
    dark: LevelStatistics | None,
    *,
    full_scale_adu: float,
    quantised: bool,
) -> SoundLevels:
    """Sort out what may be used.

    Raises
    ------
    CalibrationError
        If every level saturates.
    """
    stuck = stuck_pixels([*levels, *([dark] if dark else [])])
    filled = [level.without(stuck) for level in levels]
    dark = dark.without(stuck) if dark else None
    kept, saturation, reached = _without_saturated(filled, full_scale_adu)
    hot = hot_without_light(dark) if dark else noisy_in_light(kept)
    gain = gain_of_whole(kept)
    clipped = [clipped_share(level, hot | stuck, gain) for level in kept]
    of_dark = clipped_share(dark, hot | stuck, gain) if dark else 0.0
    if of_dark:
        clipped.append(of_dark)
        hot = noisy_in_light(kept)
    found = SoundLevels(
        levels=_without_clipped(kept, clipped),
        all_levels=filled,
        dark=None if of_dark else dark,
        recorded_dark=dark,
        bad_pixels=hot | stuck,
        stuck=stuck,
        saturation_adu=saturation,
        saturation_reached=reached,
        clipped_share=max(clipped),
    )
    return found if found.dark is None else _without_lit_dark(found, found.dark, quantised)


def _without_saturated(
    levels: Sequence[LevelStatistics], full_scale: float
) -> tuple[list[LevelStatistics], float, bool]:
    """Return the levels below saturation, the saturation code and whether it was seen."""
    piled = [level.top_code for level in levels if level.piled_at_top]
    limit = min([full_scale, *map(float, piled)])
    place = int(min(limit, levels[0].codes.size - 1))
    kept = [
        level
        for level in levels
        if level.codes[place:].sum() / level.observations <= TOLERATED_SATURATION
    ]
    if not kept:
        raise CalibrationError(
            f"light levels: every one of them reaches {limit:.0f} ADU, where the camera "
            "saturates; use less light or shorter exposures"
        )
    return kept, limit, len(kept) < len(levels)


def _without_clipped(
    levels: Sequence[LevelStatistics], clipped: Sequence[float]
) -> Sequence[LevelStatistics]:
    """Leave out levels whose noise is cut off at 0, if enough others are left."""
    whole = [level for level, share in zip(levels, clipped, strict=False) if share == 0]
    different = len(whole) >= LEAST_LEVELS and len({level.mean for level in whole}) > 1
    return whole if different else levels


def _without_lit_dark(found: SoundLevels, dark: LevelStatistics, quantised: bool) -> SoundLevels:
    """Leave out dark frames on which light fell."""
    light = _light(dark, found, quantised)
    dimmest = min(found.levels, key=lambda level: level.mean)
    below = dark.mean - dimmest.mean
    error = 5 * float(np.hypot(_error(dark), _error(dimmest)))
    dimmer = below if below > max(error, 0.6) else None
    if light is None and dimmer is None:
        return found
    return replace(
        found,
        dark=None,
        bad_pixels=noisy_in_light(found.levels) | found.stuck,
        light_in_dark_adu=light,
        dimmer_than_dark_adu=dimmer,
    )


def _light(dark: LevelStatistics, found: SoundLevels, quantised: bool) -> float | None:
    """Return how much light fell on the dark frames, ADU; None where there is no sign of any."""
    law = fit_photon_transfer(
        found.levels,
        saturation_adu=found.saturation_adu,
        usable=found.usable,
        quantised=quantised,
    )
    moments = [third_cumulant(level, found.usable) for level in (dark, *found.levels)]
    excess = law.excess_noise_ratio.value if law.excess_noise and law.excess_noise_ratio else 1.0
    offset = offset_by_skewness(moments, law.slope_adu**2 * excess)
    variance = float(np.mean(dark.variance_adu2, where=~found.bad_pixels))
    light = light_in_dark(moments[0][0], offset, variance)
    if light is None:
        return None
    by_exposure = offset_of_exposures(found.levels)
    # Where the exposures are known they say more exactly how much light it was.
    return light if by_exposure is None else max(dark.mean - by_exposure.value, 0.0) or light


def _error(level: LevelStatistics) -> float:
    flicker = level.frame_means_adu.var(ddof=1) / level.frames
    return float(np.sqrt(level.variance / level.observations + flicker))
