"""How good a denoiser is on a recording whose truth is known.

Owns the scores and the choice of the truth that a frame is scored against. Drawing the maps is in
`error_maps`; figures that need no truth are in `trust`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel
from ...storage.atomic_output import require_apart
from ...storage.stack import Stack
from ..bundle import Bundle, open_bundle
from ..denoiser import Denoiser
from ..errors import FrameMismatchError, InferenceError
from ..observation_reader import ObservationReader
from ..offline.channel_models import ChannelModels
from ..provenance import recorded_camera
from ..runtime.camera_pixels import CameraPixels
from ..runtime.providers import Precision, Provider, all_cores
from ..runtime.tiling import open_denoiser
from ..side_inputs import other_channel_numbers, side_input_indices
from ..trust import NoiseVariance, lag_one_correlation, residual_variances
from .metrics import nrmse, psnr_db, ssim_map

FloatImage = NDArray[np.float64]
OnProgress = Callable[[int, int], None]

LEAST_REPEATS = 4
"""Fewer other frames make a truth that is hardly better than the frame itself."""


@dataclass(frozen=True, slots=True)
class FrameScores:
    """The scores of one frame; see `Evaluation` for what they mean."""

    index: int
    psnr_db: float
    psnr_raw_db: float
    ssim: float
    ssim_raw: float
    nrmse: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over the scored frames.

    Attributes
    ----------
    frames
        Every scored frame.
    variance_ratio
        Variance found in the residual (raw − denoised) over the variance that the noise model
        expects there, σ²(ŝ) − u². 1.0: what was removed is camera noise. None without a noise
        model.
    residual_correlation
        Lag-1 correlation of the residual, mean over x, y and frames. 0 for white noise.
    uncertainty_z_std
        Standard deviation of (denoised − truth) / √(u² + variance of the truth itself). 1.0 where
        the stated uncertainty is honest, above where it is too small. None where the denoiser
        states none.
    ms_per_frame
        Time in the denoiser, host array to host array, median.
    provider
        What ran, None for denoisers outside ONNX Runtime.
    """

    frames: tuple[FrameScores, ...]
    variance_ratio: float | None
    residual_correlation: float | None
    uncertainty_z_std: float | None
    ms_per_frame: float
    provider: str | None = None
    remarks: tuple[str, ...] = ()

    def mean(self, score: str) -> float:
        """Return the mean of one score over the frames."""
        return float(np.mean([getattr(frame, score) for frame in self.frames]))

    def result(self) -> dict[str, Any]:
        """Return the JSON object of `quietscope evaluate`."""
        scores = ("psnr_db", "psnr_raw_db", "ssim", "ssim_raw", "nrmse")
        return {
            **{name: self.mean(name) for name in scores},
            "frames": len(self.frames),
            "variance_ratio": self.variance_ratio,
            "residual_correlation": self.residual_correlation,
            "uncertainty_z_std": self.uncertainty_z_std,
            "ms_per_frame": self.ms_per_frame,
            "provider": self.provider,
            "remarks": list(self.remarks),
        }


