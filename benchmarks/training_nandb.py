"""What each method reaches on the six nandb stacks in a given time, against supervision.

Real photon-counting data (see the README of the data): 50 repeats of six scenes. A frame's truth
is the mean of the repeats that were not among its inputs. Prints one row per method and writes
them to `results/training_nandb.json`.

    python benchmarks/training_nandb.py --minutes 2.5 lattice n2v context "supervised U-Net"

Supervision knows the mean of the other repeats while it learns; a microscope never does:

`supervised lattice`
    the lattice network, as blind to its target as ever, its mean fitted to the truth; scored as
    that mean, and with the posterior step
`supervised U-Net`
    the network of `n2v`, which sees every pixel, fitted to the truth
`supervised U-Net elsewhere`
    the same, each half of the scenes denoised by a network that has learned from the other half
    only (it takes the time twice): what supervision is worth where the truth is not known

All have the optimiser of `n2v` and `lattice`: learning rate, warm-up and decay, clipping, average
of weights. The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from training_rows import (
    RESULTS,
    Example,
    Rows,
    denoised,
    is_default,
    nandb,
    repeats,
    z_by_brightness,
)

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import Stack
from quietscope.training.data.recordings import load_recordings
from quietscope.training.device import join_workers
from quietscope.training.methods import learner_for, patch_edge
from quietscope.training.methods.gaussian import GaussianLearner
from quietscope.training.methods.lattice import LatticeLearner
from quietscope.training.methods.uncertainty_calibration import calibrate_uncertainty
from quietscope.training.model.estimator import Estimator
from quietscope.training.model.noise_likelihood import TabulatedNoise
from quietscope.training.model.posterior import marginal_nll
from quietscope.training.model.weight_average import weight_average
from quietscope.training.options import TrainingOptions
from quietscope.training.schedule import Schedule, learning_rate_share
from quietscope.training.train import LARGEST_GRADIENT_NORM, train

METHODS: dict[str, dict[str, Any]] = {
    "lattice": {},
    "lattice fast": {"preset": "fast"},
    "lattice best": {"preset": "best"},
    "context": {"context_frames": 6},
    "context 4": {"context_frames": 4},
    "context 3": {"context_frames": 3},
    "n2v": {"algorithm": "n2v"},
    "n2v2": {"algorithm": "n2v2"},
    "structn2v": {"algorithm": "structn2v", "mask_axis": "x", "mask_span": 1},
    "pn2v": {"algorithm": "pn2v"},
}
SUPERVISED = ("supervised lattice", "supervised U-Net", "supervised U-Net elsewhere")
FRAMES = range(7, 50, 6)
CALIBRATION_FRAMES = 4

Loss = Callable[[GaussianLearner, Tensor, Tensor, torch.Generator], Tensor]


def trained(stacks: list[Stack], name: str, options: TrainingOptions) -> dict[str, Any]:
    options = replace(options, **METHODS[name])
    with tempfile.TemporaryDirectory() as folder:
        result = train(stacks, Path(folder) / "model", options)
        scores = [
            evaluate(stack, result.bundle, static=True, frames=FRAMES, provider="cpu").result()
            for stack in stacks
        ]
        denoiser = OnnxDenoiser(result.bundle, stacks[0].frame_shape, provider="cpu")
        examples = repeats(stacks, FRAMES, options.context_frames)
        estimates = []
        for one in examples:
            out = np.empty((2, *stacks[0].frame_shape), np.float32)
            denoiser.denoise(one.observations, out)
            estimates.append((out[0].astype(np.float64), out[1].astype(np.float64)))
        denoiser.close()
    keys = ("psnr_db", "psnr_raw_db", "uncertainty_z_std", "residual_correlation", "ms_per_frame")
    return {
        "default": is_default(options),
        "steps": result.steps,
        "seconds": result.seconds,
        **{key: float(np.mean([score[key] for score in scores])) for key in keys},
        "z_by_brightness": z_by_brightness(estimates, examples),
        "parity_max_relative_error": result.parity_max_relative_error,
    }


# ---------------------------------------------------------------------------- supervision


def supervised(stacks: Sequence[Stack], options: TrainingOptions, loss: Loss) -> Supervised:
    """Train a learner of the product on frames and their truth."""
    started = time.monotonic()
    torch.manual_seed(options.seed)
    pairs = [_with_truth(stack) for stack in stacks]
    recordings = load_recordings(
        stacks, context_frames=0, patch=patch_edge(options), memory_mib=options.memory_mib
    )
    units = {"centre_adu": recordings.centre_adu, "scale_adu": recordings.scale_adu}
    noise = TabulatedNoise(
        bootstrap_noise_model(stacks, seed=options.seed),
        low_adu=recordings.low_adu,
        high_adu=recordings.high_adu,
        **units,
    )
    workers = join_workers()
    learner = learner_for(options, noise)
    assert isinstance(learner, GaussianLearner)
    learner.network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(learner.network.parameters(), lr=1e-3, fused=True)
    average = weight_average(learner.network)
    schedule = Schedule(seconds=options.seconds, steps=options.steps, started=started)
    step = 0
    while (progress := schedule.progress(step)) < 1:
        patches = _paired(pairs, options, np.random.default_rng([options.seed, step]))
        both = (torch.from_numpy(patches) - units["centre_adu"]) / units["scale_adu"]
        optimizer.param_groups[0]["lr"] = learner.learning_rate * learning_rate_share(progress)
        optimizer.zero_grad(set_to_none=True)
        with workers.precision():
            value = loss(learner, both[:, :1], both[:, 1:], torch.Generator().manual_seed(step))
        value.backward()
        torch.nn.utils.clip_grad_norm_(learner.network.parameters(), LARGEST_GRADIENT_NORM)
        optimizer.step()
        average.update_parameters(learner.network)
        step += 1
    learner.network = average.module
    estimator = Estimator(learner.network, learner.posterior, **units)
    return Supervised(learner, estimator, step, schedule.elapsed)


class Supervised:
    """A network that was fitted to the truth."""

    def __init__(
        self, learner: GaussianLearner, estimator: Estimator, steps: int, seconds: float
    ) -> None:
        self.learner = learner
        self.estimator = estimator.eval()
        self.figures = {"steps": steps, "seconds": seconds}

    def calibrate(self, stacks: Sequence[Stack]) -> None:
        """Make the spread honest on the last frames, as a run of the product does."""
        stride = self.learner.network.stride
        height, width = (edge // stride * stride for edge in stacks[0].frame_shape)
        frames = [
            self.estimator.to_network_units(
                torch.from_numpy(stack.frame(index)[None, None, :height, :width]).float()
            )
            for stack in stacks
            for index in range(len(stack))[-CALIBRATION_FRAMES:]
        ]
        calibrate_uncertainty(self.learner, frames, torch.Generator().manual_seed)

    @torch.no_grad()
    def mean(self, observations: NDArray[Any]) -> NDArray[np.float64]:
        """Return the network's own mean (Y, X) in ADU, without the posterior step."""
        estimator = self.estimator
        frames = estimator.to_network_units(torch.from_numpy(observations[None]).float())
        mean = self.learner.posterior.prior(estimator.network(frames))[0][0, 0]
        return mean.double().numpy() * estimator.scale_adu + estimator.centre_adu


