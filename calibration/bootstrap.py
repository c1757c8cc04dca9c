"""A noise model from ordinary noisy frames, where no calibration exists.

Owns the pairs of a classical estimate and the observation, and the correction for what the
estimate itself gets wrong. The result is marked as bootstrapped everywhere: it knows no offset
and covers only the intensities of the frames it saw.

Noise is told from structure twice: in differences of consecutive frames (blind to what stands
still), and in a high-pass filter that is blind to slopes (Immerkær 1996,
doi:10.1006/cviu.1996.0060). Of noise that neighbours share the filter leaves a part alone, which
is known from its autocorrelation. Both can then only overestimate, so the smaller one holds, as
long as pixels are sorted by brightness and structure in a frame that shares no noise with the two:
in the frame itself, dark and flat is where few photons happened to fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..storage.stack import Stack
from .errors import CalibrationError, TooFewPixelsError
from .fit_gaussian_mixture import fit_gaussian_mixture, leaning_on_law
from .gaussian_mixture import GaussianMixtureNoiseModel
from .level_statistics import Pairs
from .likelihood import Codes
from .noise_correlation import correlation_in
from .noise_model import FloatArray
from .photon_transfer import QUANTISATION_VARIANCE_ADU2, PhotonTransfer
from .straight_line import Interval, weighted_line

MAX_PIXELS = 2_000_000
MAX_FRAMES = 64
SMOOTHING_PIXELS = 1.5
CLIPPED_PERCENT = 0.1
"""Of the signals at either end, as in PN2V's bootstrap."""
PIXELS_PER_SPREAD = 500
FLAT_SHARE = 0.5
"""Share of the pixels of each brightness, those with least structure around them, that count."""
BINS = 48
NEIGHBOURS_OF_HIGH_PASS = 4
"""The high-pass filter sees each pixel several times, so its values are not independent."""
HIGH_PASS = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0]) / 6
COMPARED_FRAMES = 24
FEWEST_COMPARED = 4
"""Of whose pixels it is asked whether some jump as those around them do not."""
BY_CHANCE = 0.1
"""Pixels of a frame that may be taken for such by chance."""
LEAST_EXCESS = 3.0
"""Of their variance over that around."""
MOST_JUMPY = 0.1
ROUNDING = 1e-12
"""Of the brightness: what a filter leaves of a slope by rounding alone is no noise."""
SURE_SLOPE = 4.0
"""Standard errors by which noise has to grow with light to tell a gain: of frames without light
some part always is a little brighter, and by chance a little noisier."""
LEAST_SHARE = 0.3
"""Of the noise, that the high-pass filter has to leave to say anything beside differences."""
Estimate = Callable[[NDArray[Any]], NDArray[Any]]


def bootstrap_noise_model(
    stacks: Sequence[Stack], *, denoise: Estimate | None = None, seed: int = 0
) -> GaussianMixtureNoiseModel:
    """Estimate p(observation | signal) from ordinary noisy recordings.

    Parameters
    ----------
    stacks
        Recordings of one camera in one setting.
    denoise
        Turns one frame (Y, X) into an estimate of its signal; a Gaussian that leaves out its
        centre where not given, so that a pixel's own noise is not in its estimate.
    seed
        Of the draw of frames and pixels.

    Raises
    ------
    CalibrationError
        If the stacks differ in pixel type, are empty, or show no noise.
    """
    _require_frames(stacks)
    rng = np.random.default_rng(seed)
    share = _high_pass_share(stacks)
    samples = [
        _sample(stack, denoise or _leave_one_out_gaussian, len(stacks), share, rng)
        for stack in stacks
    ]
    pixels = np.concatenate(samples, axis=1)
    low, high = np.percentile(pixels[0], (CLIPPED_PERCENT, 100 - CLIPPED_PERCENT))
    inside = (pixels[0] >= low) & (pixels[0] <= high)
    signal, observation, temporal, spatial, brightness, structure = pixels[:, inside]
    integer = stacks[0].dtype.kind == "u"
    bins = _Bins(brightness, observation, structure)
    noise = bins.noise(temporal, spatial)
    law = _law(bins, noise, _full_scale(stacks[0]), integer=integer)
    noise = leaning_on_law(
        noise, bins.flat_count / NEIGHBOURS_OF_HIGH_PASS, law.variance(bins.centre)
    )
    signal = _Bins(signal, observation, structure).corrected(signal)
    scaled = _rescaled(signal, observation, bins.centre, noise)
    return fit_gaussian_mixture(
        Pairs(signal, scaled, np.ones(scaled.size)),
        law,
        codes=Codes(0.0, law.saturation_adu, 1.0) if integer else Codes(-np.inf, np.inf, 0.0),
        source="bootstrapped",
    )


