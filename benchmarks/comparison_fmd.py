"""Filters without training on the FMD mixed test set, beside the published figures.

    python benchmarks/comparison_fmd.py [--methods gaussian bm3d …] [--scenes Confocal_FISH …]
    python benchmarks/comparison_fmd.py --summary

48 noisy images of 12 scenes (Zhang et al. 2019, doi:10.1109/CVPR.2019.01198), 512² uint8; truth:
the mean of 50 repeats. PSNR at range 255, as it was published. The noise model of each scene
is bootstrapped from its four noisy images; strengths are chosen on the first of them, without
truth. `frames 4` filters the mean of the four: what needs no filter's wit but more light.
The published filters were told the noise of each image by Foi's estimator, and their strength.

The noise of the wide-field scenes is correlated between neighbours, by 0.6 along both axes: no
filter for white noise can see that it is noise, so they have a row of their own.

Rows are stored as they are measured: call it again for other methods or scenes. The data are
found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.io import imread
from training_rows import DATA, RESULTS, Rows

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.classical.methods import METHODS
from quietscope.inference.classical.settled_strength import settle_strength
from quietscope.storage.stack import Stack, stack_from_array

FOLDER = DATA / "fmd_testset"
RANGE = 255.0
REPEATS = 4
FILE = "comparison_fmd.json"
PUBLISHED = {
    "raw": 27.22,
    "VST+NLM": 31.25,
    "PURE-LET": 31.95,
    "VST+BM3D": 32.71,
    "N2N, pretrained": 34.70,
}
"""Mean PSNR over the 48 images, Zhang et al. 2019, table of the mixed test set."""
BESIDE = {"identity": "raw", "non-local-means": "VST+NLM", "bm3d": "VST+BM3D"}

Image = NDArray[np.float64]


def scenes() -> list[str]:
    """Return the names of the twelve scenes."""
    return sorted(path.stem.removesuffix("_1") for path in (FOLDER / "gt").glob("*_1.png"))


def repeats(scene: str) -> Stack:
    """Return the four noisy images of a scene."""
    images = [imread(FOLDER / "raw" / f"{scene}_{number}.png") for number in range(1, REPEATS + 1)]
    return stack_from_array(np.stack(images), path=scene)


def psnr_255_db(image: NDArray[Any], truth: Image) -> float:
    # Images of 8 bits, as the published ones: what lies outside of their range cannot be there.
    error = np.clip(image, 0, RANGE) - truth
    return float(10 * np.log10(RANGE**2 / (error**2).mean()))


def scored(scene: str, method: str, frames: int) -> dict[str, Any]:
    """Score a filter of the product on one scene."""
    stack = repeats(scene)
    model = bootstrap_noise_model([stack])
    denoiser = ClassicalDenoiser(method, stack.frame_shape, frames=frames, noise_model=model)
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
    truth = imread(FOLDER / "gt" / f"{scene}_1.png").astype(np.float64)
    scores, seconds = [], []
    for index in indices:
        began = time.perf_counter()
        image = estimate(index)
        seconds.append(time.perf_counter() - began)
        scores.append(psnr_255_db(image, truth))
    return {"psnr_db": scores, "ms_per_frame": 1e3 * float(np.median(seconds))}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over the scenes, of all and of the wide-field ones apart."""
    table = []
    for method, frames in dict.fromkeys((row["method"], row["frames"]) for row in rows):
        own = [row for row in rows if (row["method"], row["frames"]) == (method, frames)]
        wide = [row for row in own if row["scene"].startswith("WideField")]
        rest = [row for row in own if row not in wide]
        published = PUBLISHED.get(BESIDE.get(method, "")) if frames == 1 else None
        table.append(
            {
                "method": method,
                "frames": frames,
                "scenes": len(own),
                "psnr_db": _mean(own),
                "confocal_and_two_photon_db": _mean(rest),
                "wide_field_db": _mean(wide),
                "published_db": published,
                "ms_per_frame": float(np.median([row["ms_per_frame"] for row in own])),
            }
        )
    return sorted(table, key=lambda row: (row["frames"], row["psnr_db"] or 0))


def _mean(rows: list[dict[str, Any]]) -> float | None:
    return float(np.mean([row["psnr_db"] for row in rows])) if rows else None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments.add_argument("--scenes", nargs="+", default=scenes())
    arguments.add_argument("--frames", nargs="+", type=int, default=[1, REPEATS])
    arguments.add_argument("--summary", action="store_true", help="Print what is stored.")
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    rows = Rows(given.out / FILE, ("method", "frames", "scene"), published_psnr_db=PUBLISHED)
    for method in () if given.summary else given.methods:
        for scene in given.scenes:
            for frames in given.frames:
                found = scored(scene, method, frames)
                rows.add({"method": method, "frames": frames, "scene": scene, **found})
    for row in summary(rows.rows):
        figures = (row["psnr_db"], row["confocal_and_two_photon_db"], row["wide_field_db"])
        shown = "  ".join("  –  " if figure is None else f"{figure:5.2f}" for figure in figures)
        beside = "" if row["published_db"] is None else f", published {row['published_db']:.2f}"
        print(
            f"{row['method']:18} frames {row['frames']}  {shown} dB "
            f"(all, confocal and two-photon, wide-field) of {row['scenes']} scenes, "
            f"{row['ms_per_frame']:.0f} ms{beside}"
        )


if __name__ == "__main__":
    main()
