"""Figures of one channel of a recording, from a sample of its frames.

Owns what is measured of the pixels and what they advise. Noise, motion and correlation are
measured by `calibration`; no figure here needs repeats, a truth or a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration.bootstrap import bootstrap_noise_model
from ..calibration.checks import SIGNIFICANT, moved_share
from ..calibration.errors import CalibrationError, TooFewPixelsError
from ..calibration.level_statistics import LevelStatistics, level_statistics
from ..storage.stack import Stack, stack_from_array

SAMPLED_BYTES = 128 * 2**20
MOST_SAMPLED = 24
PIXELS_FOR_MOTION = 200_000
SMALLEST_EDGE = 16
"""Of smaller frames the bootstrap cannot tell noise from structure."""
TOO_SMALL = "the frames are too small to tell noise from structure"
COPIES = "the frames are copies of one, so that no noise can be told from structure"
MUCH_SATURATED = 1e-3
MUCH_CORRELATED = 0.05
MUCH_MOVED = 0.5
"""Variance that motion adds, over the noise's: beyond it, frames that came before mislead."""


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """What a sample of the frames of one channel says.

    Attributes
    ----------
    channel
        Its name, or its number.
    frames_sampled
        How many frames were read.
    lowest_adu, highest_adu, mean_adu
        Of their pixels.
    step_adu
        The largest number that all pixels are multiples of, beside an offset: 16 where 12 bits lie
        in the upper ones of 16. None for float pixels.
    saturated_share, saturated_pixels
        Share and number of the sampled pixels at the end of the scale, or in a pile at the highest
        value.
    zero_share
        Share of the pixels at 0: clipped from below.
    gain_adu_per_e, noise_adu
        Bootstrapped: gain, and standard deviation of the noise at the mean. None where the frames
        do not tell.
    noise_correlation_xy
        Of the differences of successive frames with their right and lower neighbours.
    noise_correlation_error
        The standard error of both, were the noise white.
    moved_share
        Variance between parts of the recording, over that of the noise: 0 for a scene that rests.
    why_no_noise
        Why noise could not be measured.
    """

    channel: str
    frames_sampled: int
    lowest_adu: float
    highest_adu: float
    mean_adu: float
    step_adu: int | None
    saturated_share: float
    saturated_pixels: int
    zero_share: float
    gain_adu_per_e: float | None
    noise_adu: float | None
    noise_correlation_xy: tuple[float, float] | None
    noise_correlation_error: float | None
    moved_share: float | None
    why_no_noise: str | None
    too_few_pixels: bool = False
    """Whether there are too few of them to tell their noise, whatever it is."""

    @property
    def correlated(self) -> bool:
        """Whether neighbours share more noise than matters, and than chance makes."""
        if self.noise_correlation_xy is None or self.noise_correlation_error is None:
            return False
        least = max(MUCH_CORRELATED, SIGNIFICANT * self.noise_correlation_error)
        return max(map(abs, self.noise_correlation_xy)) > least

    @property
    def too_small(self) -> bool:
        """Whether the frames hold too little around a pixel to learn from."""
        return self.why_no_noise == TOO_SMALL

    def result(self) -> dict[str, Any]:
        """Return it as JSON; what is not finite is null."""
        return {
            name: None if isinstance(value, float) and not isfinite(value) else value
            for name, value in asdict(self).items()
        }

    def advice(self) -> Iterator[str]:
        """Say what to do about what was found."""
        if self.saturated_share > MUCH_SATURATED:
            yield (
                f"{self.channel}: {self.saturated_share:.1%} of the pixels are saturated at "
                f"{self.highest_adu:g} ADU, where nothing can be restored: lower exposure or light"
            )
        if self.zero_share > MUCH_SATURATED:
            yield (
                f"{self.channel}: {self.zero_share:.1%} of the pixels are 0: noise that is cut "
                "off there biases the result; raise the camera's offset"
            )
        if self.step_adu is not None and self.step_adu > 1:
            yield (
                f"{self.channel}: all pixels are steps of {self.step_adu}: fewer bits, shifted "
                "upwards or scaled; a calibration has to be made in the same setting"
            )
        if self.correlated and self.noise_correlation_xy:
            x, y = self.noise_correlation_xy
            yield (
                f"{self.channel}: the noise of neighbours is correlated ({x:.2f} along x, "
                f"{y:.2f} along y; motion adds to it): train with --algorithm r2r"
            )
        if self.moved_share is not None and self.moved_share > MUCH_MOVED:
            yield (
                f"{self.channel}: the scene moves or bleaches: it is no stack of repeats for "
                "fit-noise or evaluate --static; use fit-noise --bootstrap"
            )
        if self.why_no_noise:
            yield f"{self.channel}: {self.why_no_noise}"


