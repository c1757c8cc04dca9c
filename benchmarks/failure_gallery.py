"""What failures look like: the gallery of `docs/failures.md`, one picture after the other.

    python benchmarks/failure_gallery.py [--out docs/failures.png]

A simulated field of nuclei and bright points before a calibrated camera, denoised by the model
that ships; then the same picture smoothed, with points that are not there, with points taken away;
and frames of a camera whose gain is twice the calibrated one, of three times the read noise, and
out of focus. Beside each its residual in units of the noise, and what the judge says that judges
while a microscope runs. Stored with the pictures: the sentence and its error against the truth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from verdict_specimens import CAMERAS, FloatImage, points_at_snr, truth_e

import quietscope as qs
from quietscope.acquisition.microscope.specimen import CameraLaw
from quietscope.inference.general.for_camera import general_bundle
from quietscope.inference.trust.judge import FrameJudge, Judgement
from quietscope.inference.trust.noise_variance import NoiseVariance

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "failure_gallery.json"
SPECIMEN, SCENE, FRAMES = "puncta", 3, 8
SHOWN = (slice(64, 192), slice(64, 192))
CAMERA = CAMERAS[SPECIMEN]
LIGHT_E = (0.0, 5.0, 30.0, 120.0, 500.0, 2000.0)


@dataclass(frozen=True)
class Case:
    """One failure: what is wrong, with the frames, or with the picture that is shown."""

    title: str
    camera: CameraLaw = CAMERA
    light: Callable[[FloatImage], FloatImage] = lambda image: image
    picture: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda image: image


def smoothed(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur a picture: calm, and without its small things."""
    return gaussian_filter(picture, 2.5).astype(np.float32)


def with_points(sign: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return what adds points that are not there, or takes some away."""
    truth = truth_e(SPECIMEN, SCENE, 0)
    points = points_at_snr(truth, CAMERA, np.random.default_rng(5), 40, 4.0)
    changed = np.float32(sign * CAMERA.gain_adu_per_e) * points.astype(np.float32)
    return lambda picture: picture + changed


CASES = {
    "right": Case("as it should be"),
    "oversmoothed": Case("oversmoothed", picture=smoothed),
    "hallucinated": Case("hallucinated: 40 points", picture=with_points(+1)),
    "lost": Case("lost: 40 points", picture=with_points(-1)),
    "gain": Case(
        "another gain (twice)", replace(CAMERA, gain_adu_per_e=2 * CAMERA.gain_adu_per_e)
    ),
    "read noise": Case("three times the read noise", replace(CAMERA, read_noise_e=7.5)),
    "focus": Case("out of focus", light=lambda image: gaussian_filter(image, 4)),
}


def seen(camera: CameraLaw, electrons: FloatImage, frames: int, seed: int) -> NDArray[np.uint16]:
    """Return frames of a scene as a camera sees it."""
    rng = np.random.default_rng(seed)
    shape = (frames, *electrons.shape)
    counted = rng.poisson(electrons, shape) + rng.normal(0, camera.read_noise_e, shape)
    pixels = camera.offset_adu + camera.gain_adu_per_e * counted
    return np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)


def calibrated() -> Any:
    """Return the noise model of the camera, from levels of light."""
    levels = [seen(CAMERA, np.full((64, 64), light), 30, seed=9) for light in LIGHT_E]
    return qs.calibrate(levels[1:], dark=levels[0]).noise_model


@dataclass(frozen=True)
class Found:
    """A case as it was shown and judged."""

    camera: NDArray[np.uint16]
    picture: NDArray[np.float32]
    residual: FloatImage
    judgement: Judgement
    error_adu: float

    @property
    def says(self) -> str:
        """What the judge says first."""
        findings = self.judgement.findings
        return findings[0].sentence if findings else "nothing is found"


def judged(case: Case, model: qs.Model, noise: Any) -> Found:
    """Denoise a case's frames, spoil the pictures, and judge them one after the other."""
    electrons = np.asarray(case.light(truth_e(SPECIMEN, SCENE, 0)), np.float64)
    frames = seen(case.camera, electrons, FRAMES, seed=1)
    estimates, scatters = model.denoise(frames, uncertainty=True)
    judge = FrameJudge.of_bundle(model.bundle, NoiseVariance(noise))
    for frame, estimate, scatter in zip(frames, estimates, scatters, strict=True):
        picture = case.picture(estimate)
        judgement = judge.add(frame, picture, scatter)
    truth = case.camera.offset_adu + case.camera.gain_adu_per_e * electrons
    residual = (frame - picture) / np.sqrt(noise.variance(np.maximum(picture, 0.0)))
    error = float(np.sqrt(((picture - truth) ** 2).mean()))
    return Found(frame, picture, residual, judgement, error)


def draw(found: dict[str, Found], out: Path) -> None:
    """Draw camera, picture and residual of each case."""
    figure = Figure(figsize=(2.1 * len(found), 6.9), layout="constrained")
    axes = figure.subplots(3, len(found))
    for column, (name, one) in enumerate(found.items()):
        low, high = np.percentile(one.picture[SHOWN], (1, 99.7))
        axes[0, column].imshow(one.camera[SHOWN], cmap="gray", vmin=low, vmax=high)
        axes[1, column].imshow(one.picture[SHOWN], cmap="gray", vmin=low, vmax=high)
        axes[2, column].imshow(one.residual[SHOWN], cmap="RdBu_r", vmin=-5, vmax=5)
        axes[0, column].set_title(CASES[name].title, fontsize=9)
    for row, label in enumerate(("camera", "picture", "removed, in units of the noise")):
        axes[row, 0].set_ylabel(label, fontsize=9)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
    figure.savefig(out, dpi=90)


def main() -> None:
    """Make the pictures, say what the judge says, store both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "failures.png")
    given = parser.parse_args()
    noise = calibrated()
    model = qs.load(general_bundle(noise, "uint16").path)
    found = {name: judged(case, model, noise) for name, case in CASES.items()}
    draw(found, given.out)
    rows = {
        name: {
            "cause": one.judgement.findings[0].cause if one.judgement.findings else None,
            "says": one.says,
            "error_adu": round(one.error_adu, 3),
            "residual_std": round(float(one.residual.std()), 3),
        }
        for name, one in found.items()
    }
    for name, row in rows.items():
        print(f"{name:14} error {row['error_adu']:6.2f} ADU, {row['says']}")
    if given.out.parent == ROOT / "docs":
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
