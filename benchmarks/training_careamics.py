"""Training beside CAREamics' N2V: steps per second, and the time until 34 dB on nandb.

1. Steps per second of the masked U-Net at the same patch, batch, channels and depth, in turn,
   round by round, with the share of masked pixels that we take and with CAREamics' 0.2 %;
   parameters and operations of both networks are given: they are not quite equal.
2. The time from the first line of reading until the averaged weights reach 34 dB on six stacks of
   real photon counts (truth of a frame: the mean of the other 49), for `lattice` and `n2v`; then
   CAREamics with its defaults for up to ten times as long as the slower of the two. Imports are
   not counted, scores are taken while the clock stands still.

CAREamics is no dependency and brings its own versions; give it an environment of its own:

    python -m venv care && care/bin/pip install careamics==0.3.5
    python benchmarks/training_careamics.py --careamics-python care/bin/python

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from training_rows import (
    RESULTS,
    Example,
    Rows,
    as_live,
    fitted,
    is_default,
    mean_psnr_db,
    nandb,
    repeats,
)

from quietscope.storage.stack import Stack
from quietscope.training.checkpoint import load_checkpoint
from quietscope.training.methods import patch_edge
from quietscope.training.model.estimator import Estimator
from quietscope.training.model.unet import parameter_count
from quietscope.training.options import NetworkPlan, TrainingOptions
from quietscope.training.progress import TrainingProgress

WORKER = Path(__file__).with_name("training_careamics_worker.py")
FRAMES = range(7, 50, 15)
SAME_SIZE = NetworkPlan(width=16, depth=2)
"""As CAREamics' U-Net of 16 channels and depth 2: two convolutions on each level."""
CAREAMICS_MASKED = 0.002
TARGET_DB = 34.0

WARM_UP_WINDOWS = 1


@dataclass
class Stopwatch:
    """Times every window of steps, and keeps the averaged weights of every checkpoint."""

    checkpoint: Path | None = None
    started: float = field(default_factory=time.monotonic)
    outside: float = 0.0
    ticks: list[tuple[int, float]] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, now: TrainingProgress) -> None:
        began = time.monotonic()
        self.ticks.append((now.step, began - self.started - self.outside))
        self.keep()
        self.outside += time.monotonic() - began

    def keep(self) -> None:
        if self.checkpoint is None or not self.checkpoint.is_file():
            return
        state = load_checkpoint(self.checkpoint)
        if not self.kept or state["step"] > self.kept[-1]["step"]:
            self.kept.append(
                {
                    "step": state["step"],
                    "seconds": state["elapsed"] - self.outside,
                    "weights": state["average"]["values"],
                }
            )
        self.checkpoint.unlink()

    def steps_per_second(self) -> float:
        """Return the rate of the median window; validations fall into a few of them only."""
        steps, seconds = np.diff(np.array(self.ticks), axis=0)[WARM_UP_WINDOWS:].T
        return float(np.median(steps / seconds))


def own_steps(stacks: Sequence[Stack], steps: int, masked: float) -> dict[str, Any]:
    options = TrainingOptions(algorithm="n2v", steps=steps, masked_pixel_fraction=masked)
    watch = Stopwatch()
    with as_live(SAME_SIZE):
        estimator, _ = fitted(stacks, options, on_progress=watch)
    patches = torch.zeros(options.batch, 1, patch_edge(options), patch_edge(options))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        estimator.network(patches)
    return {
        "steps_per_second": watch.steps_per_second(),
        "parameters": parameter_count(estimator.network),
        "forward_gflop_per_step": counter.get_total_flops() / 1e9,
    }


def own_time(
    stacks: Sequence[Stack], options: TrainingOptions, scored: Sequence[Example]
) -> dict[str, Any]:
    """Train once and say when the averaged weights first reached the target."""
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch(Path(folder) / "unfinished.pt")
        estimator, run = fitted(stacks, options, checkpoint=watch.checkpoint, on_progress=watch)
        seconds = time.monotonic() - watch.started - watch.outside
        watch.keep()
    finished = mean_psnr_db(estimator, scored)
    scores = [
        {
            "seconds": kept["seconds"],
            "step": kept["step"],
            "psnr_db": mean_psnr_db(with_weights(estimator, kept["weights"]), scored),
        }
        for kept in watch.kept
    ]
    reached = [score["seconds"] for score in scores if score["psnr_db"] >= TARGET_DB]
    return {
        "seconds_to_target": reached[0] if reached else None,
        "steps": run.step,
        "seconds": seconds,
        "psnr_db": finished,
        "scores": scores,
    }