def _require_frames(stacks: Sequence[Stack]) -> None:
    if not stacks or not any(len(stack) for stack in stacks):
        raise CalibrationError("bootstrap: no frames given, expected at least one noisy recording")
    first = stacks[0]
    for stack in stacks:
        if stack.dtype != first.dtype:
            raise CalibrationError(
                f"{stack.path}: pixels of type {stack.dtype}, expected {first.dtype} as in "
                f"{first.path}; bootstrap one camera setting at a time"
            )
        if min(stack.frame_shape) < 16:
            raise CalibrationError(
                f"{stack.path}: frames of {stack.frame_shape} pixels, expected at least 16 by 16 "
                "to tell noise from structure"
            )


def _full_scale(stack: Stack) -> float:
    return float(np.iinfo(stack.dtype).max) if stack.dtype.kind == "u" else 65535.0


def _leave_one_out_gaussian(frame: NDArray[Any]) -> NDArray[Any]:
    from skimage.filters import gaussian

    impulse = np.zeros((15, 15))
    impulse[7, 7] = 1
    own = float(gaussian(impulse, SMOOTHING_PIXELS)[7, 7])
    pixels = frame.astype(np.float64)
    smooth: NDArray[Any] = gaussian(pixels, SMOOTHING_PIXELS, mode="reflect", preserve_range=True)
    return (smooth - own * pixels) / (1 - own)


def _high_pass_share(stacks: Sequence[Stack]) -> float:
    """Return what the high-pass filter leaves of the noise, 1 where neighbours share none.

    0 stands for so little that it says nothing, where there are differences of frames to go by.
    """
    found = correlation_in(stacks)
    if not found.is_strong():
        return 1.0
    share = max(found.high_pass_share(HIGH_PASS), 0.0)
    return share if share > LEAST_SHARE or found.origin == "single frames" else 0.0


