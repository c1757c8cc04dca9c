"""Preceding frames: what they gain where things hold still, what they cost where things move.

Simulated scenes with still filaments, drifting, dividing and blinking cells, each with its own
seed. A model learns from one chunk of a scene (no flashes) and is scored on a later one, by
region, beside the model without context of the same scene and steps. One-frame flashes occur only
in the frames that are tested. So do the first frames of a run, a frame lost just before, and the
same scene standing still. T is chosen on the tuning seeds; what it does is reported on others.

    python benchmarks/training_motion.py --steps 4000 --role tuning --context 0 2 3 4 6
    python benchmarks/training_motion.py --steps 4000 --role held-out --context 0 4
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from training_rows import RESULTS, Rows, denoised, fitted, is_default

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.model.estimator import Estimator
from quietscope.training.options import TrainingOptions

SEEDS = {"tuning": (1, 2), "held-out": (11, 12, 13)}
GAIN, OFFSET, READ = 2.0, 100.0, 1.5
EDGE = 256
LEARNED = 120
TESTED = range(200, 224)
MOST_CONTEXT = 6
"""How far back regions of motion reach, the same for every T."""
FLASH_EVERY = 3
FLASH_ELECTRONS = 40.0
FLASH_SIGMA = 3.0
MARGIN = 6.0
DARK_ELECTRONS = 2.5
KINDS = ("drifting", "dividing", "blinking")
REGIONS = (*KINDS, "switching", "still", "background")
WORST_DB = -0.1

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Scene:
    """Photoelectrons per pixel of frame t, and where what moves."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.y, self.x = np.mgrid[:EDGE, :EDGE].astype(np.float32)
        self.filaments = self._filaments(rng)
        self.texture = gaussian_filter(rng.normal(size=(EDGE, EDGE)), 2.0)
        self.texture /= self.texture.std()
        self.cells = [
            {
                "kind": kind,
                "y": rng.uniform(30, EDGE - 30),
                "x": rng.uniform(30, EDGE - 30),
                "vy": rng.normal(0, 0.6),
                "vx": rng.normal(0, 0.6),
                "radius": rng.uniform(9, 16),
                "phase": rng.uniform(0, 40),
            }
            for kind in ("drifting",) * 5 + ("blinking",) * 4 + ("dividing",) * 2
        ]

    def _filaments(self, rng: np.random.Generator) -> Image:
        lines = np.zeros((EDGE, EDGE), np.float32)
        for _ in range(14):
            angle, y, x = rng.uniform(0, np.pi), *rng.uniform(0, EDGE, 2)
            for _ in range(700):
                angle += rng.normal(0, 0.03)
                y, x = y + 0.5 * np.sin(angle), x + 0.5 * np.cos(angle)
                if 0 <= y < EDGE and 0 <= x < EDGE:
                    lines[int(y), int(x)] += 1
        return 28 * gaussian_filter(lines, 1.2)

    @lru_cache(maxsize=256)  # noqa: B019 (a scene lives as long as the script)
    def photoelectrons(self, t: int) -> Image:
        """Return the mean image (Y, X) of frame t."""
        image = 2 + self.filaments
        for cell in self.cells:
            for y, x, radius, brightness in self._bodies(cell, t):
                shape = expit((radius - np.hypot(self.y - y, self.x - x)) / 1.2)
                texture = np.roll(self.texture, (round(y), round(x)), (0, 1))
                image = image + brightness * shape * (1 + 0.35 * texture).clip(0.1)
        return image

    @lru_cache(maxsize=256)  # noqa: B019
    def regions(self, t: int) -> dict[str, Mask]:
        """Return where things of each kind are or were in frame t and the six before it."""
        masks = {name: np.zeros((EDGE, EDGE), bool) for name in REGIONS}
        for cell in self.cells:
            for back in range(MOST_CONTEXT + 1):
                for y, x, radius, _ in self._bodies(cell, t - back):
                    near = np.hypot(self.y - y, self.x - x) < radius + MARGIN
                    masks[cell["kind"]] |= near
                    if cell["kind"] == "blinking" and _on(cell, t) != _on(cell, t - 1):
                        masks["switching"] |= near
        moving = masks["drifting"] | masks["dividing"] | masks["blinking"]
        masks["background"] = ~moving & (self.photoelectrons(t) < DARK_ELECTRONS)
        masks["still"] = ~moving & ~masks["background"]
        return masks

    def _bodies(self, cell: Mapping[str, Any], t: int) -> list[tuple[float, float, float, float]]:
        y = _bounce(cell["y"] + cell["vy"] * t)
        x = _bounce(cell["x"] + cell["vx"] * t)
        if cell["kind"] == "drifting":
            return [(y, x, cell["radius"], 18.0)]
        if cell["kind"] == "blinking":
            return [(cell["y"], cell["x"], cell["radius"], 22.0 if _on(cell, t) else 3.0)]
        apart = 14 * (0.5 - 0.5 * np.cos(2 * np.pi * (t + cell["phase"]) / 60))
        return [(y, x - apart / 2, 9.0, 16.0), (y, x + apart / 2, 9.0, 16.0)]


