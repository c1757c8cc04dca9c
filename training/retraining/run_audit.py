"""Whether a recorded run may teach a model at night, when nobody looks at it.

Owns the refusals: pictures without content, noise alone or none, defective pixels, another camera.
What any recording has to be is in `data.audit`.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter

from ...calibration.bootstrap import bootstrap_noise_model
from ...calibration.fingerprint import CameraFingerprint
from ...calibration.noise_correlation import correlation_in
from ...calibration.noise_model import NoiseModel
from ...errors import QuietscopeError
from ...inference.provenance import recorded_camera
from ...storage.stack import Stack

LOOKED_AT_FRAMES = 8
"""Evenly spread: what is wrong all night is in all of them."""
MOST_DEFECTIVE = 0.005
"""Share of pixels that stand out of their neighbours in every frame: a sensor has far fewer."""
DEFECTIVE_WIDTHS = 20.0
"""Standard deviations of the frame's own scatter by which such a pixel stands out."""
STRUCTURE_SIGMA_PX = 2.0
"""Of the blur under which structure stays and noise goes."""
LEAST_STRUCTURE = 0.05
"""Correlation of two blurred frames; noise alone has none."""
INDEPENDENT_AREA_PX = 4 * np.pi * STRUCTURE_SIGMA_PX**2
"""Pixels of a blurred frame that count as one."""
LARGEST_NOISE_RATIO = 2.0
"""Of the variance that a run shows to the one that the noise model says, either way."""
MAD_PER_SIGMA = 0.6745


def why_unfit(stack: Stack) -> str | None:
    """Return why a run of one channel cannot teach a model, None if it can."""
    there = stack.present_indices
    chosen = there[np.linspace(0, len(there) - 1, min(LOOKED_AT_FRAMES, len(there))).astype(int)]
    frames = np.stack([stack.frame(int(index)).astype(np.float64) for index in chosen])
    constant = float(np.mean([np.ptp(frame) == 0 for frame in frames]))
    if constant > 0:
        return f"{constant:.0%} of its frames are one grey"
    smooth = np.stack([median_filter(frame, 3) for frame in frames])
    defective = _share_defective(frames, smooth)
    if defective > MOST_DEFECTIVE:
        return f"{defective:.1%} of its pixels stand out in every frame, as defective ones do"
    if not _shows_structure(smooth):
        return "it shows nothing but noise"
    if correlation_in([stack]).origin == "no noise":
        return "it shows no noise beside what moves"
    return None


def _share_defective(frames: NDArray[np.float64], smooth: NDArray[np.float64]) -> float:
    apart = np.abs(frames - smooth)
    scatter = np.median(apart, axis=(1, 2), keepdims=True) / MAD_PER_SIGMA
    return float((apart > DEFECTIVE_WIDTHS * np.maximum(scatter, 1.0)).all(axis=0).mean())


def _shows_structure(smooth: NDArray[np.float64]) -> bool:
    blurred = [gaussian_filter(frame, STRUCTURE_SIGMA_PX).ravel() for frame in smooth]
    if len(blurred) < 2:
        return True
    found = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairwise(blurred)])
    by_chance = 4 / np.sqrt(blurred[0].size / INDEPENDENT_AREA_PX * (len(blurred) - 1))
    return bool(found > max(LEAST_STRUCTURE, by_chance))


def other_camera(stack: Stack, known: CameraFingerprint) -> str | None:
    """Return what tells the run's camera or its setting from a known one, None if nothing."""
    differences = known.differences(recorded_camera(stack))
    return "; ".join(str(found) for found in differences) or None


def yardstick(stack: Stack, calibrated: NoiseModel | None, seed: int) -> NoiseModel:
    """Return the noise model by which models are judged on a run: none of theirs.

    A calibration of the camera where there is one that the run agrees with; else one that is
    estimated from the run itself.

    Raises
    ------
    QuietscopeError
        If the run's noise cannot be estimated, or is not the calibrated camera's.
    """
    own = bootstrap_noise_model([stack], seed=seed)
    if calibrated is None:
        return own
    low, high = own.signal_range_adu
    signals = np.linspace(low, high, 9)
    ratio = float(np.median(own.variance(signals) / calibrated.variance(signals)))
    if not 1 / LARGEST_NOISE_RATIO < ratio < LARGEST_NOISE_RATIO:
        raise QuietscopeError(
            f"{stack.path}: its noise variance is {ratio:.2g} times what the camera's calibration "
            "says; was it recorded with another camera or setting?"
        )
    return calibrated
