"""Whether a candidate takes the place of the model in use: judged on held-out frames of each run.

Owns the comparison and the verdict. Neither model has a say in how it is judged: the noise that is
split is that of a calibration which none of them made, run by run (see `run_audit.yardstick`), and
runs are judged one by one, since ADU² of two cameras, or of two lamps, are no common measure.

Frames need no clean image. Each frame's noise is split in two
(`inference.evaluation.noise_splitting`): a model denoises one part and is scored against the
other, whose noise it never saw. The score is an unbiased estimate of the true squared error,
whatever the algorithm, and it includes the posterior step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...calibration.noise_model import NoiseModel
from ...inference.bundle import Bundle
from ...inference.evaluation.noise_splitting import Split, counts_photons, errors_of, split
from ...inference.observation_reader import ObservationReader
from ...inference.provenance import recorded_camera
from ...inference.runtime.camera_pixels import CameraPixels
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ...inference.side_inputs import other_channel_numbers
from ...storage.stack import Stack
from ..data.resident_frames import held_out_frames
from ..data.side_inputs import channel_number, one_channel

HELD_OUT_FRAMES = 8
"""Of each run."""
BLOCKS = 4
"""Along each edge of a frame: 16 places of a frame are scored apart, so that even one frame says
how sure its score is."""
LEAST_GAIN = 0.002
"""Relative gain that is worth a change: 0.2 % of the error, and beyond chance."""
SURE = 2.0
"""Standard errors."""
NEUTRAL_SIGMA_PX = 1.25
"""Of the blur that says how bright a pixel is, and so how much noise is split."""
LEAST_NOISE_ADU2 = 1e-3

Yardstick = Callable[[Stack], NoiseModel]


@dataclass(frozen=True, slots=True, eq=False)
class RunScore:
    """How both models did on one run.

    Attributes
    ----------
    path
        Of the run.
    old
        Whether the model in use has learned from it.
    errors
        (N, 3) squared errors of candidate, model in use and the frames as they were, ADU², over
        blocks of held-out frames.
    frames
        How many frames that were.
    """

    path: str
    old: bool
    errors: NDArray[np.float64]
    frames: int

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean errors of candidate, model in use and raw, (3,) ADU²."""
        found: NDArray[np.float64] = self.errors.mean(axis=0)
        return found

    @property
    def uncertainties(self) -> NDArray[np.float64]:
        """Standard errors of the means, (3,) ADU²."""
        found: NDArray[np.float64] = self.errors.std(axis=0, ddof=1) / np.sqrt(len(self.errors))
        return found

    @property
    def gain(self) -> float:
        """By how much the candidate's error is less, ADU²."""
        return float(self.means[1] - self.means[0])

    @property
    def least_gain(self) -> float:
        """What a gain has to exceed to count, ADU²."""
        gains = self.errors[:, 1] - self.errors[:, 0]
        by_chance = float(SURE * gains.std(ddof=1) / np.sqrt(len(gains)))
        return max(by_chance, LEAST_GAIN * abs(float(self.means[1])))

    def why_impossible(self) -> str | None:
        """Return what is wrong with the scores as such, None if nothing is."""
        if not np.isfinite(self.errors).all():
            return "a score is not a number"
        if (self.means < -SURE * self.uncertainties - LEAST_GAIN * abs(self.means[2])).any():
            return "a squared error came out below zero: the noise is not what it is taken for"
        if self.means[0] > self.means[2]:
            return "the candidate is no better than the raw frames"
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the candidate takes the place of the model in use, why, and the figures."""

    promote: bool
    reason: str
    figures: dict[str, float | None]


def judge(scores: Sequence[RunScore]) -> Verdict:
    """Decide; each of these stops a candidate alone.

    Scores that cannot be; a loss on any run, old or new; no gain on the new runs beyond chance.
    """
    figures = _figures(scores)
    for score in scores:
        if (wrong := score.why_impossible()) is not None:
            return Verdict(False, f"{score.path}: {wrong}", figures)
    for score in scores:
        if score.gain < -score.least_gain:
            learned = "that the model in use has learned from" if score.old else "that is new"
            return Verdict(
                False,
                f"worse on {score.path}, {learned}: squared error {score.means[0]:.4g} ADU², "
                f"model in use {score.means[1]:.4g} ADU²",
                figures,
            )
    new = [score for score in scores if not score.old] or list(scores)
    better = [score for score in new if score.gain > score.least_gain]
    reason = (
        f"squared error on held-out frames {figures['candidate_mse_adu2']:.4g} ADU², model in use "
        f"{figures['current_mse_adu2']:.4g} ADU²; better on {len(better)} of {len(new)} new runs"
    )
    return Verdict(bool(better), reason, figures)


def _figures(scores: Sequence[RunScore]) -> dict[str, float | None]:
    new = [score for score in scores if not score.old] or list(scores)
    old = [score for score in scores if score.old]
    candidate, current, _ = np.mean([score.means for score in new], axis=0)
    known = candidate > 0 and current > 0
    return {
        "candidate_mse_adu2": float(candidate),
        "current_mse_adu2": float(current),
        "gain_adu2": float(current - candidate),
        "least_gain_adu2": float(np.mean([score.least_gain for score in new])),
        # An estimate of a small error can fall below zero by chance.
        "gain_db": float(10 * np.log10(current / candidate)) if known else None,
        "old_gain_adu2": float(np.mean([score.gain for score in old])) if old else None,
        "frames": float(sum(score.frames for score in scores)),
    }


def compare(
    candidate: Bundle,
    current: Bundle,
    stacks: Sequence[Stack],
    yardstick: Yardstick,
    *,
    channel: str | None = None,
    seed: int = 0,
) -> list[RunScore]:
    """Score two bundles on the same split noise of held-out frames of each run.

    Parameters
    ----------
    candidate, current
        The models.
    stacks
        Whole runs of one setting.
    yardstick
        Returns by whose noise a run (of the channel alone) is judged.
    channel
        Which the models denoise, where runs hold several.
    seed
        Of the split.

    Raises
    ------
    QuietscopeError
        If a model does not take such frames, or a run's noise is not known.
    """
    learned = {part.path for part in current.manifest.training.stacks}
    shape, region = stacks[0].frame_shape, recorded_camera(stacks[0]).roi
    rng = np.random.default_rng(seed)
    with ExitStack() as opened:
        denoisers = [
            opened.enter_context(OnnxDenoiser(bundle, shape, provider="cpu", region=region))
            for bundle in (candidate, current)
        ]
        return [_score(stack, channel, learned, yardstick, denoisers, rng) for stack in stacks]


def _score(
    whole: Stack,
    channel: str | None,
    learned: set[str],
    yardstick: Yardstick,
    denoisers: Sequence[OnnxDenoiser],
    rng: np.random.Generator,
) -> RunScore:
    own = one_channel(whole, channel)
    blocks = list(_errors(whole, channel, yardstick(own), denoisers, rng))
    return RunScore(
        path=str(whole.path),
        old=str(own.path) in learned,
        errors=np.concatenate(blocks),
        frames=len(blocks),
    )


def _errors(
    whole: Stack,
    channel: str | None,
    noise_model: NoiseModel,
    denoisers: Sequence[OnnxDenoiser],
    rng: np.random.Generator,
) -> Iterator[NDArray[np.float64]]:
    """Yield the errors of each denoiser and of the raw frame, (blocks, 3), frame by frame."""
    manifests = [denoiser.bundle.manifest for denoiser in denoisers]
    context = max(manifest.context_frames for manifest in manifests)
    other_channels = list(dict.fromkeys(name for m in manifests for name in m.other_channels))
    inputs = [
        [
            *range(1 + m.context_frames),
            *(1 + context + other_channels.index(name) for name in m.other_channels),
        ]
        for m in manifests
    ]
    # If one of them knows the pixels of the camera, both are measured by sound pixels.
    pixels = next(
        (known for d in denoisers if (known := CameraPixels.of(d, noise_model)).maps is not None),
        CameraPixels(),
    )
    numbers = other_channel_numbers(whole, other_channels, what="the model")
    reader = ObservationReader(whole, whole.dtype)
    out = np.empty((2, *whole.frame_shape), dtype=np.float32)
    for index in _chosen(whole, channel):
        observations = reader.read(index, context, numbers)
        part = _split(observations, noise_model, pixels, rng)
        errors = []
        for denoiser, planes in zip(denoisers, inputs, strict=True):
            denoiser.denoise(part.seen[planes], out)
            errors.append(errors_of(out[0], part))
        errors.append(errors_of(pixels.corrected(part.seen[0].astype(np.float64)), part))
        yield np.stack([_blocks(error) for error in errors], axis=1)


def _split(
    observations: NDArray[np.generic],
    noise_model: NoiseModel,
    pixels: CameraPixels,
    rng: np.random.Generator,
) -> Split:
    signal = gaussian_filter(observations[0].astype(np.float64), NEUTRAL_SIGMA_PX)
    variance = noise_model.variance(signal) + pixels.own_variance_adu2()
    part = split(
        observations,
        np.maximum(variance, LEAST_NOISE_ADU2),
        rng,
        photon_counts=counts_photons(noise_model, float(signal.mean())),
    )
    return replace(part, compared=pixels.corrected(part.compared))


def _blocks(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of (Y, X) over each of BLOCKS × BLOCKS blocks."""
    return np.array(
        [
            block.mean()
            for rows in np.array_split(errors, BLOCKS)
            for block in np.array_split(rows, BLOCKS, axis=1)
        ]
    )


def _chosen(whole: Stack, channel: str | None) -> list[int]:
    """Return held-out frames of a channel, evenly spread, as indices into the whole run."""
    own = one_channel(whole, channel)
    named = channel is not None and whole.sizes.get("channel", 1) > 1
    axes_of_it = (
        {"channel": channel_number(whole, channel or "") if named else 0}
        if "channel" in whole.sizes
        else {}
    )
    places = [
        whole.index({**own.axes(int(index)), **axes_of_it}) for index in held_out_frames(own)
    ]
    count = min(HELD_OUT_FRAMES, len(places))
    return [places[i] for i in np.linspace(0, len(places) - 1, count).astype(int)]
