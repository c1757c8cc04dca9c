"""All learned methods on the six nandb stacks in the same time, beside what needs no training.

    python benchmarks/training_methods.py [--seconds 60] [--seeds 0 1 2] [--left N] [METHOD …]

Real photon counts, 50 repeats of six scenes; frames and truth are those of `training_nandb.py`: a
frame is scored against the mean of the repeats that were not among its inputs. The time is the
whole run's, from reading to the bundle, with one thread.

Methods that learn from noisy frames are trained on the six stacks together, and so have seen the
very scenes that they are scored on (zero-shot: no clean frame was). Methods that learn from clean
frames are trained twice, each time on every second scene with the mean of a frame's other repeats
as its truth, and scored on the other three; each of the two runs has the full time.

Every row is one method and seed and is stored as soon as it is measured, so that the benchmark can
be run in parts: rows that are there are not measured again, and `--left` stops after so many.
`gaussian` and `bm3d` need no training (BM3D with the exact unbiased inverse, on one frame of each
stack, as in `inference_classical.py`). The data are found through QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from training_nandb import FRAMES
from training_rows import RESULTS, Rows, nandb

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.bundle import Bundle
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.runtime.benchmark import bench
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.methods import learner_of
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

METHODS: dict[str, dict[str, Any]] = {
    "lattice": {},
    "n2v": {},
    "n2v2": {},
    "pn2v": {},
    "n2n": {},
    "n2s": {},
    "care": {},
    "care plain": {"loss": "plain"},
    "dncnn": {},
}
UNTRAINED = ("gaussian", "bm3d")
BM3D_FRAMES = (19,)
SCORES = ("psnr_db", "psnr_raw_db", "ssim", "uncertainty_z_std", "residual_correlation")
TIMED_SHAPE = (512, 512)
TIMED_FRAMES = 5


def with_truth(stack: Stack) -> Stack:
    """Return for each repeat the mean of all others, float32."""
    pixels = stack.frames(range(len(stack))).astype(np.float64)
    others = (pixels.sum(axis=0) - pixels) / (len(pixels) - 1)
    return stack_from_array(others.astype(np.float32), path=f"{stack.path}, mean of the others")


def trained(name: str, seed: int, seconds: float, stacks: Sequence[Stack]) -> dict[str, Any]:
    algorithm = name.split()[0]
    options = TrainingOptions(algorithm=algorithm, seconds=seconds, seed=seed, **METHODS[name])
    supervised = learner_of(algorithm).target == "truth"
    folds = [(stacks[::2], stacks[1::2]), (stacks[1::2], stacks[::2])]
    found, steps, parameters, timed = [], [], 0, 0.0
    for learned, scored in folds if supervised else [(stacks, stacks)]:
        with tempfile.TemporaryDirectory() as folder:
            truths = [with_truth(stack) for stack in learned] if supervised else ()
            result = train(learned, Path(folder) / "model", options, truths=truths)
            assert result is not None
            found += scores(result.bundle, scored)
            steps.append(result.steps)
            parameters = result.parameters
            timed = bench(
                result.bundle, TIMED_SHAPE, frames=TIMED_FRAMES, provider="cpu", threads=1
            ).result()["session_run_ms_p50"]
    return {
        "learned_from": "clean frames of the other scenes" if supervised else "the noisy frames",
        "steps": steps,
        "seconds": seconds,
        "parameters": parameters,
        **means(found),
        "ms_per_512_frame": timed,
    }


def scores(model: Bundle, stacks: Sequence[Stack]) -> list[dict[str, Any]]:
    return [
        evaluate(stack, model, static=True, frames=FRAMES, provider="cpu").result()
        for stack in stacks
    ]


def untrained(name: str, stacks: Sequence[Stack]) -> dict[str, Any]:
    noise_model = bootstrap_noise_model(list(stacks))
    found = []
    for stack in stacks:
        filtered = ClassicalDenoiser(name, stack.frame_shape, noise_model=noise_model)
        filtered.denoise(stack.observations(0, 0), np.empty((2, *stack.frame_shape), np.float32))
        frames = BM3D_FRAMES if name == "bm3d" else FRAMES
        found.append(evaluate(stack, filtered, static=True, frames=frames).result())
    area = TIMED_SHAPE[0] * TIMED_SHAPE[1] / (stacks[0].frame_shape[0] * stacks[0].frame_shape[1])
    return {
        "learned_from": "nothing",
        "seconds": 0.0,
        **means(found),
        "ms_per_512_frame": area * float(np.mean([one["ms_per_frame"] for one in found])),
    }


def means(found: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    values = {key: [one[key] for one in found if one[key] is not None] for key in SCORES}
    return {key: float(np.mean(some)) if some else None for key, some in values.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("methods", nargs="*", help=", ".join([*METHODS, *UNTRAINED]))
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--left", type=int, help="Rows after which to stop.")
    arguments.add_argument("--out", type=Path, default=RESULTS / "training_methods.json")
    chosen = arguments.parse_args()
    known = [*METHODS, *UNTRAINED]
    if strange := set(chosen.methods) - set(known):
        arguments.error(f"{', '.join(sorted(strange))}: expected some of {', '.join(known)}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    rows = Rows(chosen.out, ("method", "seed", "seconds"), threads=torch.get_num_threads())
    stacks = nandb()
    wanted = [
        (name, seed, 0.0 if name in UNTRAINED else chosen.seconds)
        for name in chosen.methods or known
        for seed in (chosen.seeds if name in METHODS else [0])
    ]
    there = {(row["method"], row["seed"], row["seconds"]) for row in rows.rows}
    for name, seed, seconds in [one for one in wanted if one not in there][: chosen.left]:
        found = (
            untrained(name, stacks) if name in UNTRAINED else trained(name, seed, seconds, stacks)
        )
        load = round(psutil.getloadavg()[0], 1)
        rows.add({"method": name, "seed": seed, **found, "load": load})


if __name__ == "__main__":
    main()
