"""What another channel and the camera's pixel maps bring, on simulated recordings.

Two channels of 60 and 5 photoelectrons at most, sharing their structure or not; and a sensor with
1 % hot pixels. PSNR of the estimate in dB, and the standard deviation of standardised errors.

    python benchmarks/training_other_channels_and_pixels.py [--steps 400]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np

from quietscope.calibration.fit_camera import fit_camera
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

SIDE, FRAMES, GAIN = 128, 40, 2.0
SCORED = range(0, FRAMES, 4)
Y, X = np.mgrid[:SIDE, :SIDE]


class Sensor:
    """Poisson photoelectrons, a gain, and an offset and a read noise for each pixel."""

    def __init__(self, hot_share: float, seed: int = 3) -> None:
        self.rng = np.random.default_rng(seed)
        shape = (SIDE, SIDE)
        self.hot = self.rng.random(shape) < hot_share
        uneven = float(hot_share > 0)
        self.offset = 100 + uneven * self.rng.normal(0, 1.5, shape)
        self.offset += self.hot * self.rng.uniform(10, 60, shape)
        self.read = np.where(self.hot, self.rng.uniform(20, 60, shape), 2.5)

    def expose(self, photoelectrons: np.ndarray) -> np.ndarray:
        electrons = self.rng.poisson(photoelectrons)
        noise = self.read * self.rng.standard_normal(electrons.shape)
        return np.clip(np.rint(self.offset + GAIN * electrons + noise), 0, 65535).astype(np.uint16)

    def noise_model(self):
        flat = np.ones((60, SIDE, SIDE))
        levels = [
            stack_from_array(self.expose(level * flat), path=f"level {level}")
            for level in (3, 10, 40, 160)
        ]
        dark = stack_from_array(self.expose(0 * flat), path="dark")
        return fit_camera(levels, dark=dark).noise_model


def structure(seed: int) -> np.ndarray:
    """Rods that drift, (T, Y, X), at most about 1."""
    rng = np.random.default_rng(seed)
    out = np.full((FRAMES, SIDE, SIDE), 0.1)
    for _ in range(25):
        (cy, cx), (vy, vx) = rng.uniform(0, SIDE, 2), rng.normal(0, 0.5, 2)
        size, angle = rng.uniform(1.5, 5), rng.uniform(0, np.pi)
        height = rng.uniform(0.4, 1)
        for t in range(FRAMES):
            v, u = Y - cy - vy * t, X - cx - vx * t
            along = v * np.cos(angle) + u * np.sin(angle)
            across = u * np.cos(angle) - v * np.sin(angle)
            out[t] += height * np.exp(-(along**2 / 18 + across**2 / 2) / size**2)
    return out


def scores(bundle, inputs: np.ndarray, truth: np.ndarray, where=None) -> dict[str, float]:
    """Score the frames `inputs` (T, 1 + C, Y, X)."""
    where = np.ones((SIDE, SIDE), bool) if where is None else where
    out = np.empty((2, SIDE, SIDE), np.float32)
    errors, standardised = [], []
    with OnnxDenoiser(bundle, (SIDE, SIDE), provider="cpu") as denoiser:
        for t in SCORED:
            denoiser.denoise(np.ascontiguousarray(inputs[t]), out)
            error = (out[0] - truth[t])[where]
            errors.append(float((error**2).mean()))
            standardised.append(error / out[1][where])
    return {
        "psnr_db": round(float(10 * np.log10(np.ptp(truth) ** 2 / np.mean(errors))), 2),
        "z_std": round(float(np.concatenate(standardised).std()), 2),
    }


def other_channels(options: TrainingOptions, folder: Path) -> dict[str, dict[str, float]]:
    sensor = Sensor(hot_share=0)
    noise_model = sensor.noise_model()
    dim = structure(1)
    found = {}
    for name, bright in (("shared structure", dim), ("other structure", structure(2))):
        pixels = np.stack([sensor.expose(60 * bright), sensor.expose(5 * dim)], axis=1)
        stack = dataclasses.replace(
            stack_from_array(pixels, path=name, axes=("time", "channel")),
            channel_names=("DAPI", "GFP"),
        )
        truth = noise_model.photon_transfer.offset_adu + GAIN * 5 * dim
        for other in ((), ("DAPI",)):
            label = f"{name}, {'with' if other else 'without'} the other channel"
            chosen = dataclasses.replace(options, other_channels=other)
            bundle = train(
                [stack], folder / label, chosen, noise_model=noise_model, channel="GFP"
            ).bundle
            found[label] = scores(bundle, pixels[:, ::-1][:, : 1 + len(other)], truth)
            print(label, found[label], flush=True)
    return found


def pixel_maps(options: TrainingOptions, folder: Path) -> dict[str, dict[str, float]]:
    sensor = Sensor(hot_share=0.01)
    noise_model = sensor.noise_model()
    scene = 60 * structure(1)
    pixels = sensor.expose(scene)
    truth = noise_model.photon_transfer.offset_adu + GAIN * scene
    found = {}
    for known in (False, True):
        bundle = train(
            [stack_from_array(pixels, path="sensor")],
            folder / f"maps {known}",
            dataclasses.replace(options, pixel_maps=known),
            noise_model=noise_model,
        ).bundle
        for label, where in (("all pixels", None), ("hot pixels", sensor.hot)):
            name = f"{'with' if known else 'without'} maps, {label}"
            found[name] = scores(bundle, pixels[:, np.newaxis], truth, where)
            print(name, found[name], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    options = TrainingOptions(preset="fast", steps=arguments.steps, batch=8)
    with tempfile.TemporaryDirectory() as folder:
        found = other_channels(options, Path(folder)) | pixel_maps(options, Path(folder))
    result = {"machine": "2 CPU cores", "steps": arguments.steps, "scores": found}
    print(json.dumps(result, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
