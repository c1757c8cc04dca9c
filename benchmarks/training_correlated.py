"""Noise that pixels share: what each method makes of the FMD mixed test set, zero-shot.

    python benchmarks/training_correlated.py [--scenes WideField_BPAE_G …] [--methods chosen …]
    python benchmarks/training_correlated.py --summary

48 noisy images of 12 scenes (Zhang et al. 2019, doi:10.1109/CVPR.2019.01198), 512² uint8; truth:
the mean of 50 repeats. A model learns from the four noisy images of its scene and nothing else,
the noise model is bootstrapped from them, and each image is denoised by itself. PSNR at range 255,
as published, averaged over the four. In the wide-field scenes neighbours share 0.6 of their noise,
along both axes.

`gaussian`
    the trivial competitor: a blur of the one image, its width the best by the truth
`lattice`, `structn2v`, `n2n`
    named, as `train --algorithm` takes them
`chosen`
    what `train` chooses by the noise that it measures

Of each method, once, the time for a frame of 512² by its exported graph (`--frame-time`). Rows are
stored as they are measured, and those that are stored are not measured again without `--again`:
call it as often as there is time, each for at most `--minutes`. The data are found through the
environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fmd_testset import REPEATS, psnr_255_db, repeats, scenes, trained_on, truth_of
from scipy.ndimage import gaussian_filter
from training_rows import RESULTS, Rows, denoised

from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.training.options import AUTO, TrainingOptions
from quietscope.training.train import train

FILE = "training_correlated.json"
STEPS = 1_200
WIDTHS_PX = (0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)
TRIVIAL = ("raw", "gaussian")
METHODS = (*TRIVIAL, "chosen", "lattice", "structn2v", "n2n")


def trivial(scene: str, method: str) -> dict[str, Any]:
    """Score the images as they are, or the best blur of them."""
    stack, truth = repeats(scene), truth_of(scene)
    frames = stack.frames(range(REPEATS)).astype(np.float64)
    if method == "raw":
        return {"psnr_db": float(np.mean([psnr_255_db(frame, truth) for frame in frames]))}
    by_width = {
        width: float(np.mean([psnr_255_db(gaussian_filter(f, width), truth) for f in frames]))
        for width in WIDTHS_PX
    }
    best = max(by_width, key=lambda width: by_width[width])
    return {"psnr_db": by_width[best], "sigma_px": best}


def learned(scene: str, method: str, steps: int, seed: int) -> dict[str, Any]:
    """Train on the four images of a scene as `train` does, and score them."""
    stack, truth = repeats(scene), truth_of(scene)
    started = time.monotonic()
    options = TrainingOptions(
        algorithm=AUTO if method == "chosen" else method, steps=steps, seed=seed
    )
    done = trained_on(stack, options)
    found, options = done.correlation, done.options
    estimates = [denoised(done.estimator, frame[None]) for frame in stack.frames(range(REPEATS))]
    squared = [((mean - truth) / deviation) ** 2 for mean, deviation in estimates]
    return {
        "psnr_db": float(np.mean([psnr_255_db(mean, truth) for mean, _ in estimates])),
        "algorithm": options.algorithm,
        "mask_kernel": options.mask_kernel,
        "neighbour_x": found.at(0, 1),
        "neighbour_y": found.at(1, 0),
        "origin": found.origin,
        "duplicates": found.duplicates,
        "z": float(np.sqrt(np.mean(squared))),
        "steps": done.run.step,
        "seconds": time.monotonic() - started,
        "said": done.remarks,
    }


def frame_time(algorithm: str) -> dict[str, Any]:
    """Return how long the exported graph takes for a frame; what it has learned is no matter."""
    stack = repeats(scenes()[0])
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            [stack], Path(folder) / "model", TrainingOptions(algorithm=algorithm, steps=4)
        )
        assert result is not None
        out = np.empty((2, *stack.frame_shape), np.float32)
        times = []
        with OnnxDenoiser(result.bundle, stack.frame_shape, provider="cpu") as denoiser:
            for turn in range(40):
                begun = time.perf_counter()
                denoiser.denoise(stack.frame(turn % REPEATS)[None], out)
                times.append(time.perf_counter() - begun)
    return {
        "ms_per_frame": 1e3 * float(np.median(times[10:])),
        "ms_per_frame_least": 1e3 * min(times),
    }


def summary(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table: a row a scene, a column a method."""
    by = {(row["scene"], row["method"]): row for row in rows}
    shown = [method for method in METHODS if any(row["method"] == method for row in rows)]
    print("| scene | " + " | ".join(shown) + " |\n|" + "---|" * (len(shown) + 1))
    for scene in scenes():
        cells = []
        for method in shown:
            row = by.get((scene, method))
            extra = {"chosen": "algorithm", "gaussian": "sigma_px"}.get(method)
            note = f" ({row[extra]})" if row and extra else ""
            cells.append(f"{row['psnr_db']:.2f}{note}" if row else "")
        print(f"| {scene} | " + " | ".join(cells) + " |")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--scenes", nargs="+", default=scenes(), choices=scenes())
    arguments.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    arguments.add_argument("--steps", type=int, default=STEPS)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--minutes", type=float, default=4.0, help="No row begins later.")
    arguments.add_argument("--again", action="store_true")
    arguments.add_argument("--frame-time", nargs="*", metavar="ALGORITHM")
    arguments.add_argument("--summary", action="store_true")
    arguments.add_argument("--out", type=Path, default=RESULTS)
    chosen = arguments.parse_args()
    rows = Rows(chosen.out / FILE, ("scene", "method"))
    if chosen.summary:
        return summary(rows.rows)
    started = time.monotonic()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    for algorithm in chosen.frame_time or []:
        rows.add({"scene": "frame time", "method": algorithm, **frame_time(algorithm)})
    if chosen.frame_time is not None:
        return None
    known = {(row["scene"], row["method"]) for row in rows.rows}
    for method in chosen.methods:
        for scene in chosen.scenes:
            late = time.monotonic() - started > 60 * chosen.minutes
            if (late and method not in TRIVIAL) or ((scene, method) in known and not chosen.again):
                continue
            found = (
                trivial(scene, method)
                if method in TRIVIAL
                else learned(scene, method, chosen.steps, chosen.seed)
            )
            rows.add({"scene": scene, "method": method, **found, "busy": os.getloadavg()[0]})
    return None


if __name__ == "__main__":
    main()
