"""What filters without training reach on real data, beside the raw frames.

    python benchmarks/inference_classical.py

Six nandb stacks (photon counting, 50 repeats); truth: the mean of the other 49. The data are found
through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.classical.filters import METHODS, ClassicalDenoiser
from quietscope.inference.errors import InferenceError
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.runtime.providers import all_cores, cpu_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.open_stack import open_stack

DATA = Path(os.environ.get("QUIETSCOPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results" / "inference_classical.json"
FRAMES = range(3, 50, 16)


def main() -> None:
    stacks = [open_stack(p) for p in sorted((DATA / "nandb_fkbp_confocal").glob("*.tif"))]
    noise_model = bootstrap_noise_model(stacks)
    found = {}
    for method in METHODS:
        try:
            scores = [
                evaluate(
                    stack,
                    ClassicalDenoiser(method, stack.frame_shape, noise_model=noise_model),
                    static=True,
                    frames=FRAMES,
                ).result()
                for stack in stacks
            ]
        except InferenceError as error:
            print(error)
            continue
        keys = ("psnr_db", "ssim", "nrmse", "ms_per_frame")
        found[method] = {key: float(np.mean([score[key] for score in scores])) for key in keys}
        row = found[method]
        print(
            f"{method:16} {row['psnr_db']:.2f} dB, SSIM {row['ssim']:.3f}, "
            f"{row['ms_per_frame']:.0f} ms per 256² frame",
            flush=True,
        )
    write_json(RESULTS, {"hardware": cpu_name(all_cores()), "methods": found})


if __name__ == "__main__":
    main()
