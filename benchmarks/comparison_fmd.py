"""Filters without training on the FMD mixed test set, beside the published figures.

    python benchmarks/comparison_fmd.py [--methods gaussian …] [--scenes Confocal_FISH …] [--again]
    python benchmarks/comparison_tables.py

48 noisy images of 12 scenes (Zhang et al. 2019, doi:10.1109/CVPR.2019.01198), 512² uint8; truth:
the mean of 50 repeats. PSNR at range 255, as it was published. The noise model of each scene
is bootstrapped from its four noisy images; strengths are chosen on the first of them, without
truth. `frames 4` filters the mean of the four: what needs no filter's wit but more light.
The published filters were told the noise of each image by Foi's estimator, and their strength.
`cpu_ms_per_frame` is processor time on one thread.

The noise of the wide-field scenes is correlated between neighbours, by 0.6 along both axes: no
filter for white noise can see that it is noise, so they have a row of their own.

Rows are stored as they are measured, and those that are stored are not measured again without
`--again`. The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from fmd_testset import REPEATS, psnr_255_db, repeats, scenes, truth_of
from numpy.typing import NDArray
from training_rows import RESULTS, Rows

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.gaussian_mixture import GaussianMixtureNoiseModel
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.classical.methods import METHODS
from quietscope.inference.classical.settled_strength import settle_strength

FILE = "comparison_fmd.json"


@cache
def noise_of(scene: str) -> GaussianMixtureNoiseModel:
    return bootstrap_noise_model([repeats(scene)])


def scored(scene: str, method: str, frames: int) -> dict[str, Any]:
    """Score a filter of the product on one scene."""
    stack = repeats(scene)
    denoiser = ClassicalDenoiser(
        method, stack.frame_shape, frames=frames, noise_model=noise_of(scene)
    )
    if len(METHODS[method].strengths) > 1:
        settle_strength(denoiser, stack, range(len(stack)))
    out = np.empty((2, *stack.frame_shape), np.float32)

    def estimate(index: int) -> NDArray[Any]:
        denoiser.denoise(stack.observations(index, frames - 1), out)
        return out[0]

    found = _scores(scene, estimate, range(frames - 1, REPEATS))
    return found | {"strength": denoiser.strength, "strength_is": METHODS[method].strength_is}


def _scores(
    scene: str, estimate: Callable[[int], NDArray[Any]], indices: Iterable[int]
) -> dict[str, Any]:
    truth = truth_of(scene)
    scores, seconds = [], []
    for index in indices:
        began = time.process_time()
        image = estimate(index)
        seconds.append(time.process_time() - began)
        scores.append(psnr_255_db(image, truth))
    return {"psnr_db": scores, "cpu_ms_per_frame": 1e3 * float(np.median(seconds))}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments.add_argument("--scenes", nargs="+", default=scenes())
    arguments.add_argument("--frames", nargs="+", type=int, default=[1, REPEATS])
    arguments.add_argument("--again", action="store_true", help="Measure what is stored, too.")
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    rows = Rows(given.out / FILE, ("method", "frames", "scene"))
    for scene, method, frames in product(given.scenes, given.methods, given.frames):
        key = {"method": method, "frames": frames, "scene": scene}
        if given.again or not rows.holds(key):
            rows.add(key | scored(scene, method, frames))


if __name__ == "__main__":
    main()
