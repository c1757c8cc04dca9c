"""Put the verdict to the test: simulated specimens, and everything that goes wrong with a picture.

    python benchmarks/verdict_regimes.py [--part train|judge|uncertainty|store]
        [--only REGIME] [--cache DIR] [--seconds S] [--before DIR]

Three specimens, each before its own camera (`verdict_specimens`), a small lattice network trained
for each, calibrated cameras. Every run is up to 20 frames of a scene of its own, whose seed
neither training nor the tuning of any limit has seen. A right picture has to stay green; every
other one has to turn not green within the 20 frames, and the first sentence has to name the cause.
Beside it stands the competitor, on the same frames: the averages over a frame that were judged
before, by fixed limits.

Stored: benchmarks/results/verdict_regimes.json, its ROC curves (over runs, by the evidence of the
first finding) as verdict_regimes.png. Models are kept in --cache, so that parts can be run one by
one; a part that was interrupted goes on where it stood. The stored runs were judged
in parts, with records made from eight frames of the training scenes: those of another specimen and
the last nine of a stale noise model after kinds of specimen came to be told apart by all features
together, the others before.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from verdict_specimens import (
    CAMERAS,
    SHAPE,
    Exposure,
    FloatImage,
    lines_at_snr,
    points_at_snr,
    truth_e,
)

from quietscope.acquisition.microscope.specimen import CameraLaw
from quietscope.acquisition.preview.model import FigureAverage, trust_readings, verdict
from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.noise_files import load_noise_model
from quietscope.inference.bundle import Bundle, open_bundle
from quietscope.inference.evaluation.conditional_z import ConditionalZ
from quietscope.inference.evaluation.metrics import psnr_db
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.trust import NoiseVariance, TrustFigures
from quietscope.inference.trust.judge import FrameJudge
from quietscope.inference.trust.verdict import Grade
from quietscope.storage.atomic_output import write_json
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

RESULTS = Path(__file__).parent / "results"
FRAMES = 20
RUNS = 102
"""Over the three specimens together; 102 runs of 20 frames are 2,040 frames."""
FEWEST_RUNS = 18
FIRST_SCENE = 50_000
TRAINING_SCENES = range(1000, 1008)
STEPS = 1200
POINTS, POINT_SNR = 40, 3.0
LINES, LINE_SNR = 6, 2.0
BLUR_DB = 1.0
DEFOCUS_PX = 2.5
UNCERTAINTY_SCENES, UNSEEN_SNR = 6, 6.0

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


def judge_run(subject: Subject, regime: str, scene: int) -> dict[str, Any]:
    """Judge up to `FRAMES` frames; of a wrong run no more than it takes."""
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
        if regime != "right" and first is not None:
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
    causes: dict[str, int] = {}
    for run in turned:
        causes[run["cause"]] = causes.get(run["cause"], 0) + 1
    found = {
        "runs": len(runs),
        "frames": frames,
        "runs_not_green": len(turned),
        "causes": dict(sorted(causes.items(), key=lambda item: -item[1])),
        "before_runs_not_green": sum(run["before_not_green"] for run in runs),
    }
    if regime == "right":
        for name in ("frames_not_green", "before_frames_not_green"):
            green = 1 - sum(run[name] for run in runs) / frames
            found[f"share_{name.replace('not_green', 'green')}"] = round(green, 5)
        return found
    first = [run["first_not_green"] for run in turned]
    found["cause_named"] = sum(run["cause"] in CAUSES[regime] for run in turned)
    found["median_frame_of_it"] = float(np.median(first)) if first else None
    return found


# ------------------------------------------------------------------------------- parts


def train_models(cache: Path) -> None:
    """Calibrate the cameras and train a small model for each specimen; those there are kept."""
    for name, camera in CAMERAS.items():
        if (cache / name).exists():
            continue
        began = time.monotonic()
        exposure, rng = Exposure(camera), np.random.default_rng(5)
        levels = [
            stack_from_array(
                np.stack([exposure.take(np.full((64, 64), light), rng) for _ in range(40)])
            )
            for light in (2.0, 6.0, 20.0, 60.0, 200.0, 600.0)
        ]
        dark = np.stack([exposure.take(np.zeros((64, 64)), rng) for _ in range(40)])
        calibrated = fit_camera(levels, dark=stack_from_array(dark))
        stacks = [
            stack_from_array(
                np.stack([exposure.take(truth_e(name, scene, 3 * f), rng) for f in range(8)])
            )
            for scene in TRAINING_SCENES
        ]
        options = TrainingOptions(preset="fast", steps=STEPS)
        result = train(stacks, cache / name, options, noise_model=calibrated.noise_model)
        assert result is not None
        print(f"{name}: {time.monotonic() - began:.0f} s, {result.verdict}", flush=True)


def judge_regimes(cache: Path, only: str | None, seconds: float) -> None:
    """Judge runs of every regime until the time is over; what was judged before is kept.

    Some of each at a time, so that what there is when it is over is as much of every one.
    """
    until = time.monotonic() + seconds
    subjects = [Subject(name, cache) for name in CAMERAS]
    for wanted in (*range(FEWEST_RUNS, RUNS, FEWEST_RUNS), RUNS):
        for number, regime in enumerate(REGIMES):
            if only is not None and only != regime:
                continue
            file = cache / f"runs {regime}.json"
            runs = json.loads(file.read_text()) if file.exists() else []
            while len(runs) < wanted and time.monotonic() < until:
                subject = subjects[len(runs) % len(subjects)]
                scene = FIRST_SCENE + 1000 * number + len(runs)
                runs.append(judge_run(subject, regime, scene))
                write_json(file, runs)
        print(f"{wanted} runs of each, or what time allowed", flush=True)


def judging_cost() -> dict[str, float]:
    """Time the judgement of a frame of 512 pixels squared beside a model's own time."""
    rng = np.random.default_rng(0)
    subject_truth = truth_e("filaments", FIRST_SCENE, 0, (512, 512))
    camera = CAMERAS["filaments"]
    raw = Exposure(camera).take(subject_truth, rng)
    estimate = camera.signal(subject_truth)
    noise = NoiseVariance(PoissonGaussian(camera))
    judge = FrameJudge(noise, None)
    uncertainty = np.full_like(estimate, 1.0)
    seconds = []
    for _ in range(30):
        began = time.perf_counter()
        judge.add(raw, estimate, uncertainty)
        seconds.append(time.perf_counter() - began)
    return {"judge_ms_512": 1e3 * float(np.median(seconds))}


