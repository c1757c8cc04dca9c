"""Learned methods on the FMD mixed test set, zero-shot: one noisy image in, and four.

    python benchmarks/comparison_fmd_learned.py [auto n2n …] [--scenes …] [--seeds 0 1 2]
    python benchmarks/comparison_fmd_learned.py --held-out n2n --scenes Confocal_FISH

A model learns from the four noisy images of its scene and nothing else, for the same number of
steps whatever the method; the noise model is bootstrapped from them. Then each image is denoised
by itself (`psnr_db`, one figure an image), and the mean of the four estimates is scored as well
(`psnr_of_mean_db`): four images in. PSNR at range 255, as published; no truth is seen before.

`auto` is what `train --algorithm auto` chooses by the noise that it measures, without truth.
`general` is the model that ships, which learned from nothing of this.

Where a method's target is another image of the same scene (`n2n`), the network could have learned
the scene by heart: `--held-out` leaves the last image out of the training, and scores that one
alone. `cpu_seconds` is the processor time of the training, `cpu_ms_per_frame` that of PyTorch for
an image (of the exported graph for `general`), on one thread.

Rows are stored as they are measured; those that are stored are not measured again. None begins
after `--minutes`. The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fmd_testset import REPEATS, Image, psnr_255_db, repeats, scenes, trained_on, truth_of
from training_general import General
from training_rows import RESULTS, Rows, denoised

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.model.unet import parameter_count
from quietscope.training.options import AUTO, TrainingOptions
from quietscope.training.registry import METHODS

FILE = "comparison_fmd_learned.json"
STEPS = 1_200
GENERAL = "general"
HELD_OUT = ", fourth image held out"

Denoise = Callable[[Image], tuple[Image, Image]]
"""An image (1, Y, X) to estimate and standard deviation, (Y, X) each."""


def measured(scene: str, method: str, seed: int, steps: int, *, held_out: bool) -> dict[str, Any]:
    stack = repeats(scene)
    learned_from = stack_from_array(stack.frames(range(REPEATS - 1))) if held_out else stack
    began = time.process_time()
    if method == GENERAL:
        denoise, found = _general(stack), {"learned_from": "generated scenes"}
    else:
        options = TrainingOptions(algorithm=method, steps=steps, seed=seed)
        done = trained_on(learned_from, options)
        denoise = lambda image: denoised(done.estimator, image)  # noqa: E731
        found = {
            "learned_from": f"{len(learned_from)} noisy images of the scene",
            "algorithm": done.options.algorithm,
            "steps_taken": done.run.step,
            "parameters": parameter_count(done.estimator.network),
            "neighbours_share": max(done.correlation.at(0, 1), done.correlation.at(1, 0)),
            "duplicates": done.correlation.duplicates,
            "said": done.remarks,
        }
    found["cpu_seconds"] = time.process_time() - began
    scored = stack_from_array(stack.frames([REPEATS - 1])) if held_out else stack
    return found | _scores(scored, truth_of(scene), denoise)


def _general(stack: Stack) -> Denoise:
    general = General(bootstrap_noise_model([stack]), stack.frames(range(1)))
    return lambda image: general(image)[:2]


def _scores(stack: Stack, truth: Image, denoise: Denoise) -> dict[str, Any]:
    began = time.process_time()
    estimates = [denoise(frame[None]) for frame in stack.frames(range(len(stack)))]
    seconds = (time.process_time() - began) / len(estimates)
    squared = [((mean - truth) / np.maximum(stated, 1e-9)) ** 2 for mean, stated in estimates]
    together = np.mean([mean for mean, _ in estimates], axis=0)
    return {
        "psnr_db": [psnr_255_db(mean, truth) for mean, _ in estimates],
        "psnr_of_mean_db": psnr_255_db(together, truth) if len(estimates) > 1 else None,
        "z": float(np.sqrt(np.mean(squared))),
        "cpu_ms_per_frame": 1e3 * seconds,
    }


def main() -> None:
    known = [AUTO, GENERAL, *METHODS]
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("methods", nargs="*", help=", ".join(known))
    arguments.add_argument("--scenes", nargs="+", default=scenes(), choices=scenes())
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--steps", type=int, default=STEPS)
    arguments.add_argument("--held-out", action="store_true")
    arguments.add_argument("--minutes", type=float, default=9.0, help="No row begins later.")
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    if strange := set(given.methods) - set(known):
        arguments.error(f"{', '.join(sorted(strange))}: expected some of {', '.join(known)}")
    torch.set_num_threads(1)
    began = time.monotonic()
    rows = Rows(given.out / FILE, ("method", "scene", "seed", "steps"), threads=1)
    for seed, method, scene in product(given.seeds, given.methods or [AUTO], given.scenes):
        name = method + HELD_OUT * given.held_out
        key = {"method": name, "scene": scene, "seed": seed, "steps": given.steps}
        if rows.holds(key) or time.monotonic() - began > 60 * given.minutes:
            continue
        found = measured(scene, method, seed, given.steps, held_out=given.held_out)
        rows.add(found | key)


if __name__ == "__main__":
    main()