def lattice_loss(
    learner: GaussianLearner, frames: Tensor, truth: Tensor, rng: torch.Generator
) -> Tensor:
    """Return what `lattice` minimises, with the truth in the place of the observation."""
    assert isinstance(learner, LatticeLearner)
    observed, mean, ratio, noise_variance = learner.predict_hidden(frames, rng)
    height, width = observed.shape[2:]
    target = learner.network.middle(truth)[:, :, :height, :width]
    variance = (1 + ratio) * noise_variance.detach()
    fit = 0.5 * (target - mean) ** 2 / variance.detach()
    return (fit + marginal_nll(observed, mean.detach(), variance)).mean()


def whole_loss(
    learner: GaussianLearner, frames: Tensor, truth: Tensor, rng: torch.Generator
) -> Tensor:
    """Return the squared error of every pixel, none of which is hidden."""
    return functional.mse_loss(learner.network(frames)[:, :1], truth)


def _with_truth(stack: Stack) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return all frames and for each the mean of all others, (N, Y, X) ADU."""
    pixels = stack.frames(range(len(stack))).astype(np.float64)
    return pixels, (pixels.sum(axis=0) - pixels) / (len(pixels) - 1)


def _paired(
    pairs: Sequence[tuple[NDArray[Any], NDArray[np.float64]]],
    options: TrainingOptions,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return frames and truths (B, 2, P, P) in ADU, turned alike."""
    edge = patch_edge(options)
    out = np.empty((options.batch, 2, edge, edge), np.float32)
    for patch in out:
        pixels, truth = pairs[rng.integers(len(pairs))]
        row = rng.integers(len(pixels))
        y, x = (int(rng.integers(length - edge + 1)) for length in pixels.shape[1:])
        place = np.s_[row, y : y + edge, x : x + edge]
        turn, flip = int(rng.integers(4)), rng.random() < 0.5
        both = np.rot90(np.stack([pixels[place], truth[place]]), turn, axes=(1, 2))
        patch[:] = both[:, ::-1] if flip else both
    return out


