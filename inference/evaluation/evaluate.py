"""How good a denoiser is on a recording whose truth is known.

Owns the scores, of the model and of what needs no model. The truth is chosen in `references`, the
competitors are in `trivial_competitors`; drawing the maps is in `error_maps`; figures that need no
truth are in `trust`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel
from ...storage.atomic_output import require_apart
from ...storage.stack import Stack
from ..bundle import Bundle, open_bundle
from ..denoiser import Denoiser, RunsBundle
from ..errors import InferenceError
from ..graph.precision import Precision
from ..offline.channel_models import ChannelModels
from ..provenance import recorded_camera
from ..runtime.camera_pixels import CameraPixels
from ..runtime.providers import Provider, all_cores
from ..runtime.tiling import open_denoiser
from ..trust import NoiseVariance
from ..trust.judge import FrameJudge, judged
from .references import References, references, require_one_truth
from .scoring import FrameScores, Scoring
from .trivial_competitors import BestBlur

TOLD_SATURATION = 0.01
"""Share of the pixels: a few bright points clip in many good recordings."""

FloatImage = NDArray[np.float64]
OnProgress = Callable[[int, int], None]


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
    gaussian
        The best Gaussian blur of the frame alone.
    running_mean
        The best blur of the mean of the frame and the preceding ones that the model is given; None
        for a model of single frames.
    provider
        What ran, None for denoisers outside ONNX Runtime.
    remarks
        What a person should know: how the camera differs, whether the scene moved.
    method
        Of a filter without training: `name`, `frames` whose mean it is given, `strength`.
    uncertainty_z_by
        The same by the truth's brightness and steepness, see `conditional_z`.
    uncertainty_coverage
        Share of the pixels found within what is stated for 50, 68 and 95 % of them, see
        `coverage`; None where the denoiser states no uncertainty.
    saturated_share
        Of the pixels of the scored frames: what light they saw is not known.
    verdict
        How the pictures are judged without the truth, see `judged`; None without a model or its
        noise.
    """

    frames: tuple[FrameScores, ...]
    variance_ratio: float | None
    residual_correlation: float | None
    uncertainty_z_std: float | None
    ms_per_frame: float
    gaussian: BestBlur | None = None
    running_mean: BestBlur | None = None
    provider: str | None = None
    remarks: tuple[str, ...] = ()
    method: Mapping[str, str | int | float | None] | None = None
    uncertainty_z_by: Mapping[str, float] = field(default_factory=dict)
    uncertainty_coverage: Mapping[str, float] | None = None
    saturated_share: float = 0.0
    verdict: Mapping[str, Any] | None = None

    def mean(self, score: str) -> float:
        """Return the mean of one score over the frames."""
        return float(np.mean([getattr(frame, score) for frame in self.frames]))

    @property
    def gain_over_trivial_db(self) -> float | None:
        """By how much the model is better than the best of its input and the blurs."""
        rivals = [blur.psnr_db for blur in (self.gaussian, self.running_mean) if blur is not None]
        return self.mean("psnr_db") - max(rivals) if rivals else None

    def result(self) -> dict[str, Any]:
        """Return the JSON object of `quietscope evaluate`."""
        scores = [one.name for one in fields(FrameScores) if one.name != "index"]
        return {
            **{name: self.mean(name) for name in scores},
            "frames": len(self.frames),
            "variance_ratio": self.variance_ratio,
            "residual_correlation": self.residual_correlation,
            "uncertainty_z_std": self.uncertainty_z_std,
            "uncertainty_z_by": dict(self.uncertainty_z_by),
            "uncertainty_coverage": None
            if self.uncertainty_coverage is None
            else dict(self.uncertainty_coverage),
            "saturated_share": self.saturated_share,
            "verdict": None if self.verdict is None else dict(self.verdict),
            "ms_per_frame": self.ms_per_frame,
            "psnr_gaussian_db": self.gaussian and self.gaussian.psnr_db,
            "gaussian_sigma_px": self.gaussian and self.gaussian.sigma_px,
            "psnr_running_mean_db": self.running_mean and self.running_mean.psnr_db,
            "running_mean_sigma_px": self.running_mean and self.running_mean.sigma_px,
            "gain_over_trivial_db": self.gain_over_trivial_db,
            "provider": self.provider,
            "method": None if self.method is None else dict(self.method),
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
    frame, then averaged. NRMSE is the root of the MSE over the same range. `ssim` follows Wang et
    al. 2004 (doi:10.1109/TIP.2003.819861) with a 7×7 window and the same range; other definitions
    carry their own in their names, and `metrics` says what they are. If the model knows
    every pixel of the camera, raw frames are taken with the offset and gain of each pixel
    corrected, as the model sees them, also where their mean is the truth.
    """
    require_one_truth(stack, truth, static=static)
    if figures is not None:
        model = bundle_or_denoiser
        used = [model] if isinstance(model, Path | str) else []
        used += [model.path] if isinstance(model, Bundle) else []
        require_apart(figures, [stack.path, *([truth.path] if truth else []), *used])
    denoiser, models, noise_model, remarks = prepared(
        stack, bundle_or_denoiser, noise_model, provider, precision, threads, force
    )
    try:
        pixels = CameraPixels.of(denoiser, noise_model)
        noise_variance = NoiseVariance(noise_model) if noise_model else None
        truths = references(
            stack, truth, static=static, pixels=pixels, noise_variance=noise_variance
        )
        chosen = _chosen(stack, models, frames, truths)
        scoring = Scoring(stack, denoiser, truths, noise_variance, pixels)
        scoring.saturation_adu = saturation_of(stack)
        if isinstance(denoiser, RunsBundle) and noise_variance is not None:
            scoring.judge = FrameJudge.of_bundle(
                denoiser.bundle, noise_variance, saturation_adu=scoring.saturation_adu
            )
        for done, index in enumerate(chosen, start=1):
            scoring.add(index)
            if on_progress is not None:
                on_progress(done, len(chosen))
        told = [*truths.remarks(), *_other_light(scoring), *_saturation(scoring)]
        evaluation = _means(scoring, [*remarks, *told])
        if figures is not None:
            _draw(evaluation, scoring, truths, figures)
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
    truths: References,
) -> list[int]:
    """Return the frames to score: chosen, there, with a model and a truth that is there too."""
    wanted = range(len(stack)) if frames is None else sorted(set(frames))
    chosen = [
        index
        for index in wanted
        if stack.is_present(index)
        and truths.holds(index)
        and (models is None or models.denoises(stack.axes(index)))
    ]
    if not chosen:
        raise InferenceError(
            f"{stack.path}: no frames of the model's channel were chosen; choose at least one"
        )
    return chosen


def prepared(
    stack: Stack,
    model: Bundle | Path | str | Denoiser,
    noise_model: NoiseModel | None = None,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    force: bool = False,
) -> tuple[Denoiser, ChannelModels | None, NoiseModel | None, list[str]]:
    """Open a model for a stack, if it fits; a denoiser of one's own is taken as it is.

    Returns
    -------
    The denoiser; which channels it is for; the noise model, by default its own; and how the camera
    differs, where that was forced.
    """
    if not isinstance(model, Bundle | Path | str):
        return model, None, noise_model, []
    from ...calibration.noise_files import load_noise_model

    bundle = model if isinstance(model, Bundle) else open_bundle(model)
    models = _of_its_channel(stack, bundle)
    remarks = models.require_match(stack, force=force)
    if noise_model is None and bundle.noise_model_path is not None:
        noise_model = load_noise_model(bundle.noise_model_path)
    denoiser = open_denoiser(
        bundle,
        stack.frame_shape,
        provider=provider,
        precision=precision,
        threads=threads or all_cores(),
        region=recorded_camera(stack).roi,
    )
    return denoiser, models, noise_model, remarks


def _means(scoring: Scoring, remarks: list[str]) -> Evaluation:
    return Evaluation(
        frames=tuple(scoring.scores),
        variance_ratio=scoring.variance_ratio,
        residual_correlation=scoring.residual_correlation,
        uncertainty_z_std=scoring.uncertainty_z_std,
        ms_per_frame=scoring.ms_per_frame,
        gaussian=scoring.gaussian.best(),
        running_mean=scoring.running_mean.best(),
        provider=scoring.provider,
        remarks=tuple(remarks),
        uncertainty_z_by=scoring.z_by_class.result(),
        uncertainty_coverage=scoring.coverage.result(),
        saturated_share=scoring.saturated_share,
        verdict=judged(list(scoring.judgements.values())) if scoring.judge else None,
    )


def saturation_of(stack: Stack) -> float:
    """Return where the recording's camera clips, ADU; infinity where it does not say."""
    depth = recorded_camera(stack).bit_depth
    return float(np.inf) if depth is None else float(2**depth - 1)


def _other_light(scoring: Scoring) -> list[str]:
    """Say of how many frames the truth is of another brightness altogether."""
    if not scoring.other_light:
        return []
    return [
        f"{len(scoring.other_light)} of {len(scoring.scores)} frames are brighter or darker than "
        f"all of their truth ({scoring.other_light[0]}), so that PSNR, SSIM and NRMSE say nothing "
        "about noise; give a truth of the same light in the camera's own units, or look at "
        "si_psnr_db"
    ]


def _saturation(scoring: Scoring) -> list[str]:
    """Say of which share of the pixels the light is not known, if of more than a few."""
    share = scoring.saturated_share
    if share < TOLD_SATURATION:
        return []
    return [
        f"{share:.0%} of the pixels are saturated, or of frames that hold one value: what light "
        "they saw is not known, and no score says whether the picture is right there; check light "
        "and exposure"
    ]


# --------------------------------------------------------------------------------- figures


def _draw(evaluation: Evaluation, scoring: Scoring, truths: References, folder: Path) -> None:
    from .error_maps import draw_error_maps

    by_quality = sorted(evaluation.frames, key=lambda scores: scores.psnr_db)
    chosen = {
        "worst": by_quality[0],
        "median": by_quality[len(by_quality) // 2],
        "best": by_quality[-1],
    }
    for name, scores in chosen.items():
        raw = scoring.denoise(scores.index)[0]
        truth = truths.of(scores.index, scoring.preceding_frames).signal
        draw_error_maps(
            folder / f"{name}_frame_{scores.index:04d}.png",
            raw=raw,
            denoised=scoring.estimate[0].astype(np.float64),
            truth=truth,
            places=scoring.judgements[scores.index].places
            if scores.index in scoring.judgements
            else (),
            title=f"frame {scores.index} ({name} of {len(by_quality)})",
        )
