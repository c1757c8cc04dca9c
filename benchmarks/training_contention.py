"""What is left of a training when another program wants the same cores, with and without spinning.

The product's own command trains on frames of noise for the same time, alone and beside a second
such training; once as it is, its threads giving their core away while they wait, once with
OpenMP's default, by which they spin. What counts is the number of steps. Run it on an idle
computer, with all its cores.

    python benchmarks/training_contention.py [--minutes 0.5] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import tifffile
from training_rows import RESULTS, Rows

WAITING = {"as it is": {}, "spinning": {"GOMP_SPINCOUNT": "300000"}}


def begun(stack: Path, out: Path, minutes: float, waiting: str) -> subprocess.Popen[str]:
    """Start a training."""
    environment = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    command = ["train", str(stack), "--out", str(out), "--minutes", str(minutes), "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "quietscope.cli", *command, "--algorithm", "lattice", "--accept"],
        env=environment | WAITING[waiting],
        stdout=subprocess.PIPE,
        text=True,
    )


def steps_of(training: subprocess.Popen[str]) -> int:
    """Wait for a training and return how many steps it made."""
    printed, _ = training.communicate()
    return int(json.loads(printed)["steps"])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minutes", type=float, default=0.5)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    found: dict[tuple[str, str], list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        stack = Path(folder) / "noise.tif"
        light = 20 + 10 * np.sin(np.arange(256) / 9)
        frames = np.random.default_rng(0).poisson(np.broadcast_to(light, (40, 256, 256)))
        tifffile.imwrite(stack, (100 + 2 * frames).astype(np.uint16), metadata={"axes": "TYX"})
        for round_ in range(given.rounds):
            for waiting in WAITING:
                for trainings in (1, 2):
                    outs = [
                        Path(folder) / f"{round_} {waiting} {n} of {trainings}"
                        for n in range(trainings)
                    ]
                    running = [begun(stack, out, given.minutes, waiting) for out in outs]
                    beside = "alone" if trainings == 1 else "beside another"
                    found.setdefault((waiting, beside), []).extend(map(steps_of, running))
    rows = Rows(given.out / "training_contention.json", ("waiting", "beside"))
    for (waiting, beside), steps in found.items():
        rows.add({"waiting": waiting, "beside": beside, "steps": steps, "median": median(steps)})
        print(f"{waiting:10} {beside:15} {median(steps):6.0f} steps (of {steps})")


if __name__ == "__main__":
    main()
