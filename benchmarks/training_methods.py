"""All learned methods on the six nandb stacks in the same time, beside what needs no training.

    python benchmarks/training_methods.py [--seconds 60] [--seeds 0 1 2] [--left N] [METHOD …]
    python benchmarks/training_methods.py --summary

Real photon counts, 50 repeats of six scenes; frames and truth are those of `training_nandb.py`: a
frame is scored against the mean of the repeats that were not among its inputs. The time is that of
the steps alone, of one processor core: the clock counts what this process was given, so that other
programs on the machine take nothing from a method. It is the product's own loop, with its
defaults; only the export is left out. `ms_per_512_frame` is measured apart (`--speed`), on the
exported graph of an untrained network, which costs the same.

Methods that learn from noisy frames are trained on the six stacks together, and so have seen the
very scenes that they are scored on (zero-shot: no clean frame was). Methods that learn from clean
frames are trained twice, each time on every second scene with the mean of a frame's other repeats
as its truth, and scored on the other three; each of the two runs has the full time. `… seen` are
trained on all six and scored on them, as no microscope allows: the difference is what three scenes
do not tell of the others.

Every row is one method and seed and is stored as soon as it is measured, so that the benchmark can
be run in parts: rows that are there are not measured again, and `--left` stops after so many.
`gaussian` and `bm3d` need no training (BM3D with the exact unbiased inverse, on one frame of each
stack, as in `inference_classical.py`). The data are found through QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from training_nandb import FRAMES
from training_rows import RESULTS, Example, Rows, denoised, nandb, repeats

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.evaluation.metrics import ssim_map
from quietscope.inference.runtime.benchmark import bench
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training import train, working_clock
from quietscope.training.methods import learner_of
from quietscope.training.model.unet import parameter_count
from quietscope.training.options import TrainingOptions
from quietscope.training.train import fit, read

METHODS: dict[str, dict[str, Any]] = {
    "lattice": {},
    "n2v": {},
    "n2v2": {},
    "pn2v": {},
    "r2r": {},
    "n2n": {},
    "n2s": {},
    "divnoising": {},
    "hdn": {},
    "care": {},
    "care plain": {"algorithm": "care", "loss": "plain"},
    "supervised U-Net": {"algorithm": "care", "loss": "squared"},
    "dncnn": {},
    "tomogan": {},
    "care seen": {"algorithm": "care"},
    "supervised U-Net seen": {"algorithm": "care", "loss": "squared"},
}
"""Names and options; the algorithm is the name unless it is given."""
SEEN = " seen"
"""Of supervised methods: scored on the scenes that they have learned from."""
UNTRAINED = ("gaussian", "bm3d")
BM3D_FRAMES = (19,)
TIMED_SHAPE = (512, 512)
TIMED_FRAMES = 5


def with_truth(stack: Stack) -> Stack:
    """Return for each repeat the mean of all others, float32."""
    pixels = stack.frames(range(len(stack))).astype(np.float64)
    others = (pixels.sum(axis=0) - pixels) / (len(pixels) - 1)
    return stack_from_array(others.astype(np.float32), path=f"{stack.path}, mean of the others")


def trained(name: str, seed: int, seconds: float, stacks: Sequence[Stack]) -> dict[str, Any]:
    options = TrainingOptions(seconds=seconds, seed=seed, **{"algorithm": name} | METHODS[name])
    supervised = learner_of(options.algorithm).target == "truth"
    apart = supervised and not name.endswith(SEEN)
    folds = [(stacks[::2], stacks[1::2]), (stacks[1::2], stacks[::2])]
    estimates, examples, steps, parameters = [], [], [], 0
    for learned, scored in folds if apart else [(stacks, stacks)]:
        truths = [with_truth(stack) for stack in learned] if supervised else ()
        recordings, _ = read(learned, options, None, None, _unheard, truths=truths)
        known = bootstrap_noise_model(list(learned), seed=seed)
        estimator, run = fit(recordings, known, options, started=time.process_time())
        estimator.eval()
        wanted = repeats(scored, FRAMES, 0)
        estimates += [denoised(estimator, one.observations) for one in wanted]
        examples += wanted
        steps.append(run.step)
        parameters = parameter_count(estimator.network)
    return {
        "learned_from": learned_from(supervised, apart),
        "steps": steps,
        "parameters": parameters,
        **scores(estimates, examples),
    }


def learned_from(supervised: bool, apart: bool) -> str:
    if not supervised:
        return "the noisy frames"
    return f"clean frames of the {'other' if apart else 'same'} scenes"


def untrained(name: str, stacks: Sequence[Stack]) -> dict[str, Any]:
    noise_model = bootstrap_noise_model(list(stacks))
    estimates, examples, took = [], [], []
    for stack in stacks:
        filtered = ClassicalDenoiser(name, stack.frame_shape, noise_model=noise_model)
        out = np.empty((2, *stack.frame_shape), np.float32)
        filtered.denoise(stack.observations(0, 0), out)  # chooses the strength
        for one in repeats([stack], BM3D_FRAMES if name == "bm3d" else FRAMES, 0):
            began = time.process_time()
            filtered.denoise(one.observations, out)
            took.append(time.process_time() - began)
            estimates.append((out[0].astype(np.float64), np.zeros(stack.frame_shape)))
            examples.append(one)
    area = TIMED_SHAPE[0] * TIMED_SHAPE[1] / estimates[0][0].size
    return {
        "learned_from": "nothing",
        **scores(estimates, examples),
        "ms_per_512_frame": 1e3 * area * float(np.median(took)),
    }


def scores(
    estimates: Sequence[tuple[NDArray[Any], NDArray[Any]]], examples: Sequence[Example]
) -> dict[str, float | None]:
    """Return mean PSNR and SSIM, and the standard deviation of standardised errors."""
    pairs = list(zip(estimates, examples, strict=True))
    squares = [
        ((mean - one.truth) ** 2 / (deviation**2 + one.truth_variance))[deviation > 0]
        for (mean, deviation), one in pairs
    ]
    stated = np.concatenate(squares)
    return {
        "psnr_db": float(np.mean([one.psnr_db(mean) for (mean, _), one in pairs])),
        "psnr_raw_db": float(np.mean([one.psnr_db(one.observations[0]) for _, one in pairs])),
        "ssim": float(np.mean([ssim_map(mean, one.truth)[0] for (mean, _), one in pairs])),
        "uncertainty_z_std": float(np.sqrt(stated.mean())) if stated.size else None,
    }


def speed(name: str, stacks: Sequence[Stack]) -> float:
    """Return the milliseconds that the graph of a method takes for a frame of 512²."""
    options = TrainingOptions(steps=1, batch=1, **{"algorithm": name} | METHODS[name])
    supervised = learner_of(options.algorithm).target == "truth"
    truths = [with_truth(stacks[0])] if supervised else ()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        result = train.train(stacks[:1], out, options, truths=truths, accept=True)
        assert result is not None
        measured = bench(
            result.bundle, TIMED_SHAPE, frames=TIMED_FRAMES, provider="cpu", threads=1
        )
        return float(measured.result()["session_run_ms_p50"])


def summary(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table of what is stored, the best first; the spread is that of the seeds."""
    by_method: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        if row["seconds"] is not None:
            by_method.setdefault((row["method"], row["seconds"]), []).append(row)
    ranked = sorted(by_method.items(), key=lambda item: -mean_of(item[1], "psnr_db"))
    print("| method | learned from | seeds | steps | estimate, dB | SSIM | z |")
    print("|---|---|---|---|---|---|---|")
    for (name, _), own in ranked:
        steps = [step for row in own for step in row.get("steps", [])]
        told = [row for row in own if row["uncertainty_z_std"] is not None]
        spread = np.std([row["psnr_db"] for row in own], ddof=1) if len(own) > 1 else None
        cells = [
            name,
            own[0]["learned_from"],
            str(len(own)) if steps else "",
            f"{np.mean(steps):.0f}" if steps else "",
            f"{mean_of(own, 'psnr_db'):.2f}" + (f" ± {spread:.2f}" if spread is not None else ""),
            f"{mean_of(own, 'ssim'):.3f}",
            f"{mean_of(told, 'uncertainty_z_std'):.2f}" if told else "",
        ]
        print(f"| {' | '.join(cells)} |")


