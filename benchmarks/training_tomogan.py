"""TomoGAN's own measure in small: simulated tomograms of few photons or few views, by SSIM.

Liu et al. 2020, doi:10.1364/JOSAA.375595 (arXiv:1902.07582), simulate a foam phantom: a cylinder
with bubbles. Here its slices of 128 x 128 are projected by scikit-image's Radon transform,

    few photons   180 views, 200 photons a ray
    few views      20 views, 100,000 photons a ray

and reconstructed by filtered back-projection (ramp). The truth is the reconstruction of noiseless
projections from 180 views. Three phantoms are learned from, a fourth is tested. SSIM has its
authors' window (Gaussian, 11 pixels, 1.5). Compared are, for the same steps of the same U-Net,

    fbp, fbp hann                what is reconstructed, and with the filter that damps noise
    bm3d                         of fbp, its strength chosen by the truth
    squared, squared 3 slices    `care --loss squared`: supervised, by squared error alone
    tomogan, tomogan 3 slices    with a critic and features besides; the authors' has 3 slices

A network that is trained to please a critic may draw what is not there. Bubbles of an estimate
that touch none of the truth's are counted as `invented`, the truth's that none of the estimate
touches as `lost`, both a slice (what is darker than half of the material, from four pixels on).
Without a truth the trust figures look for the same: `standing_out` is the largest residual after
the filters of `inference.trust.local_evidence`, in units of what they leave of white noise: a
bubble that was drawn leaves a residual as wide as it is.

    python benchmarks/training_tomogan.py [--steps 400] [--left N] [--summary]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import estimate_sigma
from skimage.transform import iradon, radon
from training_rows import RESULTS, Rows

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.evaluation.metrics import psnr_db, ssim_gaussian_map
from quietscope.inference.trust.local_evidence import filtered
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.options import TrainingOptions
from quietscope.training.train import fit, read

Volume = NDArray[np.float64]

EDGE, DEPTH = 128, 14
TRAINED = 3
RADIUS = 0.45 * EDGE
ABSORBED = 2.0
"""Optical depth of the whole cylinder."""
OFFSET, SCALE = 8_000.0, 10_000.0
"""How a reconstruction is stored as uint16; 1 is the material, 0 air."""
LEAST_BUBBLE_PX = 4
BM3D_STRENGTHS = (0.7, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Regime:
    """How a phantom is looked at."""

    views: int
    photons: float


REGIMES = {"few photons": Regime(180, 200.0), "few views": Regime(20, 1e5)}
TRAINED_METHODS: dict[str, dict[str, Any]] = {
    "squared": {"algorithm": "care", "loss": "squared"},
    "squared 3 slices": {"algorithm": "care", "loss": "squared", "planes": 1},
    "tomogan": {"algorithm": "tomogan"},
    "tomogan 3 slices": {"algorithm": "tomogan", "planes": 1},
}
UNTRAINED = ("fbp", "fbp hann", "bm3d")


def foam(seed: int) -> Volume:
    """Return a cylinder with bubbles that do not touch, (Z, Y, X); 1 is the material."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:DEPTH, :EDGE, :EDGE]
    centre = (EDGE - 1) / 2
    volume = (np.hypot(y - centre, x - centre) < RADIUS).astype(float)
    bubbles: list[tuple[NDArray[np.float64], float]] = []
    for radius in np.sort(np.exp(rng.uniform(np.log(1.5), np.log(13), 2500)))[::-1]:
        place = np.array([rng.uniform(0, DEPTH), *rng.uniform(0, EDGE, 2)])
        inside = np.hypot(*(place[1:] - centre)) + radius < RADIUS - 1
        if inside and all(
            np.linalg.norm(place - other) > radius + wide + 1 for other, wide in bubbles
        ):
            bubbles.append((place, radius))
    for (cz, cy, cx), radius in bubbles:
        away = np.sqrt((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2)
        volume *= np.clip(away - radius + 0.5, 0, 1)  # an edge of one pixel
    return volume


def sinogram(piece: Volume, views: int) -> Volume:
    """Return the line integrals, (rays, views)."""
    angles = np.linspace(0, 180, views, endpoint=False)
    found: Volume = radon(piece, angles, circle=True)
    return found


def reconstructed(projections: Volume, filtering: str = "ramp") -> Volume:
    """Return the slice by filtered back-projection, (Y, X)."""
    angles = np.linspace(0, 180, projections.shape[1], endpoint=False)
    found: Volume = iradon(projections, angles, filter_name=filtering, circle=True)
    return found


def measured(projections: Volume, photons: float, rng: np.random.Generator) -> Volume:
    """Return line integrals as so many photons a ray tell them."""
    unit = ABSORBED / (2 * RADIUS)
    counted = rng.poisson(photons * np.exp(-unit * projections))
    return -np.log(np.maximum(counted, 1) / photons) / unit


@dataclass(frozen=True)
class Seen:
    """A phantom as it is reconstructed, (Z, Y, X) each."""

    fbp: Volume
    hann: Volume
    truth: Volume

    def stacks(self) -> tuple[Stack, Stack]:
        """Return what a network is given, and its truth."""
        pixels = np.clip(np.rint(OFFSET + SCALE * self.fbp), 0, 65535).astype(np.uint16)
        truth = (OFFSET + SCALE * self.truth).astype(np.float32)
        return (
            stack_from_array(pixels, axes=("z",), path="reconstruction"),
            stack_from_array(truth, axes=("z",), path="truth"),
        )


@cache
def seen(regime: str, seed: int) -> Seen:
    """Return a phantom under a regime."""
    how, rng = REGIMES[regime], np.random.default_rng([7, seed])
    parts = []
    for piece in foam(seed):
        noisy = measured(sinogram(piece, how.views), how.photons, rng)
        clean = reconstructed(sinogram(piece, 180))
        parts.append((reconstructed(noisy), reconstructed(noisy, "hann"), clean))
    return Seen(*(np.stack(part) for part in zip(*parts, strict=True)))


def trained(name: str, regime: str, steps: int, seed: int) -> tuple[Volume, dict[str, Any]]:
    """Return estimates of the tested phantom, and what the training was."""
    options = TrainingOptions(steps=steps, seed=seed, **TRAINED_METHODS[name])
    pairs = [seen(regime, number).stacks() for number in range(TRAINED)]
    stacks, truths = zip(*pairs, strict=True)
    began = time.process_time()
    recordings, _ = read(stacks, options, None, None, _unheard, truths=truths)
    noise_model = bootstrap_noise_model(list(stacks), seed=seed)
    estimator, run = fit(recordings, noise_model, options, started=time.monotonic())
    took = time.process_time() - began
    tested, _ = seen(regime, TRAINED).stacks()
    estimates = []
    for index in range(DEPTH):
        planes = [index]
        if options.planes:
            planes += [index - 1, index + 1]
        frames = [
            tested.frame(at) if 0 <= at < DEPTH else np.zeros((EDGE, EDGE), np.uint16)
            for at in planes
        ]
        with torch.no_grad():
            mean, _ = estimator.eval()(torch.from_numpy(np.stack(frames)[None].astype(np.float32)))
        estimates.append((mean[0, 0].double().numpy() - OFFSET) / SCALE)
    return np.stack(estimates), {"steps": run.step, "core_seconds": took}


def untrained(name: str, regime: str) -> Volume:
    """Return estimates of the tested phantom by what needs no training."""
    found = seen(regime, TRAINED)
    if name == "fbp":
        return found.fbp
    if name == "fbp hann":
        return found.hann
    from bm3d import bm3d

    sigma = float(np.mean([estimate_sigma(one) for one in found.fbp]))
    tried = [
        np.stack([bm3d(one, strength * sigma) for one in found.fbp[SCORED]])
        for strength in BM3D_STRENGTHS
    ]
    truth = found.truth[SCORED]
    best = max(
        tried, key=lambda one: np.mean([ssim(*pair) for pair in zip(one, truth, strict=True)])
    )
    estimates = found.fbp.copy()
    estimates[SCORED] = best
    return estimates


SCORED = slice(1, DEPTH - 1, 2)
"""Slices that have a neighbour on either side."""


def ssim(image: Volume, truth: Volume) -> float:
    return ssim_gaussian_map(image, truth)[0]


def scores(estimates: Volume, regime: str) -> dict[str, float]:
    """Return how near the estimates are to the truth, and what they drew or lost."""
    known = seen(regime, TRAINED)
    found = []
    for image, truth, given in zip(
        estimates[SCORED], known.truth[SCORED], known.fbp[SCORED], strict=True
    ):
        invented, lost = unlike(image, truth)
        residual = given - image
        maps = filtered(residual / max(float(residual.std()), 1e-9))
        found.append(
            {
                "ssim": ssim(image, truth),
                "psnr_db": psnr_db(image, truth),
                "invented": invented,
                "lost": lost,
                "standing_out": max((float(np.abs(one).max()) for one in maps), default=0.0),
            }
        )
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def unlike(image: Volume, truth: Volume) -> tuple[int, int]:
    """Return how many bubbles of an image the truth does not have, and the other way round."""
    drawn, there = bubbles_of(image), bubbles_of(truth)
    return untouched(drawn, there), untouched(there, drawn)


def bubbles_of(image: Volume) -> NDArray[np.bool_]:
    """Return where the cylinder is darker than half of its material."""
    centre = (EDGE - 1) / 2
    y, x = np.mgrid[:EDGE, :EDGE]
    dark: NDArray[np.bool_] = (image < 0.5) & (np.hypot(y - centre, x - centre) < RADIUS - 3)
    return dark


def untouched(these: NDArray[np.bool_], others: NDArray[np.bool_]) -> int:
    """Return how many connected parts touch none of the others."""
    labels, count = ndimage.label(these)
    numbers = np.arange(1, count + 1)
    large = ndimage.sum_labels(these, labels, numbers) >= LEAST_BUBBLE_PX
    touched = ndimage.maximum(ndimage.binary_dilation(others), labels, numbers) > 0
    return int((large & ~np.asarray(touched)).sum()) if count else 0


def _unheard(remark: str) -> None:
    """Say nothing."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--regimes", nargs="*", default=list(REGIMES))
    arguments.add_argument("--methods", nargs="*", default=[*UNTRAINED, *TRAINED_METHODS])
    arguments.add_argument("--steps", type=int, default=400)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--left", type=int, help="Rows after which to stop.")
    arguments.add_argument("--summary", action="store_true", help="Print what is stored only.")
    arguments.add_argument("--out", type=Path, default=RESULTS / "training_tomogan.json")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    rows = Rows(
        chosen.out, ("regime", "method", "seed", "steps"), scored_slices=len(range(DEPTH)[SCORED])
    )
    if not chosen.summary:
        measure(rows, chosen)
    for row in rows.rows:
        figures = "  ".join(
            f"{name} {row[name]:.3f}" for name in ("ssim", "psnr_db", "invented", "lost")
        )
        print(f"{row['regime']:12} {row['method']:18} {figures}")


def measure(rows: Rows, chosen: argparse.Namespace) -> None:
    """Store every row that is not there yet."""
    there = {(row["regime"], row["method"], row["seed"]) for row in rows.rows}
    wanted = [
        (regime, name, chosen.seed if name in TRAINED_METHODS else None)
        for regime in chosen.regimes
        for name in chosen.methods
    ]
    for regime, name, seed in [one for one in wanted if one not in there][: chosen.left]:
        facts: dict[str, Any] = {"steps": None}
        if name in TRAINED_METHODS:
            estimates, facts = trained(name, regime, chosen.steps, chosen.seed)
        else:
            estimates = untrained(name, regime)
        rows.add(
            {"regime": regime, "method": name, "seed": seed, **facts, **scores(estimates, regime)}
        )


if __name__ == "__main__":
    main()
