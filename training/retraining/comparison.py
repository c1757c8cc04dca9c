"""Two models side by side on held-out frames of recorded runs, without a clean image.

Owns what is measured; which model is better is decided by `gate`, and shown by `comparison_page`.
Neither model has a say in how it is judged: the noise that is split is that of a calibration which
none of them made, run by run (see `run_audit.yardstick`), and runs are judged one by one, since
ADU² of two cameras, or of two lamps, are no common measure.

Each frame's noise is split in two (`inference.evaluation.noise_splitting`): a model denoises one
part and is scored against the other, whose noise it never saw. The score is an unbiased estimate
of the true squared error, whatever the algorithm, and it includes the posterior step. Most of its
noise is what was drawn: where frames are small and few, each is split several times. The same
residual, estimate less the unseen part, holds the rest: its mean by brightness is the bias, its
spectrum less that of the noise is the spectrum of the error. Where pixels share noise, the split
noise is drawn as it is shared in the run: white noise would favour a model that leaves it in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...calibration.noise_correlation import NoiseCorrelation, correlation_in
from ...calibration.noise_model import FloatArray, NoiseModel
from ...inference.bundle import Bundle
from ...inference.evaluation.noise_splitting import (
    ALPHA,
    KEPT_SHARE,
    Split,
    counts_photons,
    errors_of,
    split,
)
from ...inference.observation_reader import ObservationReader
from ...inference.provenance import recorded_camera
from ...inference.runtime.camera_pixels import CameraPixels
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ...inference.side_inputs import other_channel_numbers
from ...inference.trust import lag_one_correlation
from ...storage.stack import Stack
from ..data.resident_frames import held_out_frames
from ..data.side_inputs import channel_number, one_channel

HELD_OUT_FRAMES = 8
"""Of each run."""
SPLITS = 4
"""Of each frame: a gain is then known as well as from two and a half times the frames."""
SPLIT_PIXELS = 2**23
"""Of a run, all splits together: where frames are large they say enough split once."""
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
BRIGHTNESS_CLASSES = 5
"""Equally many pixels each, by the brightness that the model was shown."""
BANDS = 6
"""Rings of spatial frequency, equally wide; the last reaches to the corners."""

DRAWN_FIELDS = 4
"""Of noise that pixels share: its power in a ring is then known far better than a frame's."""

Yardstick = Callable[[Stack], NoiseModel]


@dataclass(frozen=True, slots=True, eq=False)
class ModelMeasures:
    """How one model did on one run, besides its squared error; a row for each frame.

    Attributes
    ----------
    bias
        (N, BRIGHTNESS_CLASSES) mean of estimate − signal over the standard deviation of the
        camera's noise.
    bands
        (N, BANDS) power of the error by spatial frequency, ADU².
    stated_adu2
        (N,) mean variance that the model states for its estimate, ADU².
    explained
        (N,) variance that was to be expected in what the model took away, over that found there; 1
        where it was noise and nothing else.
    correlation
        (N,) of neighbouring pixels in what it took away, less that of the run's noise; 0 where it
        was noise and nothing else.
    seconds
        (N,) in the denoiser.
    """

    bias: NDArray[np.float64]
    bands: NDArray[np.float64]
    stated_adu2: NDArray[np.float64]
    explained: NDArray[np.float64]
    correlation: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @property
    def ms_per_frame(self) -> float:
        """Time of the quickest frame: others may have been interrupted."""
        return 1e3 * float(self.seconds.min())


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
        blocks of held-out frames, frame by frame.
    frames
        How many frames that were.
    measures
        Of candidate and model in use; None where only errors are known.
    """

    path: str
    old: bool
    errors: NDArray[np.float64]
    frames: int
    measures: tuple[ModelMeasures, ModelMeasures] | None = None

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

    def by_frame(self) -> NDArray[np.float64]:
        """Return the errors as (frames, blocks, 3)."""
        return self.errors.reshape(self.frames, -1, 3)

    def z(self, model: int) -> float | None:
        """Return the error of a model over what it states itself: 1 where it is honest."""
        if self.measures is None:
            return None
        stated = float(self.measures[model].stated_adu2.mean())
        found = float(self.means[model])
        return float(np.sqrt(found / stated)) if found > 0 and stated > 0 else None

    def why_impossible(self) -> str | None:
        """Return what is wrong with the scores as such, None if nothing is."""
        if not np.isfinite(self.errors).all():
            return "a score is not a number"
        if (self.means < -SURE * self.uncertainties - LEAST_GAIN * abs(self.means[2])).any():
            return "a squared error came out below zero: the noise is not what it is taken for"
        if self.means[0] > self.means[2]:
            return "the candidate is no better than the raw frames"
        return None


def compare(
    candidate: Bundle,
    current: Bundle,
    stacks: Sequence[Stack],
    yardstick: Yardstick,
    *,
    channel: str | None = None,
    is_old: Callable[[Stack], bool] | None = None,
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
    is_old
        Tells of a run (of the channel alone) whether the model in use has learned from it; None
        goes by the places that its manifest names.
    seed
        Of the split.

    Raises
    ------
    QuietscopeError
        If a model does not take such frames, or a run's noise is not known.
    """
    is_old = is_old or _by_manifest(current)
    shape, region = stacks[0].frame_shape, recorded_camera(stacks[0]).roi
    rng = np.random.default_rng(seed)
    with ExitStack() as opened:
        denoisers = [
            opened.enter_context(OnnxDenoiser(bundle, shape, provider="cpu", region=region))
            for bundle in (candidate, current)
        ]
        return [_score(stack, channel, is_old, yardstick, denoisers, rng) for stack in stacks]