def mean_of(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _unheard(remark: str) -> None:
    """Say nothing."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("methods", nargs="*", help=", ".join([*METHODS, *UNTRAINED]))
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--left", type=int, help="Rows after which to stop.")
    arguments.add_argument("--summary", action="store_true", help="Print what is stored only.")
    arguments.add_argument("--speed", action="store_true", help="Measure the graphs' speed only.")
    arguments.add_argument("--out", type=Path, default=RESULTS / "training_methods.json")
    chosen = arguments.parse_args()
    known = [*METHODS, *UNTRAINED]
    if strange := set(chosen.methods) - set(known):
        arguments.error(f"{', '.join(sorted(strange))}: expected some of {', '.join(known)}")
    torch.set_num_threads(1)
    rows = Rows(chosen.out, ("method", "seed", "seconds"), threads=1)
    if chosen.summary:
        summary(rows.rows)
        return
    stacks = nandb()
    if chosen.speed:
        for name in [one for one in chosen.methods or METHODS if one in METHODS]:
            rows.add(
                {
                    "method": name,
                    "seed": None,
                    "seconds": None,
                    "ms_per_512_frame": speed(name, stacks),
                }
            )
        return
    # The clock of the budget is this process's own, and nothing follows the last step.
    working_clock.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
    train.finishing_seconds = lambda *_: 0.0
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
        rows.add({"method": name, "seed": seed, "seconds": seconds, **found, "load": load})


if __name__ == "__main__":
    main()