def _sample(
    stack: Stack,
    estimate: Estimate,
    stacks: int,
    high_pass_share: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Return sampled pixels, (6, N): see `_frame_columns`."""
    budget = MAX_PIXELS // stacks
    area = stack.frame_shape[0] * stack.frame_shape[1]
    frames = int(np.clip(budget // area, 2, MAX_FRAMES))
    there = stack.present_indices
    places = np.linspace(0, len(there) - 1, min(frames, len(there))).astype(int)
    chosen = there[np.unique(places)]
    kept = max(1000, budget // len(chosen))
    jumpy = _jumpy_pixels(stack, chosen[:: -(-len(chosen) // COMPARED_FRAMES)])
    columns = [
        _frame_columns(_Repaired(stack, jumpy), int(index), estimate, high_pass_share)
        for index in chosen
    ]
    picked = []
    for rows in columns:
        size = rows.shape[1]
        index = rng.choice(size, kept, replace=False) if size > kept else slice(None)
        picked.append(rows[:, index])
    return np.concatenate(picked, axis=1)


def _jumpy_pixels(stack: Stack, indices: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which pixels (Y, X) vary from frame to frame as none of those around them does.

    Hot pixels: their noise is their own, and would be taken for that of the brightness around.
    """
    from scipy.ndimage import median_filter
    from scipy.stats import f

    if len(indices) < FEWEST_COMPARED:
        return np.zeros(stack.frame_shape, dtype=bool)
    frames = np.stack([stack.frame(int(index)) for index in indices]).astype(np.float64)
    variance = frames.var(axis=0, ddof=1)
    around = median_filter(variance, 5) + QUANTISATION_VARIANCE_ADU2
    freedom = len(indices) - 1
    limit = f.isf(BY_CHANCE / variance.size, freedom, 24 * freedom)
    jumpy: NDArray[np.bool_] = variance > max(float(limit), LEAST_EXCESS) * around
    # Many of them are no defect but what the scene does.
    return jumpy if jumpy.mean() < MOST_JUMPY else np.zeros_like(jumpy)


class _Repaired:
    """A stack whose jumpy pixels show what is around them."""

    def __init__(self, stack: Stack, jumpy: NDArray[np.bool_]) -> None:
        self._stack = stack
        self.jumpy = jumpy
        self.preceding = stack.preceding

    def frame(self, index: int) -> NDArray[Any]:
        """Return a frame (Y, X)."""
        from scipy.ndimage import median_filter

        frame = self._stack.frame(index)
        return np.where(self.jumpy, median_filter(frame, 3), frame) if self.jumpy.any() else frame


def _frame_columns(
    stack: _Repaired, index: int, estimate: Estimate, high_pass_share: float
) -> FloatArray:
    """Return the pixels of one frame, (6, N).

    Signal and observation, squared temporal and spatial noise; brightness and structure there,
    from two frames before where there is such a frame.
    """
    from scipy.ndimage import convolve, sobel, uniform_filter

    frame = stack.frame(index).astype(np.float64)
    signal = np.asarray(estimate(stack.frame(index)), dtype=np.float64)
    earlier, reference = stack.preceding(index, 2)
    before = None if earlier is None else stack.frame(earlier)
    # The same frame twice is no repeat: a camera, or a program, that was too slow.
    if before is None or np.array_equal(before, frame):
        temporal = np.full_like(frame, np.nan)
    else:
        temporal = (frame - before) ** 2 / 2
    spatial = convolve(frame, HIGH_PASS, mode="reflect") ** 2
    spatial = spatial / high_pass_share if high_pass_share else np.full_like(frame, np.inf)
    brightness = signal
    if reference is not None:
        brightness = np.asarray(estimate(stack.frame(reference)), dtype=np.float64)
    slope = np.hypot(sobel(brightness, 0), sobel(brightness, 1))
    structure = uniform_filter(slope, 5)
    edge = (slice(4, -4), slice(4, -4))
    columns = (signal, frame, temporal, spatial, brightness, structure)
    sound = ~stack.jumpy[edge].ravel()
    return np.stack([column[edge].ravel()[sound] for column in columns])


class _Bins:
    """Pixels sorted by brightness into bins of equal numbers."""

    def __init__(self, signal: FloatArray, observation: FloatArray, structure: FloatArray) -> None:
        number = int(np.clip(signal.size // 1000, 1, BINS))
        # Half of the edges by rank, half by value: bright pixels are rare and matter.
        ranks = np.quantile(signal, np.linspace(0, 1, number // 2 + 1))
        values = np.linspace(signal.min(), signal.max(), number - number // 2 + 1)
        edges = np.unique(np.concatenate([ranks, values]))[1:-1]
        place = np.searchsorted(edges, signal, side="right")
        count = np.bincount(place, minlength=edges.size + 1)
        sound = np.flatnonzero(count >= 200)
        if not sound.size:
            raise TooFewPixelsError(
                f"bootstrap: {signal.size} pixels are too few to tell noise from structure; give "
                "more frames, or larger ones"
            )
        # Thin bins join the nearest sound one.
        nearest = np.abs(np.arange(count.size)[:, None] - sound[None, :]).argmin(axis=1)
        self.place = np.unique(nearest[place], return_inverse=True)[1]
        self.count = np.bincount(self.place).astype(np.float64)
        self.flat = np.zeros(signal.size, dtype=bool)
        for index in range(self.count.size):
            chosen = np.flatnonzero(self.place == index)
            limit = np.quantile(structure[chosen], FLAT_SHARE)
            self.flat[chosen] = structure[chosen] <= limit
        # A smoothing estimate is too low on peaks and too high in valleys; what pixels of one
        # estimate hold on average is their signal.
        self.flat_count = np.bincount(self.place[self.flat]).astype(np.float64)
        self.estimated = self.mean(signal, self.flat)
        self.centre = self.mean(observation, self.flat)

    def corrected(self, signal: FloatArray) -> FloatArray:
        """Return what pixels of these estimates hold on average."""
        found = np.interp(signal, self.estimated, np.maximum.accumulate(self.centre))
        beyond: FloatArray = signal - np.clip(signal, self.estimated[0], self.estimated[-1])
        return found + beyond

    def mean(self, values: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
        """Mean per bin of the pixels in `mask`; infinite where there are none."""
        count = np.bincount(self.place[mask], minlength=self.count.size)
        total = np.bincount(self.place[mask], values[mask], minlength=self.count.size)
        return np.where(count > 0, total / np.maximum(count, 1), np.inf)

    def noise(self, temporal: FloatArray, spatial: FloatArray) -> FloatArray:
        """Variance per bin: the smaller of the two overestimates."""
        known = np.isfinite(temporal)
        least = np.minimum(self.mean(temporal, known & self.flat), self.mean(spatial, self.flat))
        found = least[np.isfinite(least)]
        rounding = ROUNDING * float(np.abs(self.centre[np.isfinite(self.centre)]).max(initial=0))
        if float(found.max(initial=0)) <= rounding**2:
            raise CalibrationError(
                "bootstrap: the frames show no noise at all; give raw camera frames, not denoised "
                "or simulated ones"
            )
        # Estimates rise from bin to bin, what their pixels hold on average need not.
        good = np.flatnonzero(np.isfinite(least))
        good = good[np.argsort(self.centre[good])]
        return np.interp(self.centre, self.centre[good], least[good])


def _rescaled(
    signal: FloatArray, observation: FloatArray, centre: FloatArray, noise: FloatArray
) -> FloatArray:
    """Bring residuals to mean 0 and the noise's variance: what the estimate adds is removed."""
    residual = observation - signal
    order = np.argsort(signal, kind="stable")
    parts = np.array_split(order, max(1, order.size // PIXELS_PER_SPREAD))
    middle = np.array([signal[part].mean() for part in parts])
    spread = np.array([(residual[part] ** 2).mean() for part in parts])
    rising = np.argsort(centre)
    wanted = np.interp(signal, centre[rising], noise[rising])
    found = np.maximum(np.interp(signal, middle, spread), 1e-12)
    result: FloatArray = signal + residual * np.sqrt(wanted / found)
    return result


def _law(
    bins: _Bins, noise: FloatArray, saturation_adu: float, *, integer: bool
) -> PhotonTransfer:
    rounding = QUANTISATION_VARIANCE_ADU2 if integer else 0.0
    error = np.maximum(noise, rounding) * (np.sqrt(2 / bins.count) + 0.02) + 1e-12
    least = float(max(noise.min(), rounding))
    if bins.centre.size >= 2:
        line = weighted_line(bins.centre, noise, error)
        slope, gain = line.slope, line.slope_interval
        intercept = line.intercept
    if bins.centre.size < 2 or slope <= SURE_SLOPE * line.slope_error:
        # Noise that does not grow with light, or one brightness only: a constant.
        gain, intercept = Interval(1e-9, 0.0, np.inf), float(np.average(noise, weights=bins.count))
    return PhotonTransfer(
        gain=gain,
        intercept_adu2=intercept,
        offset=None,
        read_noise=None,
        dark_variance_adu2=min(least, float(noise.min()) if noise.min() > rounding else rounding),
        saturation_adu=saturation_adu,
    )
