"""Put the verdict to the test: simulated specimens, and everything that goes wrong with a picture.

    python benchmarks/verdict_regimes.py --part train|judge|cost|all [--only REGIME] [--no-store]

Three specimens, each before its own camera (`verdict_specimens`), a small lattice network trained
for each, calibrated cameras. Every run is up to 20 frames of a scene of its own, whose seed
neither training nor the tuning of any limit has seen. A right picture has to stay green; every
other one has to turn not green within the 20 frames, and the first sentence has to name the cause.
Beside it stands the competitor: the four averages over a frame that were judged before.

Stored: benchmarks/results/verdict_regimes.json, its ROC curves (over runs, by the evidence of the
first finding) as verdict_regimes.png. Models are kept in --cache, so that parts can be run one by
one; a part that was interrupted goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from verdict_specimens import (
    CAMERAS,
    SHAPE,
    Exposure,
    FloatImage,
    lines_at_snr,
    points_at_snr,
    truth_e,
)

from quietscope.acquisition.preview.model import FigureAverage, Grade, trust_readings, verdict
from quietscope.calibration.noise_files import load_noise_model
from quietscope.inference.bundle import Bundle, open_bundle
from quietscope.inference.evaluation.metrics import psnr_db
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.trust import NoiseVariance, TrustFigures
from quietscope.inference.trust.judge import FrameJudge

RESULTS = Path(__file__).parent / "results"
FRAMES = 20
RIGHT_RUNS, RUNS = 102, 102
"""Over the three specimens together; 102 runs of 20 frames are 2,040 frames."""
FIRST_SCENE = 50_000
TRAINING_SCENES = range(1000, 1008)
STEPS = 1200
POINTS, POINT_SNR = 40, 3.0
LINES, LINE_SNR = 6, 2.0
BLUR_DB = 1.0
DEFOCUS_PX = 2.5

CAUSES = {
    "erased points": {"lost"},
    "invented points": {"invented"},
    "erased lines": {"lost"},
    "invented lines": {"invented"},
    "blur of 1 dB": {"smoothed", "lost", "sharpened"},
    "Gaussian filter instead": {"smoothed", "removed_too_much", "noise_left", "sharpened", "lost"},
    "gain doubled": {"gain"},
    "three times the light": {"brightness"},
    "row noise": {"lines"},
    "defocus": {"focus"},
    "other structure": {"structure"},
    "stale noise model": {"gain", "read_noise"},
}
"""Which first finding names the cause of each regime."""
OTHER = {"cells": "puncta", "puncta": "filaments", "filaments": "puncta"}


@dataclass(frozen=True)
class Shown:
    """A frame and what is shown as its picture."""

    raw: NDArray[np.uint16]
    estimate: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


class Subject:
    """A specimen before its camera, with the model that was trained on it."""

    def __init__(self, name: str, cache: Path) -> None:
        self.name, self.camera = name, CAMERAS[name]
        self.bundle: Bundle = open_bundle(cache / name)
        self.noise = NoiseVariance(load_noise_model(self.bundle.noise_model_path))
        self.denoiser = OnnxDenoiser(self.bundle, SHAPE, provider="cpu", threads=1)
        self._blur_px: dict[str, float] = {}

    def denoise(self, raw: NDArray[np.uint16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the picture and its uncertainty."""
        out = np.empty((2, *raw.shape), np.float32)
        self.denoiser.denoise(raw[None], out)
        return out[0], out[1]

    def shown(self, raw: NDArray[np.uint16]) -> Shown:
        """Return a frame as the model shows it."""
        return Shown(raw, *self.denoise(raw))

    def blur_px(self) -> float:
        """Return the width of the blur of the picture that costs `BLUR_DB`."""
        if "blur" not in self._blur_px:
            self._blur_px["blur"] = self._bisect()
        return self._blur_px["blur"]

    def _bisect(self) -> float:
        pairs = []
        for scene in range(3000, 3004):
            truth = truth_e(self.name, scene, 0)
            raw = Exposure(self.camera).take(truth, np.random.default_rng((8, scene)))
            pairs.append((self.denoise(raw)[0], self.camera.signal(truth)))

        def loss(width: float) -> float:
            return float(
                np.mean([psnr_db(e, t) - psnr_db(gaussian_filter(e, width), t) for e, t in pairs])
            )

        low, high = 0.2, 4.0
        for _ in range(18):
            middle = (low + high) / 2
            low, high = (middle, high) if loss(middle) < BLUR_DB else (low, middle)
        return high

    def filter_px(self) -> float:
        """Return the width of the Gaussian filter that is best on this specimen."""
        if "filter" not in self._blur_px:
            truth = truth_e(self.name, 3000, 0)
            raw = Exposure(self.camera).take(truth, np.random.default_rng(8)).astype(float)
            signal = self.camera.signal(truth)
            widths = np.arange(0.6, 2.5, 0.1)
            errors = [np.mean((gaussian_filter(raw, w) - signal) ** 2) for w in widths]
            self._blur_px["filter"] = float(widths[int(np.argmin(errors))])
        return self._blur_px["filter"]


