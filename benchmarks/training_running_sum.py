"""Many past frames in one plane: the running sum of the general model, where things move.

The scenes, regions and flashes of `training_motion`, and its rows of `lattice` with and without
preceding frames, which learned from the same scene: here nothing is trained unless `refined` is
asked for. Beside them what anybody can do: the mean of the same frames with a Gaussian whose width
the truth chose, and one frame with it.

    python benchmarks/training_running_sum.py [--role held-out] [--refine-steps 300]
    python benchmarks/training_running_sum.py --milliseconds

`sum without a stop` is the general model on the plain mean of the same frames: what the stop is
worth. `cpu_ms` is what a frame of 256² takes, of process time on one core. `--milliseconds`
measures the exported graphs of both, with and without preceding frames, in turn: median of process
time for a frame of 512² on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from training_motion import (
    REGIONS,
    SEEDS,
    TESTED,
    ResidentChunk,
    Scene,
    by_region,
    flashes,
    learned,
    whole_frame,
)
from training_rows import RESULTS, Rows, fitted

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.gaussian_mixture import GaussianMixtureNoiseModel
from quietscope.inference.general.camera_constants import CameraConstants
from quietscope.inference.general.for_camera import general_bundle
from quietscope.inference.general.shipped import read_shipped
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.model.general import GeneralEstimator, GeneralNetwork, shipped_state
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

KEPT = Path(tempfile.gettempdir()) / "quietscope-benchmark-general"
PRECEDING = 4
TIMED_SHAPE = (512, 512)
TIMED_ROUNDS = 21
SIGMAS = (0.6, 0.8, 1.0, 1.2, 1.5)
Estimate = Callable[[Tensor], tuple[Tensor, Tensor]]


class General:
    """The general model as `training_motion` takes an estimator."""

    def __init__(self, noise_model: GaussianMixtureNoiseModel, context: int) -> None:
        bundle = general_bundle(
            noise_model, "uint16", context_frames=context, with_maps=False, kept_in=KEPT
        )
        self._denoiser = OnnxDenoiser(bundle, (256, 256), provider="cpu", threads=1)

    def __call__(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation for (1, 1 + T, Y, X)."""
        out = np.empty((2, *observations.shape[2:]), np.float32)
        self._denoiser.denoise(observations[0].numpy(), out)
        mean, deviation = torch.from_numpy(out)[:, None, None]
        return mean, deviation


