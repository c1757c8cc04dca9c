"""Preceding frames: what they gain where things hold still, what they cost where things flash.

A simulated scene with still filaments, drifting, dividing and blinking cells; one-frame flashes
only in the frames that are tested, never in those that are learned from. Prints one row per number
of preceding frames and writes them to `results/training_motion.json`.

    python benchmarks/training_motion.py --seconds 90 --context 0 2 4
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.stacks import Stack, stack_from_array
from quietscope.training.estimator import Estimator
from quietscope.training.options import TrainingOptions
from quietscope.training.recordings import load_recordings
from quietscope.training.train import fit

GAIN, OFFSET, READ = 2.0, 100.0, 1.5
EDGE = 256
LEARNED = 120
TESTED = range(200, 232)
FLASH_EVERY = 4
FLASH_ELECTRONS = 40.0
FLASH_SIGMA = 3.0


class Scene:
    """Photoelectrons per pixel of frame t, by region."""

    def __init__(self, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.y, self.x = np.mgrid[:EDGE, :EDGE].astype(np.float32)
        self.filaments = self._filaments(chance)
        self.texture = gaussian_filter(chance.normal(size=(EDGE, EDGE)), 2.0)
        self.texture /= self.texture.std()
        self.cells = [
            {
                "kind": kind,
                "y": chance.uniform(30, EDGE - 30),
                "x": chance.uniform(30, EDGE - 30),
                "vy": chance.normal(0, 0.6),
                "vx": chance.normal(0, 0.6),
                "radius": chance.uniform(9, 16),
                "phase": chance.uniform(0, 40),
            }
            for kind in ("drift",) * 5 + ("blink",) * 4 + ("divide",) * 2
        ]

    def _filaments(self, chance: np.random.Generator) -> np.ndarray:
        lines = np.zeros((EDGE, EDGE), np.float32)
        for _ in range(14):
            angle, y, x = chance.uniform(0, np.pi), *chance.uniform(0, EDGE, 2)
            for _ in range(700):
                angle += chance.normal(0, 0.03)
                y, x = y + 0.5 * np.sin(angle), x + 0.5 * np.cos(angle)
                if 0 <= y < EDGE and 0 <= x < EDGE:
                    lines[int(y), int(x)] += 1
        return 28 * gaussian_filter(lines, 1.2)

    def photoelectrons(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the image and the mask of what moves or blinks around t."""
        image = 2 + self.filaments
        moving = np.zeros((EDGE, EDGE), bool)
        for cell in self.cells:
            for y, x, radius, brightness in self._bodies(cell, t):
                shape = expit((radius - np.hypot(self.y - y, self.x - x)) / 1.2)
                texture = np.roll(self.texture, (round(y), round(x)), (0, 1))
                image = image + brightness * shape * (1 + 0.35 * texture).clip(0.1)
                moving |= np.hypot(self.y - y, self.x - x) < radius + 6
        return image, moving

    def _bodies(self, cell, t):
        y = _bounce(cell["y"] + cell["vy"] * t)
        x = _bounce(cell["x"] + cell["vx"] * t)
        if cell["kind"] == "drift":
            return [(y, x, cell["radius"], 18.0)]
        if cell["kind"] == "blink":
            on = (t + cell["phase"]) % 17 < 8
            return [(cell["y"], cell["x"], cell["radius"], 22.0 if on else 3.0)]
        apart = 14 * (0.5 - 0.5 * np.cos(2 * np.pi * (t + cell["phase"]) / 60))
        return [(y, x - apart / 2, 9.0, 16.0), (y, x + apart / 2, 9.0, 16.0)]


def _bounce(place: float) -> float:
    span = EDGE - 60
    return 30 + abs((place - 30) % (2 * span) - span)


def camera(electrons: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    noisy = GAIN * (electrons + READ * chance.standard_normal(electrons.shape)) + OFFSET
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)


def flash_at(number: int, chance: np.random.Generator) -> tuple[int, int]:
    y, x = chance.integers(24, EDGE - 24, 2)
    return int(y), int(x)


