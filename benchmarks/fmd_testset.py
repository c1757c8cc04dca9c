"""The FMD mixed test set, and a training on one of its scenes, for the benchmarks that use them.

48 noisy images of 12 scenes (Zhang et al. 2019, doi:10.1109/CVPR.2019.01198), 512² uint8; truth:
the mean of 50 repeats. Owns how they are found, scored and learned from; no figure.

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.io import imread
from training_rows import DATA

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.noise_correlation import NoiseCorrelation
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.data.noise_correlation import noise_correlation
from quietscope.training.method_choice import with_method
from quietscope.training.methods import patch_edge
from quietscope.training.model.estimator import Estimator
from quietscope.training.options import TrainingOptions
from quietscope.training.run import Run
from quietscope.training.train import fit, read
from quietscope.training.working_clock import working_s

FOLDER = DATA / "fmd_testset"
RANGE = 255.0
REPEATS = 4

Image = NDArray[np.float64]


def scenes() -> list[str]:
    """Return the names of the twelve scenes, those with correlated noise first."""
    names = [path.stem.removesuffix("_1") for path in (FOLDER / "gt").glob("*_1.png")]
    return sorted(names, key=lambda name: (not name.startswith("WideField"), name))


def repeats(scene: str) -> Stack:
    """Return the four noisy images of a scene."""
    images = [imread(FOLDER / "raw" / f"{scene}_{number}.png") for number in range(1, REPEATS + 1)]
    return stack_from_array(np.stack(images), path=scene)


def truth_of(scene: str) -> Image:
    return imread(FOLDER / "gt" / f"{scene}_1.png").astype(np.float64)


def psnr_255_db(image: NDArray[Any], truth: Image) -> float:
    # Images of 8 bits, as the published ones: what lies outside of their range cannot be there.
    error = np.clip(image, 0, RANGE) - truth
    return float(10 * np.log10(RANGE**2 / (error**2).mean()))


@dataclass(frozen=True, slots=True)
class Trained:
    """A training on one stack, as `quietscope train` does it, without a bundle.

    Attributes
    ----------
    options
        With the method that was chosen.
    correlation
        Of the stack's noise.
    remarks
        What a user would have been told.
    """

    estimator: Estimator
    run: Run
    options: TrainingOptions
    correlation: NoiseCorrelation
    remarks: list[str]


def trained_on(stack: Stack, options: TrainingOptions) -> Trained:
    """Train on a stack and nothing else; the noise model is bootstrapped from it."""
    started = working_s()
    remarks: list[str] = []
    recordings, _ = read([stack], options, None, None, remarks.append)
    found = noise_correlation(recordings.resident)
    options = with_method(options, found, remarks.append)
    recordings = recordings.with_patch(patch_edge(options))
    noise_model = bootstrap_noise_model([stack], seed=options.seed)
    estimator, run = fit(
        recordings, noise_model, options, started=started, on_remark=remarks.append
    )
    return Trained(estimator, run, options, found, remarks)