# ------------------------------------------------------------------------------- regimes

Run = Callable[[Subject, int], Iterator[Shown]]


def _frames(
    subject: Subject, scene: int, **faults: float
) -> Iterator[tuple[FloatImage, Any, Any]]:
    exposure = Exposure(subject.camera, **faults)
    for frame in range(FRAMES):
        rng = np.random.default_rng((9, scene, frame))
        yield truth_e(subject.name, scene, frame), exposure, rng


def right(subject: Subject, scene: int) -> Iterator[Shown]:
    """Nothing is wrong."""
    for truth, exposure, rng in _frames(subject, scene):
        yield subject.shown(exposure.take(truth, rng))


def _changed(added: Callable[..., FloatImage], *, erased: bool) -> Run:
    def run(subject: Subject, scene: int) -> Iterator[Shown]:
        extra: FloatImage | None = None
        for truth, exposure, rng in _frames(subject, scene):
            if extra is None:
                extra = added(truth, subject.camera, np.random.default_rng((11, scene)))
            without = exposure.take(truth, rng)
            estimate, uncertainty = subject.denoise(without)
            gain = subject.camera.gain_adu_per_e
            if erased:
                more = np.rint(gain * rng.poisson(extra)).astype(np.uint16)
                yield Shown(without + more, estimate, uncertainty)
            else:
                invented = estimate + np.float32(gain) * extra.astype(np.float32)
                yield Shown(without, invented, uncertainty)

    return run


def _points(truth: FloatImage, camera: Any, rng: np.random.Generator) -> FloatImage:
    return points_at_snr(truth, camera, rng, POINTS, POINT_SNR)


def _lines(truth: FloatImage, camera: Any, rng: np.random.Generator) -> FloatImage:
    return lines_at_snr(truth, camera, rng, LINES, LINE_SNR)


def blurred(subject: Subject, scene: int) -> Iterator[Shown]:
    """Blur the picture by as much as costs `BLUR_DB`."""
    for truth, exposure, rng in _frames(subject, scene):
        shown = subject.shown(exposure.take(truth, rng))
        estimate = gaussian_filter(shown.estimate, subject.blur_px())
        yield Shown(shown.raw, estimate, shown.uncertainty)


def filtered(subject: Subject, scene: int) -> Iterator[Shown]:
    """Show a Gaussian filter's picture with its own uncertainty."""
    width = subject.filter_px()
    share = np.float32(1 / np.sqrt(4 * np.pi * width**2))
    for truth, exposure, rng in _frames(subject, scene):
        raw = exposure.take(truth, rng)
        estimate = gaussian_filter(raw.astype(np.float32), width)
        yield Shown(raw, estimate, share * subject.noise.deviation(estimate))


def _fault(**faults: float) -> Run:
    def run(subject: Subject, scene: int) -> Iterator[Shown]:
        for truth, exposure, rng in _frames(subject, scene, **faults):
            yield subject.shown(exposure.take(truth, rng))

    return run


def row_noise(subject: Subject, scene: int) -> Iterator[Shown]:
    """Let rows share a noise of 0.3 of that in the dark."""
    camera = subject.camera
    dark = camera.gain_adu_per_e * camera.read_noise_e
    yield from _fault(row_adu=0.3 * dark)(subject, scene)