def _on(cell: Mapping[str, Any], t: int) -> bool:
    return bool((t + cell["phase"]) % 17 < 8)


def _bounce(place: float) -> float:
    span = EDGE - 60
    return 30 + abs((place - 30) % (2 * span) - span)


def camera(electrons: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint16]:
    noisy = GAIN * (electrons + READ * rng.standard_normal(electrons.shape)) + OFFSET
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)


class ResidentChunk:
    """The tested chunk, recorded with and without flashes that share every other photon."""

    def __init__(self, scene: Scene, *, still: bool = False) -> None:
        self.scene = scene
        self.still = still
        rng = np.random.default_rng([scene.seed, still, 9])
        self.plain: dict[int, NDArray[np.uint16]] = {}
        self.lit: dict[int, NDArray[np.uint16]] = {}
        self.flashes: dict[int, tuple[int, int]] = {}
        for t in range(TESTED[0] - MOST_CONTEXT, TESTED[-1] + 2):
            electrons = rng.poisson(self.signal(t))
            self.plain[t] = camera(electrons, np.random.default_rng([scene.seed, t]))
            if t in TESTED and (t - TESTED[0]) % FLASH_EVERY == 0:
                y, x = (int(n) for n in rng.integers(24, EDGE - 24, 2))
                extra = rng.poisson(flash(y, x))
                self.lit[t] = camera(electrons + extra, np.random.default_rng([scene.seed, t]))
                self.flashes[t] = (y, x)

    def signal(self, t: int) -> Image:
        return self.scene.photoelectrons(TESTED[0] if self.still else t)

    def truth(self, t: int) -> Image:
        """Return the signal in ADU."""
        return OFFSET + GAIN * self.signal(t)

    @cached_property
    def span(self) -> float:
        return float(np.mean([np.ptp(self.truth(t)) for t in TESTED]))

    def observations(
        self, t: int, context: int, *, lit: int | None = None, missing: Iterable[int] = ()
    ) -> NDArray[np.uint16]:
        """Return frame t and its context, newest first; `lit` names the frame with its flash."""
        frames = [
            self.lit[t - k] if t - k == lit else self.plain[t - k] for k in range(context + 1)
        ]
        for k in missing:
            frames[k] = np.zeros_like(frames[k])
        return np.stack(frames)


def flash(y: int, x: int) -> Image:
    rows, columns = np.mgrid[:EDGE, :EDGE]
    squared = (rows - y) ** 2 + (columns - x) ** 2
    return FLASH_ELECTRONS * np.exp(-squared / (2 * FLASH_SIGMA**2))


def decibels(resident: ResidentChunk, squared: Sequence[float]) -> float:
    return float(10 * np.log10(resident.span**2 / np.mean(squared)))


def by_region(estimator: Estimator, resident: ResidentChunk, context: int) -> dict[str, float]:
    """Return the PSNR over the whole frame and in each region, dB, and the uncertainty."""
    squared: dict[str, list[Image]] = defaultdict(list)
    standardised = []
    for t in TESTED:
        estimate, deviation = denoised(estimator, resident.observations(t, context))
        error = (estimate - resident.truth(t)) ** 2
        squared["whole"].append(error.ravel())
        standardised.append((error / deviation**2).mean())
        for name, mask in resident.scene.regions(t).items():
            squared[name].append(error[mask])
    found = {name: decibels(resident, np.concatenate(values)) for name, values in squared.items()}
    return {**found, "uncertainty_z_std": float(np.sqrt(np.mean(standardised)))}


def whole_frame(
    estimator: Estimator, resident: ResidentChunk, context: int, missing: Sequence[int] = ()
) -> float:
    """Return the PSNR over the whole frame where some of the context is missing."""
    errors = []
    for t in TESTED[::3]:
        estimate, _ = denoised(estimator, resident.observations(t, context, missing=missing))
        errors.append(((estimate - resident.truth(t)) ** 2).mean())
    return decibels(resident, errors)


