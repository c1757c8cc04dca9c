"""The product's filters on single noisy images, beside what learns from the one image.

    python benchmarks/comparison_pairs.py [gaussian bm3d …]

The images and the score are those of `training_pairs.py`: a confocal frame (FISH) and seven
wide-field frames (w2s), PSNR after the best affine fit to the mean of many repeats. The noise
model is bootstrapped from the one image, the strength chosen on it without truth; BM3D and other
filters for white noise work in units of that noise, with the exact unbiased inverse.

Rows are stored as they are measured, and those that are stored are not measured again. The data
are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from training_pairs import pairs, score
from training_rows import RESULTS, Image, Rows

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.classical.methods import METHODS
from quietscope.storage.stack import stack_from_array

FILE = "comparison_pairs.json"


def scored(method: str, noisy: Image, truth: Image) -> dict[str, Any]:
    noise_model = bootstrap_noise_model([stack_from_array(noisy[None])])
    denoiser = ClassicalDenoiser(method, noisy.shape, noise_model=noise_model)
    out = np.empty((2, *noisy.shape), np.float32)
    if len(METHODS[method].strengths) > 1:
        denoiser.denoise(noisy[None], out)  # settles the strength
    began = time.process_time()
    denoiser.denoise(noisy[None], out)
    return {
        "affine_psnr_db": score(out[0], truth),
        "cpu_ms_per_frame": 1e3 * (time.process_time() - began),
        "strength": denoiser.strength,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("methods", nargs="*", default=[], help=", ".join(METHODS))
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    rows = Rows(given.out / FILE, ("image", "method"))
    for (image, (noisy, truth)), method in product(pairs().items(), given.methods or METHODS):
        key = {"image": image, "method": method}
        if not rows.holds(key):
            rows.add(key | scored(method, noisy, truth))


if __name__ == "__main__":
    main()