def brighter(subject: Subject, scene: int) -> Iterator[Shown]:
    """Three times the light."""
    for truth, exposure, rng in _frames(subject, scene):
        yield subject.shown(exposure.take(3 * truth, rng))


def defocused(subject: Subject, scene: int) -> Iterator[Shown]:
    """Blur the specimen itself."""
    for truth, exposure, rng in _frames(subject, scene):
        yield subject.shown(exposure.take(gaussian_filter(truth, DEFOCUS_PX), rng))


def other_structure(subject: Subject, scene: int) -> Iterator[Shown]:
    """Another specimen at the same mean brightness."""
    other = OTHER[subject.name]
    for frame, (truth, exposure, rng) in enumerate(_frames(subject, scene)):
        strange = truth_e(other, scene, frame)
        yield subject.shown(exposure.take(strange * truth.mean() / strange.mean(), rng))


REGIMES: dict[str, Run] = {
    "right": right,
    "erased points": _changed(_points, erased=True),
    "invented points": _changed(_points, erased=False),
    "erased lines": _changed(_lines, erased=True),
    "invented lines": _changed(_lines, erased=False),
    "blur of 1 dB": blurred,
    "Gaussian filter instead": filtered,
    "gain doubled": _fault(gain=2.0),
    "three times the light": brighter,
    "row noise": row_noise,
    "defocus": defocused,
    "other structure": other_structure,
    "stale noise model": _fault(gain=1.2, read=1.3),
}


# ------------------------------------------------------------------------------- judging


class Before:
    """The competitor: the averages over a frame, by the limits that were set by hand."""

    def __init__(self, subject: Subject) -> None:
        self._noise = subject.noise
        self._average = FigureAverage()

    def not_green(self, shown: Shown) -> bool:
        figures = TrustFigures.measure(shown.raw, shown.estimate, shown.uncertainty, self._noise)
        self._average.add(figures.result(), 0.5)
        span = float(np.ptp(np.quantile(shown.estimate, (0.003, 0.998))))
        readings = trust_readings(self._average.figures, span)[:2]
        return verdict(readings).grade >= Grade.CARE


def judge_run(subject: Subject, regime: str, scene: int, *, every_frame: bool) -> dict[str, Any]:
    """Judge up to `FRAMES` frames; stop at the first that is not green unless all are wanted."""
    judge = FrameJudge.of_bundle(subject.bundle, subject.noise, saturation_adu=65535.0)
    before = Before(subject)
    not_green, first, cause, before_not_green, score = 0, None, None, 0, 0.0
    for frame, shown in enumerate(REGIMES[regime](subject, scene), start=1):
        judged = judge.add(shown.raw, shown.estimate, shown.uncertainty)
        before_not_green += before.not_green(shown)
        score = max(score, judged.score)
        if not judged.good:
            not_green += 1
            if first is None:
                first, cause = frame, judged.findings[0].cause
            if not every_frame:
                break
    return {
        "specimen": subject.name,
        "scene": scene,
        "frames": frame,
        "frames_not_green": not_green,
        "first_not_green": first,
        "cause": cause,
        "score": round(score, 4),
        "before_not_green": bool(before_not_green),
        "before_frames_not_green": int(before_not_green),
    }


def summary(regime: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Count."""
    turned = [run for run in runs if run["first_not_green"] is not None]
    frames = sum(run["frames"] for run in runs)
    named = sum(run["cause"] in CAUSES.get(regime, ()) for run in turned)
    causes: dict[str, int] = {}
    for run in turned:
        causes[run["cause"]] = causes.get(run["cause"], 0) + 1
    return {
        "runs": len(runs),
        "runs_not_green": len(turned),
        "cause_named": named,
        "causes": dict(sorted(causes.items(), key=lambda item: -item[1])),
        "median_frame_of_it": float(np.median([run["first_not_green"] for run in turned]))
        if turned
        else None,
        "frames": frames,
        "share_of_frames_green": 1 - sum(run["frames_not_green"] for run in runs) / frames,
        "before_runs_not_green": sum(run["before_not_green"] for run in runs),
        "before_share_of_frames_green": 1
        - sum(run["before_frames_not_green"] for run in runs) / frames,
    }
