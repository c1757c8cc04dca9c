"""What filters without training reach on real data, and what the inverse of the transform costs.

    python benchmarks/inference_classical.py [--methods gaussian lee …] [--out FILE]

Six nandb stacks (photon counting, 50 repeats); truth: the mean of the frames that are no inputs.
Strengths are chosen on the first frame of each stack, without truth. `frames 7` filters the mean
of a frame and the six before it: the trivial competitor of every model with context. Methods that
work in stabilised units are run with the exact unbiased inverse and with the algebraic one. The
bias is that of a perfect filter on flat scenes of few photons, in units of the noise's scatter.

The data are found through the environment variable QUIETSCOPE_DATA. BM3D, which takes seconds a
frame, is scored on one frame of each stack.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.noise_model import NoiseModel
from quietscope.errors import MissingExtraError
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.classical.methods import METHODS
from quietscope.inference.classical.variance_stabilisation import VarianceStabilisation
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.runtime.providers import all_cores, cpu_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import Stack

DATA = Path(os.environ.get("QUIETSCOPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results" / "inference_classical.json"
FRAMES = (19, 35)
SLOW = ("bm3d",)
AVERAGED = (1, 7)
OBSERVATIONS = 200_000
BIAS_AT = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of the calibrated range."""


def score(method: str, stacks: list[Stack], noise_model: NoiseModel, **how: Any) -> dict[str, Any]:
    results, strengths = [], []
    for stack in stacks:
        denoiser = ClassicalDenoiser(method, stack.frame_shape, noise_model=noise_model, **how)
        if len(METHODS[method].strengths) > 1:  # choosing is not timed
            seen = stack.observations(FRAMES[0], denoiser.context_frames)
            denoiser.denoise(seen, np.empty((2, *stack.frame_shape), np.float32))
        chosen = FRAMES[:1] if method in SLOW else FRAMES
        results.append(evaluate(stack, denoiser, static=True, frames=chosen).result())
        strengths.append(denoiser.strength)
    keys = ("psnr_db", "ssim", "nrmse", "ms_per_frame")
    found = {key: float(np.mean([result[key] for result in results])) for key in keys}
    return found | {"strengths": strengths}


def bias(noise_model: NoiseModel) -> list[dict[str, float]]:
    """Return the bias of both inverses on flat scenes, in the noise's standard deviations."""
    low, high = noise_model.signal_range_adu
    exact = VarianceStabilisation(noise_model)
    algebraic = VarianceStabilisation(noise_model, exact=False)
    rows = []
    for share in BIAS_AT:
        signal = low + share * (high - low)
        observed = observations(noise_model, signal)
        mean = exact.forward(observed).mean(dtype=np.float64)
        scatter = float(np.sqrt(noise_model.variance(signal)))
        rows.append(
            {
                "signal_adu": signal,
                "algebraic": float(algebraic.back(mean) - observed.mean()) / scatter,
                "exact": float(exact.back(mean) - observed.mean()) / scatter,
            }
        )
    return rows


def observations(noise_model: NoiseModel, signal: float) -> np.ndarray[Any, Any]:
    """Draw observations of one signal from the noise model."""
    mixture, random = noise_model.mixture(np.array([signal])), np.random.default_rng(0)
    which = random.choice(len(mixture.weights), OBSERVATIONS, p=mixture.weights[:, 0])
    normal = random.standard_normal(OBSERVATIONS)
    drawn = mixture.offsets[which, 0] + np.sqrt(mixture.variances[which, 0]) * normal
    return np.asarray(signal + drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    stacks = [open_stack(p) for p in sorted((DATA / "nandb_fkbp_confocal").glob("*.tif"))]
    noise_model = bootstrap_noise_model(stacks)
    found: dict[str, dict[str, Any]] = {}
    for row in (biases := bias(noise_model)):
        print(
            f"bias at {row['signal_adu']:.1f} ADU: algebraic {row['algebraic']:+.3f} σ, exact "
            f"{row['exact']:+.3f} σ",
            flush=True,
        )
    for method in given.methods:
        for frames in AVERAGED:
            inverses = (True, False) if METHODS[method].units == "stable" else (True,)
            for exact in inverses:
                try:
                    row = score(method, stacks, noise_model, frames=frames, exact_inverse=exact)
                except MissingExtraError as error:
                    print(error)
                    continue
                name = f"{method}, frames {frames}" + ("" if exact else ", algebraic inverse")
                found[name] = row
                print(
                    f"{name:42} {row['psnr_db']:.2f} dB, SSIM {row['ssim']:.3f}, "
                    f"{row['ms_per_frame']:.0f} ms per 256² frame",
                    flush=True,
                )
    hardware = cpu_name(all_cores())
    load = round(psutil.getloadavg()[0], 1)
    write_json(
        given.out,
        {"hardware": hardware, "other_load": load, "bias": biases, "methods": found},
    )


if __name__ == "__main__":
    main()