def _by_manifest(current: Bundle) -> Callable[[Stack], bool]:
    learned = {part.path for part in current.manifest.training.stacks}
    return lambda own: str(own.path) in learned


def _score(
    whole: Stack,
    channel: str | None,
    is_old: Callable[[Stack], bool],
    yardstick: Yardstick,
    denoisers: Sequence[OnnxDenoiser],
    rng: np.random.Generator,
) -> RunScore:
    own = one_channel(whole, channel)
    noise = _Noise.of(own, yardstick(own))
    frames = list(_frames(whole, channel, noise, denoisers, rng))
    return RunScore(
        path=str(whole.path),
        old=is_old(own),
        errors=np.concatenate([frame.errors for frame in frames]),
        frames=len(frames),
        measures=(
            _gathered([f.models[0] for f in frames]),
            _gathered([f.models[1] for f in frames]),
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Noise:
    """The noise of a run: how much there is, and what pixels share of it (None for nothing)."""

    model: NoiseModel
    correlation: NoiseCorrelation | None

    @classmethod
    def of(cls, own: Stack, model: NoiseModel) -> _Noise:
        found = correlation_in([own])
        return cls(model, found if found.is_correlated else None)

    def of_neighbours(self) -> float:
        """Return the mean correlation with the next pixel along both axes."""
        if self.correlation is None:
            return 0.0
        shared = (self.correlation.along("x") + self.correlation.along("y")) / 2
        return shared + sum(self.correlation.line_shares()) / 2

    def drawn(self, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray | None:
        """Return noise of unit variance as pixels share it; None where they share nothing."""
        return None if self.correlation is None else self.correlation.drawn(shape, rng)

    def by_ring(self, shape: tuple[int, int]) -> FloatArray:
        """Return the power of unit noise in rings of spatial frequency, (BANDS,)."""
        if self.correlation is None:
            return np.ones(BANDS)
        rng = np.random.default_rng(0)
        fields = (self.correlation.drawn(shape, rng) for _ in range(DRAWN_FIELDS))
        power: FloatArray = np.mean([by_ring(field) for field in fields], axis=0)
        return power


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """What one frame says: (blocks, 3) errors, and a row of measures for each model."""

    errors: NDArray[np.float64]
    models: tuple[ModelMeasures, ...]


def _mean(of_splits: Sequence[_Frame]) -> _Frame:
    """Return what the splits of one frame say together."""
    models = []
    for of_model in zip(*(one.models for one in of_splits), strict=True):
        rows = {
            name: np.mean([getattr(one, name) for one in of_model], axis=0)
            for name in ModelMeasures.__dataclass_fields__
        }
        quickest = np.min([one.seconds for one in of_model], axis=0)
        models.append(ModelMeasures(**{**rows, "seconds": quickest}))
    return _Frame(np.mean([one.errors for one in of_splits], axis=0), tuple(models))


def _gathered(rows: Sequence[ModelMeasures]) -> ModelMeasures:
    return ModelMeasures(
        **{
            name: np.concatenate([getattr(row, name) for row in rows])
            for name in ModelMeasures.__dataclass_fields__
        }
    )


def _frames(
    whole: Stack,
    channel: str | None,
    noise: _Noise,
    denoisers: Sequence[OnnxDenoiser],
    rng: np.random.Generator,
) -> Iterator[_Frame]:
    """Yield what each held-out frame says of each denoiser and of the raw frame."""
    manifests = [denoiser.bundle.manifest for denoiser in denoisers]
    context = max(manifest.context_frames for manifest in manifests)
    around = max(manifest.planes for manifest in manifests)
    other_channels = list(dict.fromkeys(name for m in manifests for name in m.other_channels))
    inputs = [
        [
            *range(1 + m.context_frames),
            *range(1 + context, 1 + context + 2 * m.planes),
            *(1 + context + 2 * around + other_channels.index(name) for name in m.other_channels),
        ]
        for m in manifests
    ]
    # If one of them knows the pixels of the camera, both are measured by sound pixels.
    pixels = next(
        (known for d in denoisers if (known := CameraPixels.of(d, noise.model)).maps is not None),
        CameraPixels(),
    )
    numbers = other_channel_numbers(whole, other_channels, what="the model")
    reader = ObservationReader(whole, whole.dtype)
    out = np.empty((2, *whole.frame_shape), dtype=np.float32)
    ring_power = noise.by_ring(whole.frame_shape)

    def scored(observations: NDArray[np.generic]) -> _Frame:
        part = split_by(observations, noise, pixels, rng)
        raw = pixels.corrected(part.seen[0].astype(np.float64))
        errors, models = [], []
        for denoiser, planes in zip(denoisers, inputs, strict=True):
            began = time.perf_counter()
            denoiser.denoise(part.seen[planes], out)
            seconds = time.perf_counter() - began
            errors.append(errors_of(out[0], part))
            models.append(_measured(out, raw, part, noise, ring_power, seconds))
        errors.append(errors_of(raw, part))
        return _Frame(np.stack([_blocks(error) for error in errors], axis=1), tuple(models))

    chosen = chosen_frames(whole, channel)
    splits = SPLIT_PIXELS // (len(chosen) * math.prod(whole.frame_shape))
    for index in chosen:
        observations = reader.read(index, context, numbers, around)
        yield _mean([scored(observations) for _ in range(min(max(splits, 1), SPLITS))])


def _measured(
    out: NDArray[np.float32],
    raw: NDArray[np.float64],
    part: Split,
    noise: _Noise,
    ring_power: FloatArray,
    seconds: float,
) -> ModelMeasures:
    estimate, stated = (plane.astype(np.float64) * part.brightness for plane in out)
    residual = estimate - part.compared
    removed = raw - out[0]
    return ModelMeasures(
        bias=_bias(residual, raw, part)[np.newaxis],
        bands=(by_ring(residual) - part.noise_variance.mean() * ring_power)[np.newaxis],
        stated_adu2=np.array([(stated**2).mean()]),
        explained=np.array([_explained(removed, out[1], part)]),
        correlation=np.array([(lag_one_correlation(removed) or 0.0) - noise.of_neighbours()]),
        seconds=np.array([seconds]),
    )


def _explained(removed: NDArray[np.float64], stated: NDArray[np.float32], part: Split) -> float:
    found = float((removed**2).mean())
    return (_seen_noise(part) - float((stated**2).mean())) / found if found > 0 else np.nan


def _seen_noise(part: Split) -> float:
    """Return the mean variance of the noise that the models were shown, ADU²."""
    seen = KEPT_SHARE if part.brightness != 1.0 else 1 + ALPHA**2
    return seen * _camera_share(part) * float(part.noise_variance.mean())


def _camera_share(part: Split) -> float:
    """Return the variance of the camera's own noise over that of the compared part."""
    return 1 - KEPT_SHARE if part.brightness != 1.0 else 1 / (1 + 1 / ALPHA**2)


def _bias(
    residual: NDArray[np.float64], raw: NDArray[np.float64], part: Split
) -> NDArray[np.float64]:
    """Return the mean residual in each class of brightness, in units of the camera's noise.

    Classes are made from what the model was shown, of which the compared part is independent: for
    a posterior mean each of them has none.
    """
    shown = gaussian_filter(raw, NEUTRAL_SIGMA_PX).ravel()
    order = np.argsort(shown, kind="stable")
    noise = np.sqrt(_camera_share(part) * part.noise_variance).ravel()
    flat = residual.ravel()
    return np.array(
        [flat[of].mean() / noise[of].mean() for of in np.array_split(order, BRIGHTNESS_CLASSES)]
    )


def by_ring(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power of a picture (Y, X) in rings of spatial frequency, (BANDS,).

    That of white noise is its variance in every ring.
    """
    power = np.abs(np.fft.fft2(picture - picture.mean())) ** 2 / picture.size
    height, width = picture.shape
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    ring = np.minimum((radius * 2 * BANDS).astype(int), BANDS - 1)
    return np.bincount(ring.ravel(), power.ravel(), BANDS) / np.bincount(
        ring.ravel(), minlength=BANDS
    )


def split_by(
    observations: NDArray[np.generic],
    noise: _Noise,
    pixels: CameraPixels,
    rng: np.random.Generator,
) -> Split:
    """Return observations split by a run's noise, at the brightness that a neutral blur says."""
    newest = observations[0].astype(np.float64)
    signal = gaussian_filter(newest, NEUTRAL_SIGMA_PX)
    variance = noise.model.variance(signal) + pixels.own_variance_adu2()
    drawn = noise.drawn((newest.shape[0], newest.shape[1]), rng)
    part = split(
        observations,
        np.maximum(variance, LEAST_NOISE_ADU2),
        rng,
        unit_noise=drawn,
        photon_counts=drawn is None and counts_photons(noise.model, float(signal.mean())),
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


def chosen_frames(whole: Stack, channel: str | None) -> list[int]:
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