def flash(place: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[:EDGE, :EDGE]
    squared = (y - place[0]) ** 2 + (x - place[1]) ** 2
    return FLASH_ELECTRONS * np.exp(-squared / (2 * FLASH_SIGMA**2))


class Tested:
    """Frames without and with flashes that share every other photon and electron."""

    def __init__(self, scene: Scene, context: int, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.context = context
        times = range(TESTED[0] - context, TESTED[-1] + 2)
        self.truth, self.moving, self.dark, self.lit, self.flashes = {}, {}, {}, {}, {}
        for t in times:
            signal, self.moving[t] = scene.photoelectrons(t)
            self.truth[t] = OFFSET + GAIN * signal
            electrons = chance.poisson(signal)
            rest = np.random.default_rng([seed, t])
            self.dark[t] = camera(electrons, rest)
            self.lit[t] = self.dark[t]
            if t in TESTED and (t - TESTED[0]) % FLASH_EVERY == 0:
                place = flash_at(t, chance)
                extra = chance.poisson(flash(place))
                self.lit[t] = camera(electrons + extra, np.random.default_rng([seed, t]))
                self.flashes[t] = place

    def observations(self, t: int, frames: dict[int, np.ndarray], now=None) -> torch.Tensor:
        newest = frames[t] if now is None else now
        stack = [newest] + [frames[t - k] for k in range(1, self.context + 1)]
        return torch.from_numpy(np.stack(stack)[None])


def denoise(estimator: Estimator, observations: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return estimator(observations)[0][0, 0].numpy().astype(np.float64)


def decibels(squared: list[float], span: float) -> float:
    return float(10 * np.log10(span**2 / np.mean(squared)))


def score(estimator: Estimator, tested: Tested) -> dict[str, float]:
    everywhere, still, moving, raw = [], [], [], []
    for t in TESTED:
        error = (denoise(estimator, tested.observations(t, tested.dark)) - tested.truth[t]) ** 2
        mask = tested.moving[t] | tested.moving.get(t - tested.context, tested.moving[t])
        everywhere.append(error.mean())
        still.append(error[~mask].mean())
        moving.append(error[mask].mean())
        raw.append(((tested.dark[t] - tested.truth[t]) ** 2).mean())
    span = float(np.mean([np.ptp(tested.truth[t]) for t in TESTED]))
    intensity, echo = flashes(estimator, tested)
    return {
        "raw_db": decibels(raw, span),
        "psnr_db": decibels(everywhere, span),
        "still_db": decibels(still, span),
        "moving_db": decibels(moving, span),
        "flash_adu": intensity,
        "echo_share": echo,
    }


def flashes(estimator: Estimator, tested: Tested) -> tuple[float, float]:
    """Return the flash's intensity in its frame, and the share of it in the next frame."""
    heights, echoes = [], []
    for t, (y, x) in tested.flashes.items():
        disc = np.s_[y - 4 : y + 5, x - 4 : x + 5]
        lit = denoise(estimator, tested.observations(t, tested.dark, now=tested.lit[t]))
        dark = denoise(estimator, tested.observations(t, tested.dark))
        heights.append((lit - dark)[disc].mean())
        if tested.context:
            only = {**tested.dark, t: tested.lit[t]}
            after = denoise(estimator, tested.observations(t + 1, only))
            before = denoise(estimator, tested.observations(t + 1, tested.dark))
            echoes.append((after - before)[disc].mean())
    height = float(np.mean(heights))
    return height, float(np.mean(echoes) / height) if echoes else 0.0


def learned(scene: Scene) -> Stack:
    chance = np.random.default_rng(5)
    frames = [camera(chance.poisson(scene.photoelectrons(t)[0]), chance) for t in range(LEARNED)]
    return stack_from_array(np.stack(frames), path="simulated scene")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=90)
    arguments.add_argument("--steps", type=int)
    arguments.add_argument("--context", type=int, nargs="+", default=[0, 2, 4])
    arguments.add_argument("--preset", default="live")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = arguments.parse_args()
    scene = Scene(1)
    stack = learned(scene)
    noise_model = bootstrap_noise_model([stack])
    rows = []
    for context in chosen.context:
        options = TrainingOptions(
            preset=chosen.preset,
            context_frames=context,
            steps=chosen.steps,
            seconds=None if chosen.steps else chosen.seconds,
        )
        recordings = load_recordings([stack], context_frames=context, patch=64, memory_mib=512)
        estimator, run = fit(recordings, noise_model, options, started=time.monotonic())
        row = {"context": context, "steps": run.step, "seconds": run.schedule.elapsed}
        row |= score(estimator, Tested(scene, context, seed=9))
        if rows:
            row["flash_share"] = row["flash_adu"] / rows[0]["flash_adu"]
        rows.append(row)
        print(json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)
    content = {"hardware": "2 CPU cores", "rows": rows}
    path = chosen.out / "training_motion.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