class PoissonGaussian:
    """The camera's law itself, as a noise model's variance."""

    def __init__(self, camera: CameraLaw) -> None:
        self._camera = camera
        self.signal_range_adu = (camera.offset_adu, 4000.0)
        self.least_variance_adu2 = (camera.gain_adu_per_e * camera.read_noise_e) ** 2

    def variance(self, signal: Any) -> Any:
        """Return Var[observation | signal], ADU²."""
        above = np.maximum(np.asarray(signal, float) - self._camera.offset_adu, 0)
        return self._camera.gain_adu_per_e * above + self.least_variance_adu2


def denoising_ms(cache: Path) -> float:
    """Return what the model itself takes for a frame of 512 pixels squared, ms."""
    bundle = open_bundle(cache / "filaments")
    with OnnxDenoiser(bundle, (512, 512), provider="cpu") as denoiser:
        out, seconds = np.empty((2, 512, 512), np.float32), []
        raw = np.full((1, 512, 512), 300, np.uint16)
        for _ in range(20):
            began = time.perf_counter()
            denoiser.denoise(raw, out)
            seconds.append(time.perf_counter() - began)
    return 1e3 * float(np.median(seconds))


def uncertainty(cache: Path) -> dict[str, dict[str, float]]:
    """Return error over what is stated, by class of pixel, and at points never seen."""
    found = {}
    for name in CAMERAS:
        subject, by_class, points = Subject(name, cache), ConditionalZ(), _Points()
        for scene in range(FIRST_SCENE + 90_000, FIRST_SCENE + 90_000 + UNCERTAINTY_SCENES):
            rng = np.random.default_rng((12, scene))
            truth = truth_e(name, scene, 0)
            signal = subject.camera.signal(truth).astype(float)
            estimate, stated = subject.denoise(Exposure(subject.camera).take(truth, rng))
            by_class.add(estimate - signal, stated.astype(float) ** 2, signal)
            extra = points_at_snr(truth, subject.camera, rng, POINTS, UNSEEN_SNR)
            signal = subject.camera.signal(truth + extra).astype(float)
            raw = Exposure(subject.camera).take(truth + extra, rng)
            points.add(signal, extra * subject.camera.gain_adu_per_e, *subject.denoise(raw))
        found[name] = {**by_class.result(), **points.result()}
    return found


