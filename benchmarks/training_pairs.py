"""One noisy image, nothing else: what each algorithm makes of it, against filters.

A confocal frame (FISH) and seven widefield frames (w2s), each with the average of many repeats,
which only the score sees. Every algorithm is trained on the one noisy image that it then denoises;
the noise model is bootstrapped from it. The w2s images were contrast-stretched each on its own, so
that estimates, filters and the noisy image itself are scored after the best affine fit to the
average. The filters are scikit-image's non-local means, wavelets and total variation, calibrated
on the noisy image by its own `calibrate_denoiser` (Batson & Royer 2019, arXiv:1901.11365); what
the same filters would reach if the truth chose their parameters is given beside it.

    python benchmarks/training_pairs.py --steps 2000

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from skimage.io import imread
from skimage.restoration import (
    calibrate_denoiser,
    denoise_nl_means,
    denoise_tv_chambolle,
    denoise_wavelet,
    estimate_sigma,
)
from training_rows import DATA, RESULTS, Image, Rows, affine_fitted, denoised, fitted, is_default

from quietscope.inference.evaluation.metrics import psnr_db
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import TrainingOptions

ALGORITHMS = ("lattice", "n2v", "n2v2", "structn2v", "pn2v")
Filter = Callable[..., Image]


def pairs() -> dict[str, tuple[Image, Image]]:
    """Return noisy image and average by name, (Y, X) uint8 each."""
    found = {
        "fish": (
            imread(DATA / "fmd_pairs" / "Confocal_FISH_3_raw.png"),
            imread(DATA / "fmd_pairs" / "Confocal_FISH_3_gt.png"),
        )
    }
    for path in sorted((DATA / "w2s_pairs").glob("*_avg1.tif")):
        truth = path.with_name(path.name.replace("avg1", "avg400"))
        found[path.name.removesuffix("_avg1.tif")] = (imread(path), imread(truth))
    return found


def score(image: Image, truth: Image) -> float:
    return psnr_db(affine_fitted(image, truth), truth)


def filters(sigma: float) -> dict[str, tuple[Filter, dict[str, Any]]]:
    """Return each filter with the settings that its calibration may choose from."""
    strengths = sigma * np.array([0.4, 0.6, 0.8, 1.0, 1.3, 1.7])
    return {
        "non-local means": (
            denoise_nl_means,
            {
                "h": strengths,
                "sigma": [0.0, sigma],
                "patch_size": [5, 7],
                "patch_distance": [9],
            },
        ),
        "wavelet": (
            denoise_wavelet,
            {"sigma": 2 * strengths, "wavelet": ["db1", "db2", "sym4"], "mode": ["soft", "hard"]},
        ),
        "total variation": (denoise_tv_chambolle, {"weight": sigma * np.geomspace(0.3, 8, 14)}),
    }


def filter_rows(noisy: Image, truth: Image) -> Iterator[dict[str, Any]]:
    image = noisy.astype(np.float64) / 255
    for name, (denoise, settings) in filters(float(estimate_sigma(image))).items():
        invariant, (tried, losses) = calibrate_denoiser(
            image, denoise, denoise_parameters=settings, extra_output=True
        )
        chosen = tried[int(np.argmin(losses))]
        # The calibrated filter as it is, and in the form that cannot see its target.
        calibrated = (denoise(image, **chosen), invariant(image))
        yield {
            "method": name,
            "affine_psnr_db": max(score(result, truth) for result in calibrated),
            "settings_by_truth_db": max(score(denoise(image, **one), truth) for one in tried),
            "settings": {key: str(value) for key, value in chosen.items()},
        }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--steps", type=int, default=2000)
    arguments.add_argument("--algorithms", nargs="*", default=list(ALGORITHMS))
    arguments.add_argument("--images", nargs="*", help="Names of pairs; all where not given.")
    arguments.add_argument("--no-filters", action="store_true", help="Keep their stored rows.")
    arguments.add_argument("--out", type=Path, default=RESULTS)
    chosen = arguments.parse_args()
    rows = Rows(chosen.out / "training_pairs.json", ("image", "method"), steps=chosen.steps)
    for name, (noisy, truth) in pairs().items():
        if chosen.images and name not in chosen.images:
            continue
        rows.add({"image": name, "method": "as recorded", "affine_psnr_db": score(noisy, truth)})
        for row in () if chosen.no_filters else filter_rows(noisy, truth):
            rows.add({"image": name, **row})
        for algorithm in chosen.algorithms:
            options = TrainingOptions(algorithm=algorithm, steps=chosen.steps)
            estimator, run = fitted([stack_from_array(noisy[None])], options)
            estimate, _ = denoised(estimator, noisy[None])
            rows.add(
                {
                    "image": name,
                    "method": algorithm,
                    "default": is_default(options),
                    "affine_psnr_db": score(estimate, truth),
                    "steps": run.step,
                }
            )
    summary(rows.rows)


def summary(rows: list[dict[str, Any]]) -> None:
    """Print, for each image and algorithm, the gain over the image and over the best filter."""
    figures = {(row["image"], row["method"]): row["affine_psnr_db"] for row in rows}
    for image in dict.fromkeys(row["image"] for row in rows):
        noisy = figures[image, "as recorded"]
        best = max(figures.get((image, name), 0.0) for name in filters(1.0))
        for algorithm in ALGORITHMS:
            if (image, algorithm) in figures:
                own = figures[image, algorithm]
                gains = f"{own - noisy:+.2f} dB, {own - best:+.2f} dB to the best filter"
                print(f"{image:12} {algorithm:10} {gains}")


if __name__ == "__main__":
    main()