def channel_figures(stack: Stack, channel: str) -> ChannelFigures:
    """Measure one channel of a recording on successive frames that are there.

    Parameters
    ----------
    stack
        Of one channel.
    channel
        What to call it.
    """
    sample = _sample(stack)
    pixels = np.stack(list(sample))
    copies = len(sample) > 1 and bool((pixels[1:] == pixels[:-1]).all())
    noise, gain, why, too_few = (None, None, COPIES, False) if copies else _noise(sample)
    tells = len(sample) > 1 and not copies and why != TOO_SMALL
    repeats = level_statistics(sample) if tells else None
    saturated = _saturated(pixels, repeats)
    return ChannelFigures(
        channel=channel,
        frames_sampled=len(sample),
        lowest_adu=float(pixels.min()),
        highest_adu=float(pixels.max()),
        mean_adu=float(pixels.mean(dtype=np.float64)),
        step_adu=_step(pixels),
        saturated_share=saturated / pixels.size,
        saturated_pixels=saturated,
        zero_share=float((pixels == 0).mean()),
        gain_adu_per_e=gain,
        noise_adu=noise,
        noise_correlation_xy=None if repeats is None else repeats.lag_correlation,
        noise_correlation_error=None
        if repeats is None
        else repeats.autocorrelation.standard_error,
        moved_share=None if repeats is None else _moved(repeats),
        why_no_noise=why,
        too_few_pixels=too_few,
    )


def _sample(stack: Stack) -> Stack:
    """Return successive frames of one plane and position, from the middle, held in memory."""
    frame_bytes = prod(stack.frame_shape) * stack.dtype.itemsize
    wanted = int(np.clip(SAMPLED_BYTES // frame_bytes, 2, MOST_SAMPLED))
    names = list(stack.sizes)
    there = stack.present_indices.astype(np.intp)
    if "time" in names:
        grid = np.arange(len(stack)).reshape(tuple(stack.sizes.values()))
        rows = np.moveaxis(grid, names.index("time"), -1).reshape(-1, stack.sizes["time"])
        present = np.zeros(len(stack), dtype=np.bool_)
        present[there] = True
        fullest = rows[int(present[rows].sum(axis=1).argmax())]
        there = fullest[present[fullest]]
    else:
        wanted = 1
    start = max(0, (len(there) - wanted) // 2)
    frames = stack.frames([int(index) for index in there[start : start + wanted]])
    return stack_from_array(frames, path=stack.path)


def _step(pixels: NDArray[Any]) -> int | None:
    if pixels.dtype.kind != "u" or pixels.min() == pixels.max():
        return None
    values = np.unique(pixels).astype(np.int64)
    return int(np.gcd.reduce(np.diff(values)))


def _saturated(pixels: NDArray[Any], repeats: LevelStatistics | None) -> int:
    highest = pixels.max()
    at_end = pixels.dtype.kind == "u" and highest == np.iinfo(pixels.dtype).max
    piled = repeats is not None and repeats.piled_at_top
    return int((pixels == highest).sum()) if at_end or piled else 0


def _moved(repeats: LevelStatistics) -> float:
    sample = repeats.sample[:, :PIXELS_FOR_MOTION]
    return float(moved_share(sample))


def _noise(sample: Stack) -> tuple[float | None, float | None, str | None, bool]:
    """Return noise and gain, or why there are none, and whether more pixels would tell."""
    if min(sample.frame_shape) < SMALLEST_EDGE:
        return None, None, TOO_SMALL, False
    mean = np.array([np.mean([frame.mean(dtype=np.float64) for frame in sample])])
    try:
        # What has no noise divides by none: that is told below, not as a warning.
        with np.errstate(all="ignore"):
            model = bootstrap_noise_model([sample])
            noise = float(np.sqrt(model.variance(mean)[0]))
    except CalibrationError as error:
        too_few = isinstance(error, TooFewPixelsError)
        return None, None, f"no noise could be measured ({error})", too_few
    if not isfinite(noise):
        return None, None, "no noise could be measured: the pixels follow no camera's law", False
    gain = model.photon_transfer.gain_adu_per_e
    return noise, gain if gain > 1e-6 else None, None, False
