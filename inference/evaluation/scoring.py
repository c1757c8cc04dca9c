"""Score a denoiser on one frame after the other.

Owns the scores of a frame and what is gathered for the means. Their meaning is told by
`evaluate.Evaluation`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.stack import Stack
from ..denoiser import Denoiser, RunsBundle
from ..errors import FrameMismatchError, InferenceError
from ..observation_reader import ObservationReader
from ..runtime.camera_pixels import CameraPixels
from ..side_inputs import other_channel_numbers, side_input_indices
from ..trust import NoiseVariance, lag_one_correlation, residual_variances
from ..trust.judge import FrameJudge, Judgement
from ..trust.residuals import clipped_from
from .conditional_z import ConditionalZ
from .coverage import Coverage
from .metrics import (
    frc_resolution_px,
    nrmse,
    nrmse_euclidean,
    psnr_db,
    scale_invariant_psnr_db,
    ssim_gaussian_map,
    ssim_map,
)
from .references import Reference, References
from .trivial_competitors import BlurCompetitor

FloatImage = NDArray[np.float64]

LEAST_EDGE = 3
"""Pixels: the smallest window in which structures are compared."""


@dataclass(frozen=True, slots=True)
class FrameScores:
    """The scores of one frame; see `Evaluation` for what they mean."""

    index: int
    psnr_db: float
    psnr_raw_db: float
    ssim: float
    ssim_raw: float
    nrmse: float
    ssim_gaussian_11px: float
    ssim_raw_gaussian_11px: float
    nrmse_euclidean: float
    si_psnr_db: float
    frc_resolution_px: float


@dataclass(eq=False)
class Scoring:
    """Denoise and score, one frame at a time; what `Evaluation` takes the means of.

    After each frame `estimate` and `residual` (raw − denoised) are the frame's.
    """

    stack: Stack
    denoiser: Denoiser
    references: References | None
    """None where the truth is not known: then there are no scores, only what needs none."""
    noise_variance: NoiseVariance | None
    pixels: CameraPixels
    with_blurs: bool = True
    """Whether the trivial competitors are scored beside each frame."""
    scores: list[FrameScores] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    expected_adu2: list[float] = field(default_factory=list)
    found_adu2: list[float] = field(default_factory=list)
    correlations: list[float] = field(default_factory=list)
    z_squares: list[float] = field(default_factory=list)
    z_by_class: ConditionalZ = field(default_factory=ConditionalZ)
    coverage: Coverage = field(default_factory=Coverage)
    saturation_adu: float = np.inf
    """Where the camera clips, if that is below the largest value of its pixels."""
    saturated_shares: list[float] = field(default_factory=list)
    judge: FrameJudge | None = None
    """Judges each frame without the truth, as it is judged while a microscope runs."""
    judgements: dict[int, Judgement] = field(default_factory=dict)
    """By the frame's index."""
    other_light: list[str] = field(default_factory=list)
    """What frames say whose mean lies beyond all that their truth holds."""
    other_channels: tuple[int, ...] = field(init=False)
    planes: int = field(init=False)
    reader: ObservationReader = field(init=False)
    estimate: NDArray[np.float32] = field(init=False)
    residual: FloatImage = field(init=False)
    raw: NDArray[Any] = field(init=False)
    """The last frame as the camera gave it."""
    provider: str | None = field(init=False)
    gaussian: BlurCompetitor = field(default_factory=BlurCompetitor)
    running_mean: BlurCompetitor = field(default_factory=BlurCompetitor)

    def __post_init__(self) -> None:
        if self.denoiser.frame_shape != self.stack.frame_shape:
            raise FrameMismatchError(
                f"{self.stack.path}: frames are {self.stack.frame_shape}, the denoiser was built "
                f"for {self.denoiser.frame_shape}; build one for this shape"
            )
        model = self.denoiser if isinstance(self.denoiser, RunsBundle) else None
        wanted = () if model is None else model.bundle.manifest.other_channels
        self.other_channels = other_channel_numbers(self.stack, wanted, what="the model")
        self.planes = 0 if model is None else model.bundle.manifest.planes
        self.provider = None if model is None else model.provider
        pixel_type = self.stack.dtype if model is None else model.pixel_type
        self.reader = ObservationReader(self.stack, pixel_type)
        self.estimate = np.empty((2, *self.stack.frame_shape), np.float32)

    @property
    def preceding_frames(self) -> int:
        """How many of the frames that a model is given are of its own channel."""
        return self.denoiser.context_frames - len(self.other_channels) - 2 * self.planes

    def observations(self, index: int) -> NDArray[Any]:
        """Read frame `index` with all that the denoiser is given beside it."""
        return self.reader.read(index, self.preceding_frames, self.other_channels, self.planes)

    def denoise(self, index: int) -> list[FloatImage]:
        """Denoise frame `index` into `estimate`.

        Returns the frame and the preceding ones that the model was given, newest first, float64.
        """
        observations = self.observations(index)
        self.raw = observations[0]
        began = time.perf_counter()
        self.denoiser.denoise(observations, self.estimate)
        self.seconds.append(time.perf_counter() - began)
        before = side_input_indices(self.stack, index, self.preceding_frames)
        there = [0, *(row for row, place in enumerate(before, start=1) if place is not None)]
        return [self.pixels.corrected(observations[row]) for row in there]

    def add(self, index: int) -> None:
        """Denoise and score frame `index`."""
        frames = self.denoise(index)
        raw, denoised = frames[0], self.estimate[0].astype(np.float64)
        limit = clipped_from(self.raw, self.saturation_adu)
        self.saturated_shares.append(float((self.raw >= limit).mean()))
        if self.references is not None:
            reference = self.references.of(index, self.preceding_frames)
            self.scores.append(_score(index, raw, denoised, reference.signal))
            self._compare_light(index, raw, reference.signal)
            if self.with_blurs:
                self.gaussian.add(raw, reference.signal)
                if self.preceding_frames:
                    self.running_mean.add(np.mean(frames, axis=0), reference.signal)
            self._add_z(denoised, reference)
        if self.judge is not None:
            axes = self.stack.axes(index)
            self.judgements[index] = self.judge.add(
                self.raw,
                self.estimate[0],
                self.estimate[1],
                pixels=self.pixels,
                place=tuple((name, place) for name, place in axes.items() if name != "time"),
            )
        self.residual = raw - denoised
        if (correlation := lag_one_correlation(self.residual)) is not None:
            self.correlations.append(correlation)
        if self.noise_variance is not None:
            expected, found = residual_variances(
                self.residual,
                denoised,
                self.estimate[1],
                self.noise_variance,
                self.pixels.own_variance_adu2(),
            )
            self.expected_adu2.append(expected)
            self.found_adu2.append(found)

    def _compare_light(self, index: int, raw: FloatImage, truth: FloatImage) -> None:
        mean, low, high = float(raw.mean()), float(truth.min()), float(truth.max())
        if not low <= mean <= high:
            self.other_light.append(
                f"frame {index} has {mean:.4g} ADU on average, its truth {low:.4g} to {high:.4g}"
            )

    @property
    def variance_ratio(self) -> float | None:
        """Variance found in the residuals over that which the noise model expects there."""
        expected = sum(self.expected_adu2)
        return sum(self.found_adu2) / expected if expected > 0 else None

    @property
    def residual_correlation(self) -> float | None:
        """Lag-1 correlation of the residuals, mean over the frames."""
        return float(np.mean(self.correlations)) if self.correlations else None

    @property
    def uncertainty_z_std(self) -> float | None:
        """Standard deviation of the error over what was stated; None where nothing was."""
        return sqrt(float(np.mean(self.z_squares))) if self.z_squares else None

    @property
    def saturated_share(self) -> float:
        """Share of the pixels whose light is not known, mean over the frames."""
        return float(np.mean(self.saturated_shares)) if self.saturated_shares else 0.0

    @property
    def ms_per_frame(self) -> float:
        """Time in the denoiser, median."""
        return 1e3 * float(np.median(self.seconds))

    def _add_z(self, denoised: FloatImage, reference: Reference) -> None:
        stated = self.estimate[1].astype(np.float64) ** 2
        total = stated + reference.variance
        usable = (stated > 0) & (total > 0)
        if usable.any():
            error = denoised - reference.signal
            self.z_squares.append(float((error[usable] ** 2 / total[usable]).mean()))
            variance = np.where(stated > 0, total, 0.0)
            self.z_by_class.add(error, variance, reference.signal)
            self.coverage.add(error, variance)