def flashes(estimator: Estimator, resident: ResidentChunk, context: int) -> dict[str, float]:
    """Return the flash's intensity in its frame, ADU, and what of it is in the next frame."""
    heights, echoes = [], []
    for t, (y, x) in resident.flashes.items():
        disc = np.s_[y - 4 : y + 5, x - 4 : x + 5]

        def added(at: int, t: int = t, disc: Any = disc) -> float:
            lit, _ = denoised(estimator, resident.observations(at, context, lit=t))
            plain, _ = denoised(estimator, resident.observations(at, context))
            return float((lit - plain)[disc].mean())

        heights.append(added(t))
        echoes.append(added(t + 1) if context else 0.0)
    height = float(np.mean(heights))
    return {
        "flash_adu": height,
        "echo_share": float(np.mean(echoes)) / height,
        "worst_echo_share": max(map(abs, echoes)) / height,
    }


def missing_frames(context: int) -> dict[str, range]:
    """Return which preceding frames are missing at a run's start and after a lost frame."""
    return {
        "no_frame_before": range(1, context + 1),
        "one_frame_before": range(2, context + 1),
        "last_frame_lost": range(1, min(context, 1) + 1),
    }


def row_of(scene: Scene, context: int, steps: int, stack: Stack) -> dict[str, Any]:
    options = TrainingOptions(context_frames=context, steps=steps)
    noise_model = bootstrap_noise_model([stack])
    estimator, run = fitted([stack], options, noise_model)
    moving, still = ResidentChunk(scene), ResidentChunk(scene, still=True)
    return {
        "seed": scene.seed,
        "context": context,
        "default": is_default(options),
        "steps": run.step,
        "psnr_db": by_region(estimator, moving, context),
        "standing_still_db": whole_frame(estimator, still, context),
        "no_frame_before_db": whole_frame(estimator, moving, context, range(1, context + 1)),
        "one_frame_before_db": whole_frame(estimator, moving, context, range(2, context + 1)),
        "last_frame_lost_db": whole_frame(
            estimator, moving, context, range(1, min(context, 1) + 1)
        ),
        **flashes(estimator, moving, context),
    }


def learned(scene: Scene) -> Stack:
    rng = np.random.default_rng([scene.seed, 5])
    frames = [camera(rng.poisson(scene.photoelectrons(t)), rng) for t in range(LEARNED)]
    return stack_from_array(np.stack(frames), path="simulated scene")


def summary(rows: Sequence[Mapping[str, Any]], role: str) -> None:
    """Print what each T gains over none, mean and worst over the seeds of a role."""
    found = {(row["seed"], row["context"]): row for row in rows if row["seed"] in SEEDS[role]}
    print(f"{role} scenes: gain over no context in dB, mean (worst)")
    for context in sorted({context for _, context in found} - {0}):
        both = [
            (found[s, context], found[s, 0])
            for s in SEEDS[role]
            if {(s, context), (s, 0)} <= found.keys()
        ]
        if not both:
            continue
        gains = {
            name: [own["psnr_db"][name] - none["psnr_db"][name] for own, none in both]
            for name in ("whole", *REGIONS)
        }
        for name in (
            "standing_still_db",
            "no_frame_before_db",
            "one_frame_before_db",
            "last_frame_lost_db",
        ):
            gains[name.removesuffix("_db")] = [own[name] - none[name] for own, none in both]
        kept = [own["flash_adu"] / none["flash_adu"] for own, none in both]
        text = ", ".join(f"{n} {np.mean(g):+.2f} ({min(g):+.2f})" for n, g in gains.items())
        echo = max(own["echo_share"] for own, _ in both)
        harmed = [name for name in REGIONS if min(gains[name]) < WORST_DB]
        print(f"T {context}: {text}; flash {min(kept):.0%}, echo {echo:.1%}; harmed: {harmed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--context", type=int, nargs="+", default=[0, 2, 3, 4, 6])
    parser.add_argument("--role", choices=list(SEEDS), default="held-out")
    parser.add_argument("--seeds", type=int, nargs="*", help="Of the role's; all if not given.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = Rows(given.out / "training_motion.json", ("seed", "context"), seeds=SEEDS)
    for seed in given.seeds or SEEDS[given.role]:
        scene = Scene(seed)
        stack = learned(scene)
        for context in given.context:
            rows.add(row_of(scene, context, given.steps, stack))
    summary(rows.rows, given.role)


if __name__ == "__main__":
    main()
