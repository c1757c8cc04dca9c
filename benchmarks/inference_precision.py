"""What eight-bit numbers gain in time and cost in quality, on real photon-counting data.

Trains on the nandb stacks, then scores every preset in fp32 and in int8 against the same truth
(the mean of the repeats that are not inputs), and times both in turn on 512² frames.

    python benchmarks/inference_precision.py [--presets live best] [--steps 1500]

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from quietscope.inference.evaluation import evaluate
from quietscope.inference.onnx_denoiser import OnnxDenoiser
from quietscope.inference.providers import all_cores, cpu_name
from quietscope.outputs import write_json
from quietscope.stacks import Stack, open_stack
from quietscope.training.train import TrainingOptions, train

DATA = Path(os.environ.get("QUIETSCOPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results" / "inference_precision.json"
FRAMES = range(3, 50, 8)
PRECISIONS = ("fp32", "int8")
ROUNDS = 15


def quality(stacks: list[Stack], bundle: Path, precision: str) -> dict[str, float]:
    scores = [
        evaluate(
            stack, bundle, static=True, frames=FRAMES, provider="cpu", precision=precision
        ).result()
        for stack in stacks
    ]
    keys = ("psnr_db", "psnr_raw_db", "ssim", "uncertainty_z_std")
    return {key: float(np.mean([score[key] for score in scores])) for key in keys}


def milliseconds(bundle: Path) -> dict[str, float]:
    frame = np.random.default_rng(0).poisson(20, (1, 512, 512)).astype(np.uint8)
    out = np.empty((2, 512, 512), np.float32)
    denoisers = {
        precision: OnnxDenoiser(
            bundle, (512, 512), provider="cpu", precision=precision, threads=all_cores()
        )
        for precision in PRECISIONS
    }
    taken: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(ROUNDS):
        for precision, denoiser in denoisers.items():
            began = time.perf_counter()
            denoiser.denoise(frame, out)
            taken[precision].append(time.perf_counter() - began)
    return {precision: 1e3 * statistics.median(seconds) for precision, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["live", "best"])
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args()
    stacks = [open_stack(p) for p in sorted((DATA / "nandb_fkbp_confocal").glob("*.tif"))]
    found = {}
    for preset in given.presets:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "model"
            train(stacks, bundle, TrainingOptions(preset=preset, steps=given.steps))
            times = milliseconds(bundle)
            scores = {precision: quality(stacks, bundle, precision) for precision in PRECISIONS}
        lost = scores["fp32"]["psnr_db"] - scores["int8"]["psnr_db"]
        speed = times["fp32"] / times["int8"]
        found[preset] = {"ms": times, "scores": scores, "lost_db": lost, "times_faster": speed}
        print(f"{preset}: int8 is {speed:.2f} times as fast and loses {lost:.3f} dB", flush=True)
    write_json(
        RESULTS, {"hardware": cpu_name(all_cores()), "steps": given.steps, "presets": found}
    )


if __name__ == "__main__":
    main()