def _require_truth(index: int, raw: FloatImage, truth: FloatImage) -> None:
    """Refuse a truth that gives no score a scale, or that is no other than what is scored."""
    if min(truth.shape) < LEAST_EDGE:
        raise InferenceError(
            f"frames of {truth.shape} pixels, expected at least {LEAST_EDGE} by {LEAST_EDGE} to "
            "compare structure; give larger frames"
        )
    if np.array_equal(raw, truth):
        raise InferenceError(
            f"frame {index} is the same as its truth, so there is no noise to take away; give "
            "frames as the camera wrote them, and another truth"
        )
    if truth.max() <= truth.min():
        raise InferenceError(
            f"the truth of frame {index} is the same in every pixel, so no score has a scale; "
            "give a truth with structure"
        )


def _score(index: int, raw: FloatImage, denoised: FloatImage, truth: FloatImage) -> FrameScores:
    _require_truth(index, raw, truth)
    return FrameScores(
        index=index,
        psnr_db=psnr_db(denoised, truth),
        psnr_raw_db=psnr_db(raw, truth),
        ssim=ssim_map(denoised, truth)[0],
        ssim_raw=ssim_map(raw, truth)[0],
        nrmse=nrmse(denoised, truth),
        ssim_gaussian_11px=ssim_gaussian_map(denoised, truth)[0],
        ssim_raw_gaussian_11px=ssim_gaussian_map(raw, truth)[0],
        nrmse_euclidean=nrmse_euclidean(denoised, truth),
        si_psnr_db=scale_invariant_psnr_db(denoised, truth),
        frc_resolution_px=frc_resolution_px(denoised, truth),
    )