class PlainSum:
    """The general model on the sum of all frames, as if they were one exposure."""

    def __init__(self, of_one: GaussianMixtureNoiseModel) -> None:
        network = GeneralNetwork()
        network.load_state_dict(shipped_state())
        self._estimator = GeneralEstimator(network.eval())
        self._camera = CameraConstants.of(of_one)

    def __call__(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation for (1, 1 + T, Y, X); missing frames are left out."""
        frames = observations.to(torch.float32)
        there = frames.amax(dim=(2, 3), keepdim=True) > 0
        count = int(there.sum())
        summed = (frames * there).sum(dim=1, keepdim=True)
        known = self._camera
        camera = torch.tensor(
            [count * known.offset_adu, known.gain_adu_per_e, count * known.read_variance_e2]
        )
        with torch.no_grad():
            mean, deviation = self._estimator(summed, camera)
        return mean / count, deviation / count


def blurred_mean(sigma: float) -> Estimate:
    """Return the mean of all frames that are there, blurred; it states no uncertainty."""

    def estimate(observations: Tensor) -> tuple[Tensor, Tensor]:
        frames = observations[0].numpy().astype(np.float64)
        mean = gaussian_filter(frames[frames.max(axis=(1, 2)) > 0].mean(axis=0), sigma)
        there = torch.from_numpy(mean)[None, None]
        return there, torch.ones_like(there)

    return estimate


def best_blur(moving: ResidentChunk, context: int) -> float:
    """Return the width that the truth would choose, over the whole frame."""
    found = {sigma: whole_frame(blurred_mean(sigma), moving, context) for sigma in SIGMAS}
    return max(found, key=lambda sigma: found[sigma])


def figures(
    estimate: Any, moving: ResidentChunk, still: ResidentChunk, context: int
) -> dict[str, Any]:
    """Return what `training_motion` measures of an estimator, and its process time."""
    observations = torch.from_numpy(moving.observations(TESTED[0], context)[None])
    estimate(observations)
    began = time.process_time()
    for _ in range(5):
        estimate(observations)
    return {
        "cpu_ms": 200 * (time.process_time() - began),
        "context": context,
        "psnr_db": by_region(estimate, moving, context),
        "standing_still_db": whole_frame(estimate, still, context),
        "one_frame_before_db": whole_frame(estimate, moving, context, range(2, context + 1)),
        "last_frame_lost_db": whole_frame(
            estimate, moving, context, range(1, min(context, 1) + 1)
        ),
        **flashes(estimate, moving, context),
        "flash_lost_share": flash_lost(estimate, moving, context),
    }


def flash_lost(estimate: Any, moving: ResidentChunk, context: int) -> float:
    """Return the share of flashes of which less than 80 % of the light is shown."""
    shares = []
    for t, (y, x) in moving.flashes.items():
        disc = np.s_[y - 4 : y + 5, x - 4 : x + 5]
        lit, plain = (
            estimate(torch.from_numpy(moving.observations(t, context, lit=which)[None]))[0]
            for which in (t, None)
        )
        seen = (moving.lit[t].astype(float) - moving.plain[t].astype(float))[disc].mean()
        shares.append(float((lit - plain)[0, 0].numpy()[disc].mean()) / seen)
    return float(np.mean(np.array(shares) < 0.8))


def rows_of(scene: Scene, steps: int, only: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    stack = learned(scene)
    noise_model = bootstrap_noise_model([stack])
    moving, still = ResidentChunk(scene), ResidentChunk(scene, still=True)
    estimators: dict[str, tuple[Callable[[], Any], int]] = {
        "general, one frame": (lambda: General(noise_model, 0), 0),
        "general, running sum": (lambda: General(noise_model, PRECEDING), PRECEDING),
        "general, sum without a stop": (lambda: PlainSum(noise_model), PRECEDING),
        "gaussian, one frame": (lambda: blurred_mean(best_blur(moving, 0)), 0),
        "gaussian of the running mean": (
            lambda: blurred_mean(best_blur(moving, PRECEDING)),
            PRECEDING,
        ),
    }
    if steps:
        estimators["refined, running sum"] = (
            lambda: refined(stack, noise_model, steps),
            PRECEDING,
        )
    return {
        name: figures(make(), moving, still, context)
        for name, (make, context) in estimators.items()
        if not only or name in only
    }


def refined(stack: Stack, noise_model: GaussianMixtureNoiseModel, steps: int) -> Any:
    """Return the general model after some steps on the scene itself."""
    options = TrainingOptions(algorithm="refined", context_frames=PRECEDING, steps=steps)
    return fitted([stack], options, noise_model)[0]


def stored_lattice(rows: Rows) -> None:
    """Take over the rows of `lattice` from `training_motion`."""
    stored = Rows(RESULTS / "training_motion.json", ("seed", "context")).rows
    for row in stored:
        if row["context"] in (0, PRECEDING):
            name = "lattice, " + ("one frame" if not row["context"] else "4 preceding")
            rows.add({**row, "method": name, "from": "training_motion.json"})


def milliseconds() -> dict[str, float]:
    """Return what a frame of 512² takes, by method; speed does not depend on the weights."""
    part = learned(Scene(1)).frames(range(24))[:, :128, :128]
    stack = stack_from_array(np.ascontiguousarray(part), path="part of a simulated scene")
    known = bootstrap_noise_model([stack])
    taken: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        denoisers: dict[str, OnnxDenoiser] = {}
        for context in (0, PRECEDING):
            options = TrainingOptions(algorithm="lattice", steps=2, context_frames=context)
            own = Path(folder) / f"lattice-{context}"
            train([stack], own, options, noise_model=known)
            made = general_bundle(
                known, "uint16", context_frames=context, with_maps=False, kept_in=KEPT
            )
            for name, bundle in (("lattice", own), ("general", made)):
                denoiser = OnnxDenoiser(bundle, TIMED_SHAPE, provider="cpu", threads=1)
                denoisers[f"{name}, {context} preceding"] = opened.enter_context(denoiser)
        frames = np.random.default_rng(0).poisson(300, (1 + PRECEDING, *TIMED_SHAPE))
        out = np.empty((2, *TIMED_SHAPE), np.float32)
        for _ in range(TIMED_ROUNDS):
            for name, denoiser in denoisers.items():
                seen = frames[: 1 + denoiser.context_frames].astype(np.uint16)
                began = time.process_time()
                denoiser.denoise(seen, out)
                taken[name].append(1e3 * (time.process_time() - began))
    return {name: statistics.median(values) for name, values in taken.items()}


def summary(rows: Sequence[Mapping[str, Any]], role: str) -> None:
    """Print the mean over the seeds of a role, dB, by region."""
    found = defaultdict(list)
    for row in rows:
        if row["seed"] in SEEDS[role]:
            found[row["method"]].append(row)
    for method, of_seeds in found.items():
        shown = {
            name: np.mean([row["psnr_db"][name] for row in of_seeds])
            for name in ("whole", *REGIONS)
        }
        shown["standing_still"] = np.mean([row["standing_still_db"] for row in of_seeds])
        text = ", ".join(f"{name} {value:.2f}" for name, value in shown.items())
        z = np.mean([row["psnr_db"]["uncertainty_z_std"] for row in of_seeds])
        flash = np.mean([row["flash_adu"] for row in of_seeds])
        echo = max(row["worst_echo_share"] for row in of_seeds)
        print(f"{method}: {text}; z {z:.2f}; flash {flash:.1f} ADU, worst echo {echo:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--role", choices=list(SEEDS), default="held-out")
    parser.add_argument("--seeds", type=int, nargs="*", help="Of the role's; all if not given.")
    parser.add_argument("--refine-steps", type=int, default=0)
    parser.add_argument("--milliseconds", action="store_true", help="Time the graphs alone.")
    parser.add_argument("--only", nargs="*", help="These methods alone.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(
        given.out / "training_running_sum.json",
        ("seed", "method"),
        seeds=SEEDS,
        general_sha256=read_shipped().identity,
    )
    if given.milliseconds:
        rows.add({"seed": None, "method": "cpu_ms_512", **milliseconds()})
        return
    stored_lattice(rows)
    for seed in SEEDS[given.role] if given.seeds is None else given.seeds:
        for method, found in rows_of(Scene(seed), given.refine_steps, given.only).items():
            rows.add({"seed": seed, "method": method, **found})
    summary(rows.rows, given.role)


if __name__ == "__main__":
    main()