@torch.no_grad()
def with_weights(estimator: Estimator, weights: Sequence[torch.Tensor]) -> Estimator:
    for live, value in zip(estimator.network.parameters(), weights, strict=True):
        live.copy_(value)
    return estimator


def theirs(python: str, **task: Any) -> dict[str, Any]:
    command = [python, str(WORKER), json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"CAREamics failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare_steps(rows: Rows, stacks: Sequence[Stack], python: str, data: str, given: Any) -> None:
    options = TrainingOptions(algorithm="n2v")
    same = {
        "channels": SAME_SIZE.width,
        "depth": SAME_SIZE.depth,
        "patch": patch_edge(options),
        "batch": options.batch,
    }
    shares = {"n2v": options.masked_pixel_fraction, "n2v, masked as CAREamics": CAREAMICS_MASKED}
    ours: dict[str, list[dict[str, Any]]] = {method: [] for method in shares}
    care = []
    for _ in range(given.rounds):
        for method, masked in shares.items():
            ours[method].append(own_steps(stacks, given.steps, masked))
            print(f"{method}: {ours[method][-1]['steps_per_second']:.1f} steps/s", flush=True)
        care.append(theirs(python, data=data, steps=given.steps // 3, **same))
        print(f"CAREamics: {care[-1]['steps_per_second']:.1f} steps/s", flush=True)
    for method, masked in shares.items():
        rows.add(
            {
                "measured": "steps per second",
                "method": method,
                "default": False,
                **same,
                "masked_pixel_fraction": masked,
                "ours": summary(ours[method]),
                "careamics": summary(care),
                "times_as_fast": statistics.median(
                    a["steps_per_second"] / b["steps_per_second"]
                    for a, b in zip(ours[method], care, strict=True)
                ),
            }
        )


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("parameters", "forward_gflop_per_step", "version", "torch")
    rates = [one["steps_per_second"] for one in found]
    return {
        "steps_per_second": statistics.median(rates),
        "steps_per_second_by_round": rates,
        **{name: found[0][name] for name in names if name in found[0]},
    }


def compare_times(rows: Rows, stacks: Sequence[Stack], python: str, data: str, given: Any) -> None:
    scored = repeats(stacks, FRAMES, 0)
    slowest = 0.0
    for algorithm, steps in (("lattice", given.lattice_steps), ("n2v", given.n2v_steps)):
        options = TrainingOptions(algorithm=algorithm, steps=steps)
        found = own_time(stacks, options, scored)
        rows.add(
            {"measured": f"time to {TARGET_DB:g} dB", "method": algorithm}
            | {"default": is_default(options), **found}
        )
        slowest = max(slowest, found["seconds_to_target"] or found["seconds"])
    limit = given.factor * slowest
    found = theirs(
        python,
        data=data,
        channels=32,
        depth=2,
        patch=64,
        batch=16,
        most_seconds=limit,
        every_seconds=limit / 10,
        target_db=TARGET_DB,
        check=True,
    )
    reached = [one["seconds"] for one in found["scores"] if one["psnr_db"] >= TARGET_DB]
    rows.add(
        {
            "measured": f"time to {TARGET_DB:g} dB",
            "method": "CAREamics N2V",
            "default": True,
            "seconds_to_target": reached[0] if reached else f"not reached in {limit:.0f} s",
            "times_our_time": given.factor,
            **found,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--careamics-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="Per round.")
    parser.add_argument("--lattice-steps", type=int, default=1200)
    parser.add_argument("--n2v-steps", type=int, default=1000)
    parser.add_argument("--factor", type=float, default=10, help="When CAREamics is stopped.")
    parser.add_argument("--only", choices=["steps", "times"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    stacks = nandb()
    rows = Rows(given.out / "training_careamics.json", ("measured", "method"))
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "nandb.npz")
        scored = repeats(stacks, FRAMES, 0)
        np.savez(
            data,
            training=np.concatenate([s.frames(range(len(s))) for s in stacks]).astype(np.float32),
            noisy=np.stack([one.observations[0] for one in scored]).astype(np.float32),
            truth=np.stack([one.truth for one in scored]),
        )
        if given.only != "times":
            compare_steps(rows, stacks, given.careamics_python, data, given)
        if given.only != "steps":
            compare_times(rows, stacks, given.careamics_python, data, given)


if __name__ == "__main__":
    main()