class _Points:
    """What becomes of points that were added: at their peaks."""

    def __init__(self) -> None:
        self._lost: list[float] = []
        self._z: list[float] = []

    def add(
        self,
        signal: FloatImage,
        extra_adu: FloatImage,
        estimate: NDArray[np.float32],
        stated: NDArray[np.float32],
    ) -> None:
        peaks = (extra_adu == maximum_filter(extra_adu, 5)) & (extra_adu > 0.5 * extra_adu.max())
        error = (estimate - signal)[peaks]
        self._lost += list(error / extra_adu[peaks])
        self._z += list(error / stated[peaks])

    def result(self) -> dict[str, float]:
        return {
            "unseen_points_bias": float(np.mean(self._lost)),
            "unseen_points_z": float(np.sqrt(np.mean(np.square(self._z)))),
        }


def roc(right: list[dict[str, Any]], wrong: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return false and true alarms of runs over all limits of the score."""
    limits = sorted({run["score"] for run in (*right, *wrong)}, reverse=True)
    return {
        "false": [float(np.mean([run["score"] >= v for run in right])) for v in limits],
        "true": [float(np.mean([run["score"] >= v for run in wrong])) for v in limits],
    }


def draw(curves: dict[str, dict[str, list[float]]], rows: dict[str, dict[str, Any]]) -> None:
    """Draw the ROC curves, and the competitor's points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5.5))
    before = rows["right"]["before_runs_not_green"] / rows["right"]["runs"]
    for name, curve in curves.items():
        (line,) = axes.plot([0, *curve["false"]], [0, *curve["true"]], label=name, lw=1.5)
        found = rows[name]["before_runs_not_green"] / rows[name]["runs"]
        axes.plot(before, found, "x", color=line.get_color())
    axes.set(
        xlabel="right runs of 20 frames called wrong",
        ylabel="wrong runs found",
        title="verdict by regime (crosses: the averages over a frame, judged by fixed limits)",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.title.set_fontsize(9)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / "verdict_regimes.png", dpi=110)


def store(cache: Path, before: Path | None) -> None:
    """Sum up all runs that there are, print and store."""
    runs = {
        regime: json.loads(file.read_text())
        for regime in REGIMES
        if (file := cache / f"runs {regime}.json").exists()
    }
    rows = {regime: summary(regime, found) for regime, found in runs.items()}
    curves = {
        regime: roc(runs["right"], found) for regime, found in runs.items() if regime != "right"
    }
    cost = judging_cost() | {"model_ms_512": denoising_ms(cache)}
    for regime, row in rows.items():
        print(regime, row)
    print(cost)
    write_json(
        RESULTS / "verdict_regimes.json",
        {
            "frames_per_run": FRAMES,
            "points": {"count": POINTS, "peak_snr": POINT_SNR},
            "lines": {"count": LINES, "peak_snr": LINE_SNR, "length_px": 40},
            "blur_db": BLUR_DB,
            "defocus_px": DEFOCUS_PX,
            "regimes": rows,
            "cost": cost,
            "uncertainty_z": uncertainty(cache),
            "uncertainty_z_before": None if before is None else uncertainty(before),
            "roc": curves,
        },
    )
    draw(curves, rows)


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--part", choices=("train", "judge", "uncertainty", "store", "all"), default="all"
    )
    parser.add_argument("--only", choices=tuple(REGIMES))
    parser.add_argument("--cache", type=Path, default=Path("verdict_models"))
    parser.add_argument("--seconds", type=float, default=1e9, help="of the part judge")
    parser.add_argument("--before", type=Path, help="models of before, for the part store")
    asked = parser.parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    if asked.part in ("train", "all"):
        train_models(asked.cache)
    if asked.part in ("judge", "all"):
        judge_regimes(asked.cache, asked.only, asked.seconds)
    if asked.part == "uncertainty":
        for name, classes in uncertainty(asked.cache).items():
            print(name, {key: round(value, 3) for key, value in classes.items()})
    if asked.part in ("store", "all"):
        store(asked.cache, asked.before)


if __name__ == "__main__":
    main()