def supervised_rows(
    stacks: list[Stack], name: str, options: TrainingOptions
) -> Iterable[dict[str, Any]]:
    if name == "supervised lattice":
        model = supervised(stacks, options, lattice_loss)
        model.calibrate(stacks)
        examples = repeats(stacks, FRAMES, 0)
        yield {
            "method": f"{name}, prior mean",
            "psnr_db": of_means(model, examples),
        } | model.figures
        estimates = [denoised(model.estimator, one.observations) for one in examples]
        values = [one.psnr_db(mean) for one, (mean, _) in zip(examples, estimates, strict=True)]
        yield {
            "method": f"{name}, with the posterior step",
            "psnr_db": float(np.mean(values)),
            "z_by_brightness": z_by_brightness(estimates, examples),
            **model.figures,
        }
        return
    options = replace(options, algorithm="n2v")
    if name == "supervised U-Net":
        model = supervised(stacks, options, whole_loss)
        scored = of_means(model, repeats(stacks, FRAMES, 0))
        yield {"method": name, "psnr_db": scored} | model.figures
        return
    halves = (stacks[::2], stacks[1::2])
    models = [supervised(half, options, whole_loss) for half in halves]
    values = [
        of_means(model, repeats(half, FRAMES, 0))
        for model, half in zip(models, halves[::-1], strict=True)
    ]
    yield {"method": name, "psnr_db": float(np.mean(values))} | models[0].figures


def of_means(model: Supervised, examples: Sequence[Example]) -> float:
    return float(np.mean([one.psnr_db(model.mean(one.observations)) for one in examples]))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*METHODS, *SUPERVISED]
    arguments.add_argument("methods", nargs="*", help=f"Of {', '.join(known)}.")
    arguments.add_argument("--minutes", type=float, default=2.5)
    arguments.add_argument("--steps", type=int, help="Instead of minutes.")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=RESULTS)
    chosen = arguments.parse_args()
    methods = chosen.methods or ["lattice", "context", "n2v", *SUPERVISED]
    if unknown := set(methods) - set(known):
        arguments.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    options = TrainingOptions(
        steps=chosen.steps,
        seconds=None if chosen.steps else 60 * chosen.minutes,
        seed=chosen.seed,
    )
    budget = {"steps": chosen.steps} if chosen.steps else {"minutes": chosen.minutes}
    stacks = nandb()
    rows = Rows(chosen.out / "training_nandb.json", ("method",), budget=budget)
    for name in methods:
        found = (
            supervised_rows(stacks, name, options)
            if name in SUPERVISED
            else [{"method": name, **trained(stacks, name, options)}]
        )
        for row in found:
            rows.add({**row, "busy": os.getloadavg()[0]})


if __name__ == "__main__":
    main()