def evaluate(
    stack: Stack,
    bundle_or_denoiser: Bundle | Path | str | Denoiser,
    *,
    truth: Stack | None = None,
    static: bool = False,
    noise_model: NoiseModel | None = None,
    frames: Iterable[int] | None = None,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    force: bool = False,
    figures: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Score a denoiser frame by frame against the truth.

    Parameters
    ----------
    stack
        Noisy frames.
    bundle_or_denoiser
        A model bundle, or any `Denoiser` built for the stack's frame shape. Of several channels,
        a model of one of them is scored on its own.
    truth
        The signal in the same units: as many frames as `stack`, or one along any axis.
    static
        `stack` holds repeats of one scene along time; the truth of a frame is the mean of the
        frames that were not among its inputs (itself and its context left out).
    noise_model
        Of the camera; by default the bundle's own.
    frames
        Score only these, by index.
    provider, precision, threads
        For a bundle; see `OnnxDenoiser`.
    force
        Score although the camera differs from the model's.
    figures
        A folder for the maps of the worst, the median and the best frame.
    on_progress
        Called with (frames done, frames in total).

    Raises
    ------
    InferenceError
        If not exactly one kind of truth was given, or it does not fit.

    Notes
    -----
    PSNR is 10·log10(range² / MSE) with the truth's own max − min as range, in float64, for each
    frame, then averaged. NRMSE is the root of the MSE over the same range. SSIM follows Wang et
    al. 2004 (doi:10.1109/TIP.2003.819861) with a 7×7 window and the same range. If the model knows
    every pixel of the camera, raw frames are taken with the offset and gain of each pixel
    corrected, as the model sees them, also where their mean is the truth.
    """
    _require_one_truth(stack, truth, static)
    if figures is not None:
        model = bundle_or_denoiser
        used = [model] if isinstance(model, Path | str) else []
        used += [model.path] if isinstance(model, Bundle) else []
        require_apart(figures, [stack.path, *([truth.path] if truth else []), *used])
    denoiser, models, noise_model, remarks = _prepared(
        stack, bundle_or_denoiser, noise_model, provider, precision, threads, force
    )
    try:
        pixels = CameraPixels.of(denoiser, noise_model)
        references = _references(stack, truth, pixels)
        chosen = _chosen(stack, models, frames, references)
        scoring = _Scoring(
            stack,
            denoiser,
            references,
            NoiseVariance(noise_model) if noise_model else None,
            pixels,
        )
        for done, index in enumerate(chosen, start=1):
            scoring.add(index)
            if on_progress is not None:
                on_progress(done, len(chosen))
        evaluation = scoring.evaluation(getattr(denoiser, "provider", None), remarks)
        if figures is not None:
            _draw(evaluation, scoring, figures)
    finally:
        if models is not None:
            denoiser.close()
    return evaluation


def _of_its_channel(stack: Stack, bundle: Bundle) -> ChannelModels:
    """Give a model its own channel of several, or all where it names none of them."""
    channel, labels = bundle.manifest.channel, stack.channel_labels
    own = channel is not None and channel in labels and len(labels) > 1
    return ChannelModels.open(stack, {str(channel): bundle} if own else bundle)


def _chosen(
    stack: Stack,
    models: ChannelModels | None,
    frames: Iterable[int] | None,
    references: _References,
) -> list[int]:
    """Return the frames to score: chosen, there, with a model and a truth that is there too."""
    wanted = range(len(stack)) if frames is None else sorted(set(frames))
    chosen = [
        index
        for index in wanted
        if stack.is_present(index)
        and references.holds(index)
        and (models is None or models.denoises(stack.axes(index)))
    ]
    if not chosen:
        raise InferenceError(
            f"{stack.path}: no frames of the model's channel were chosen; choose at least one"
        )
    return chosen


def _prepared(
    stack: Stack,
    model: Bundle | Path | str | Denoiser,
    noise_model: NoiseModel | None,
    provider: Provider,
    precision: Precision,
    threads: int | None,
    force: bool,
) -> tuple[Denoiser, ChannelModels | None, NoiseModel | None, list[str]]:
    if not isinstance(model, Bundle | Path | str):
        return model, None, noise_model, []
    from ...calibration.noise_files import load_noise_model

    bundle = model if isinstance(model, Bundle) else open_bundle(model)
    models = _of_its_channel(stack, bundle)
    remarks = models.require_match(stack, force=force)
    noise_model = noise_model or load_noise_model(bundle.noise_model_path)
    denoiser = open_denoiser(
        bundle,
        stack.frame_shape,
        provider=provider,
        precision=precision,
        threads=threads or all_cores(),
        region=recorded_camera(stack).roi,
    )
    return denoiser, models, noise_model, remarks


@dataclass(eq=False)
class _Scoring:
    """Denoise and score, one frame at a time."""

    stack: Stack
    denoiser: Denoiser
    references: _References
    noise_variance: NoiseVariance | None
    pixels: CameraPixels
    scores: list[FrameScores] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    expected_adu2: list[float] = field(default_factory=list)
    found_adu2: list[float] = field(default_factory=list)
    correlations: list[float] = field(default_factory=list)
    z_squares: list[float] = field(default_factory=list)
    other_channels: tuple[int, ...] = field(init=False)
    reader: ObservationReader = field(init=False)
    estimate: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        if self.denoiser.frame_shape != self.stack.frame_shape:
            raise FrameMismatchError(
                f"{self.stack.path}: frames are {self.stack.frame_shape}, the denoiser was built "
                f"for {self.denoiser.frame_shape}; build one for this shape"
            )
        bundle = getattr(self.denoiser, "bundle", None)
        wanted = () if bundle is None else bundle.manifest.other_channels
        self.other_channels = other_channel_numbers(self.stack, wanted, what="the model")
        pixel_type = getattr(self.denoiser, "pixel_type", None) or self.stack.dtype
        self.reader = ObservationReader(self.stack, np.dtype(pixel_type))
        self.estimate = np.empty((2, *self.stack.frame_shape), np.float32)

    @property
    def preceding_frames(self) -> int:
        """How many of the frames that a model is given are of its own channel."""
        return self.denoiser.context_frames - len(self.other_channels)

    def denoise(self, index: int) -> FloatImage:
        """Denoise frame `index` into `estimate` and return the frame itself, in float64."""
        observations = self.reader.read(index, self.preceding_frames, self.other_channels)
        began = time.perf_counter()
        self.denoiser.denoise(observations, self.estimate)
        self.seconds.append(time.perf_counter() - began)
        return self.pixels.corrected(observations[0])

    def add(self, index: int) -> None:
        raw = self.denoise(index)
        reference = self.references.of(index, self.preceding_frames)
        denoised = self.estimate[0].astype(np.float64)
        self.scores.append(_score(index, raw, denoised, reference.signal))
        residual = raw - denoised
        if (correlation := lag_one_correlation(residual)) is not None:
            self.correlations.append(correlation)
        if self.noise_variance is not None:
            expected, found = residual_variances(
                residual,
                denoised,
                self.estimate[1],
                self.noise_variance,
                self.pixels.own_variance_adu2(),
            )
            self.expected_adu2.append(expected)
            self.found_adu2.append(found)
        self._add_z(denoised, reference)

    def _add_z(self, denoised: FloatImage, reference: _Reference) -> None:
        stated = self.estimate[1].astype(np.float64) ** 2
        total = stated + reference.variance
        usable = (stated > 0) & (total > 0)
        if usable.any():
            error = denoised - reference.signal
            self.z_squares.append(float((error[usable] ** 2 / total[usable]).mean()))

    def evaluation(self, provider: str | None, remarks: list[str]) -> Evaluation:
        expected = sum(self.expected_adu2)
        return Evaluation(
            frames=tuple(self.scores),
            variance_ratio=sum(self.found_adu2) / expected if expected > 0 else None,
            residual_correlation=float(np.mean(self.correlations)) if self.correlations else None,
            uncertainty_z_std=sqrt(float(np.mean(self.z_squares))) if self.z_squares else None,
            ms_per_frame=1e3 * float(np.median(self.seconds)),
            provider=provider,
            remarks=tuple(remarks),
        )


def _score(index: int, raw: FloatImage, denoised: FloatImage, truth: FloatImage) -> FrameScores:
    if truth.max() <= truth.min():
        raise InferenceError(
            f"the truth of frame {index} is the same in every pixel, so no score has a scale; "
            "give a truth with structure"
        )
    return FrameScores(
        index=index,
        psnr_db=psnr_db(denoised, truth),
        psnr_raw_db=psnr_db(raw, truth),
        ssim=ssim_map(denoised, truth)[0],
        ssim_raw=ssim_map(raw, truth)[0],
        nrmse=nrmse(denoised, truth),
    )


# ------------------------------------------------------------------------------ the truth


@dataclass(frozen=True, slots=True, eq=False)
class _Reference:
    """The truth of one frame and how uncertain it is itself: (Y, X) ADU, and ADU²."""

    signal: FloatImage
    variance: FloatImage


class _References(Protocol):
    """Where the truth of a frame comes from."""

    def holds(self, index: int) -> bool: ...

    def of(self, index: int, context_frames: int) -> _Reference: ...


class _GivenTruth:
    def __init__(self, stack: Stack, truth: Stack) -> None:
        fitting = truth.frame_shape == stack.frame_shape and all(
            size in (1, stack.sizes.get(name, 1)) for name, size in truth.sizes.items()
        )
        if not fitting:
            raise InferenceError(
                f"{truth.path}: the truth has frames {truth.frame_shape} along "
                f"{dict(truth.sizes)}, the stack {stack.frame_shape} along {dict(stack.sizes)}; "
                "give one true frame, or one per frame of the stack"
            )
        self._stack, self._truth = stack, truth
        self._nothing = np.zeros(stack.frame_shape)

    def holds(self, index: int) -> bool:
        return self._truth.is_present(self._place(index))

    def of(self, index: int, context_frames: int) -> _Reference:
        signal = self._truth.frame(self._place(index)).astype(np.float64)
        return _Reference(signal, self._nothing)

    def _place(self, index: int) -> int:
        axes = self._stack.axes(index)
        place = {
            name: axes.get(name, 0) if size > 1 else 0 for name, size in self._truth.sizes.items()
        }
        return self._truth.index(place)


class _MeanOfOthers:
    """Repeats of one scene: the mean of the frames that were not among the inputs.

    Scored against a mean that holds its own inputs, a denoiser would look better than it is: by
    0.25 to 0.7 dB with 50 repeats.
    """

    def __init__(self, stack: Stack, pixels: CameraPixels) -> None:
        self._stack = stack
        self._pixels = pixels
        self._scene: dict[str, int] | None = None
        self._repeats = 0
        self._sum = np.zeros(stack.frame_shape)
        self._squares = np.zeros(stack.frame_shape)

    def holds(self, index: int) -> bool:
        return self._stack.is_present(index)

    def of(self, index: int, context_frames: int) -> _Reference:
        self._sum_scene(index)
        inputs = [
            index,
            *(i for i in side_input_indices(self._stack, index, context_frames) if i is not None),
        ]
        others = self._repeats - len(inputs)
        if others < LEAST_REPEATS:
            raise InferenceError(
                f"{self._stack.path}: {self._repeats} repeats leave {others} frames "
                f"that are not inputs of the model, expected at least {LEAST_REPEATS}; record "
                "more repeats or give --truth"
            )
        total, squares = self._sum.copy(), self._squares.copy()
        for place in inputs:
            frame = self._pixels.corrected(self._stack.frame(place))
            total -= frame
            squares -= frame**2
        mean = total / others
        scatter = np.maximum(squares / others - mean**2, 0) * others / (others - 1)
        return _Reference(mean, scatter / others)

    def _sum_scene(self, index: int) -> None:
        scene = {name: i for name, i in self._stack.axes(index).items() if name != "time"}
        if scene == self._scene:
            return
        self._sum[:], self._squares[:], self._repeats = 0, 0, 0
        for frame in self._frames_of(scene):
            self._repeats += 1
            self._sum += frame
            self._squares += frame**2
        self._scene = scene

    def _frames_of(self, scene: Mapping[str, int]) -> Iterator[FloatImage]:
        for time_point in range(self._stack.sizes["time"]):
            index = self._stack.index({**scene, "time": time_point})
            if self._stack.is_present(index):
                yield self._pixels.corrected(self._stack.frame(index))


def _require_one_truth(stack: Stack, truth: Stack | None, static: bool) -> None:
    if (truth is not None) == static:
        raise InferenceError(
            f"{stack.path}: give either --truth STACK or --static (repeats of one scene)"
        )


def _references(stack: Stack, truth: Stack | None, pixels: CameraPixels) -> _References:
    if truth is not None:
        return _GivenTruth(stack, truth)
    if stack.sizes.get("time", 1) < LEAST_REPEATS:
        raise InferenceError(
            f"{stack.path}: --static needs repeats of one scene along time, this stack has "
            f"{dict(stack.sizes)}; give --truth"
        )
    return _MeanOfOthers(stack, pixels)


# --------------------------------------------------------------------------------- figures


def _draw(evaluation: Evaluation, scoring: _Scoring, folder: Path) -> None:
    from .error_maps import draw_error_maps

    by_quality = sorted(evaluation.frames, key=lambda scores: scores.psnr_db)
    chosen = {
        "worst": by_quality[0],
        "median": by_quality[len(by_quality) // 2],
        "best": by_quality[-1],
    }
    for name, scores in chosen.items():
        raw = scoring.denoise(scores.index)
        truth = scoring.references.of(scores.index, scoring.preceding_frames).signal
        draw_error_maps(
            folder / f"{name}_frame_{scores.index:04d}.png",
            raw=raw,
            denoised=scoring.estimate[0].astype(np.float64),
            truth=truth,
            title=f"frame {scores.index} ({name} of {len(by_quality)})",
        )
