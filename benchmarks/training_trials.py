"""Choices inside training, one changed at a time, after the same number of steps.

Six stacks of real photon counts (nandb; truth of a frame: the mean of the other 49). For each
trial the PSNR of the network's own mean and of the estimate, the standard deviation of the
standardised errors, and the time per step (to compare, run on an idle machine).

    python benchmarks/training_trials.py --steps 1500
    python benchmarks/training_trials.py --steps 1500 "learning rate 2e-3" float32

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_rows import (
    RESULTS,
    Example,
    Rows,
    denoised,
    fitted,
    is_default,
    nandb,
    repeats,
    z_by_brightness,
)

from quietscope.training.device import Workers
from quietscope.training.model.estimator import Estimator
from quietscope.training.options import TrainingOptions
from quietscope.training.run import Run

TRIALS: dict[str, dict[str, Any]] = {
    "lattice as it is": {},
    "learning rate 1e-3": {"learning_rate": 1e-3},
    "learning rate 2e-3": {"learning_rate": 2e-3},
    "learning rate 8e-3": {"learning_rate": 8e-3},
    "8 patches per step": {"batch": 8},
    "patches of 64²": {"patch": 64},
    "2 preceding frames": {"context_frames": 2},
    "6 preceding frames": {"context_frames": 6},
    "n2v as it is": {"algorithm": "n2v"},
    "n2v, learning rate 1e-3": {"algorithm": "n2v", "learning_rate": 1e-3},
    "n2v, 0.5 % masked": {"algorithm": "n2v", "masked_pixel_fraction": 0.005},
    "n2v, 2 % masked": {"algorithm": "n2v", "masked_pixel_fraction": 0.02},
    "n2v, 12 % masked": {"algorithm": "n2v", "masked_pixel_fraction": 0.12},
    "float32": {},
}
FRAMES = range(7, 50, 12)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Let the network run in float32 where the product would choose bfloat16."""
    usual = Workers.precision
    Workers.precision = lambda self: contextlib.nullcontext()  # type: ignore[method-assign]
    try:
        yield
    finally:
        Workers.precision = usual  # type: ignore[method-assign]


@torch.no_grad()
def own_mean(estimator: Estimator, one: Example) -> np.ndarray:
    """Return the network's mean (Y, X) in ADU, before the observation is taken in."""
    frames = estimator.to_network_units(torch.from_numpy(one.observations[None]).float())
    mean = estimator.posterior.prior(estimator.network(frames))[0][0, 0]
    return mean.double().numpy() * estimator.scale_adu + estimator.centre_adu


def ms_per_step(run: Run) -> float:
    """Return the time per step between the first and the last validation."""
    first, last = run.losses[0], run.losses[-1]
    return 1e3 * (last.seconds - first.seconds) / max(last.step - first.step, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", nargs="*", metavar="trial", help="Of TRIALS; all if not given.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    stacks = nandb()
    rows = Rows(given.out / "training_trials.json", ("trial", "steps"))
    for trial in given.trials or TRIALS:
        options = replace(TrainingOptions(steps=given.steps), **TRIALS[trial])
        with full_precision() if trial == "float32" else contextlib.nullcontext():
            estimator, run = fitted(stacks, options)
        examples = repeats(stacks, FRAMES, options.context_frames)
        estimates = [denoised(estimator, one.observations) for one in examples]
        both = list(zip(examples, estimates, strict=True))
        rows.add(
            {
                "trial": trial,
                "steps": run.step,
                "default": is_default(options) and trial != "float32",
                "prior_mean_db": float(
                    np.mean([one.psnr_db(own_mean(estimator, one)) for one in examples])
                ),
                "psnr_db": float(np.mean([one.psnr_db(mean) for one, (mean, _) in both])),
                "z_by_brightness": z_by_brightness(estimates, examples),
                "ms_per_step": ms_per_step(run),
            }
        )
    print(table(rows.rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as they stand in `docs/training.md`."""
    lines = [
        "| what | steps | prior mean, dB | estimate, dB | ms per step |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        figures = f"{row['prior_mean_db']:.2f} | {row['psnr_db']:.2f} | {row['ms_per_step']:.1f}"
        lines.append(f"| {row['trial']} | {row['steps']:,} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
