"""What each method reaches on the six nandb stacks in a given time, against supervision.

Real photon-counting data (see the README of the data): 50 repeats of six scenes. A frame's truth
is the mean of the repeats that were not among its inputs. Prints one row per method and writes
them to `results/training_nandb.json`.

    python benchmarks/training_nandb.py --minutes 2.5 lattice n2v context supervised

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quietscope.inference.evaluation import evaluate
from quietscope.stacks import Stack, open_stack
from quietscope.training.masking import MaskedPrior
from quietscope.training.options import TrainingOptions
from quietscope.training.recordings import load_recordings
from quietscope.training.schedule import Schedule, learning_rate_share
from quietscope.training.train import train

DATA = Path(os.environ.get("QUIETSCOPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
METHODS: dict[str, dict[str, Any]] = {
    "lattice": {},
    "lattice fast": {"preset": "fast"},
    "lattice best": {"preset": "best"},
    "context": {"context_frames": 6},
    "context 4": {"context_frames": 4},
    "n2v": {"algorithm": "n2v"},
    "n2v2": {"algorithm": "n2v2"},
    "pn2v": {"algorithm": "pn2v"},
}
FRAMES = range(7, 50, 6)


def nandb() -> list[Stack]:
    return [open_stack(path) for path in sorted((DATA / "nandb_fkbp_confocal").glob("*.tif"))]


def trained(stacks: list[Stack], name: str, options: TrainingOptions) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        options = replace(options, **METHODS[name])
        result = train(stacks, Path(folder) / "model", options)
        scores = [
            evaluate(stack, result.bundle, static=True, frames=FRAMES, provider="cpu").result()
            for stack in stacks
        ]
    keys = ("psnr_db", "psnr_raw_db", "uncertainty_z_std", "residual_correlation", "ms_per_frame")
    means = {key: float(np.mean([score[key] for score in scores])) for key in keys}
    return {"method": name, "steps": result.steps, "seconds": result.seconds, **means}


def supervised(stacks: list[Stack], options: TrainingOptions) -> dict[str, Any]:
    """Train the same U-Net at full resolution on the mean of the other repeats as target."""
    started = time.monotonic()
    torch.manual_seed(options.seed)
    pairs = [_with_truth(stack) for stack in stacks]
    recordings = load_recordings(stacks, context_frames=0, patch=options.patch, memory_mib=512)
    centre, scale = recordings.centre_adu, recordings.scale_adu
    network = MaskedPrior(0, options.plan, artefact_free=False, outputs=1)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    schedule = Schedule(seconds=options.seconds, steps=options.steps, started=started)
    step = 0
    while (progress := schedule.progress(step)) < 1:
        chance = np.random.default_rng([options.seed, step])
        frames = torch.from_numpy(_paired(pairs, options, chance))
        frames = (frames - centre) / scale
        optimizer.param_groups[0]["lr"] = 2e-3 * learning_rate_share(progress)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = network(frames[:, :1])
        torch.nn.functional.mse_loss(predicted, frames[:, 1:]).backward()
        optimizer.step()
        step += 1
    values = []
    with torch.no_grad():
        for pixels, truth in pairs:
            for index in FRAMES:
                frame = (torch.from_numpy(pixels[index][None, None]) - centre) / scale
                estimate = network(frame)[0, 0].numpy() * scale + centre
                error = ((estimate - truth[index]) ** 2).mean()
                values.append(10 * np.log10(np.ptp(truth[index]) ** 2 / error))
    return {
        "method": "supervised U-Net",
        "steps": step,
        "seconds": schedule.elapsed,
        "psnr_db": float(np.mean(values)),
    }


def _with_truth(stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    pixels = stack.frames(range(len(stack))).astype(np.float32)
    return pixels, (pixels.sum(axis=0) - pixels) / (len(pixels) - 1)


def _paired(pairs: Any, options: TrainingOptions, chance: np.random.Generator) -> np.ndarray:
    out = np.empty((options.batch, 2, options.patch, options.patch), np.float32)
    for patch in out:
        pixels, truth = pairs[chance.integers(len(pairs))]
        row = chance.integers(len(pixels))
        y, x = (int(chance.integers(edge - options.patch + 1)) for edge in pixels.shape[1:])
        place = np.s_[row, y : y + options.patch, x : x + options.patch]
        turn, flip = int(chance.integers(4)), chance.random() < 0.5
        both = np.rot90(np.stack([pixels[place], truth[place]]), turn, axes=(1, 2))
        patch[:] = both[:, ::-1] if flip else both
    return out


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("methods", nargs="*", default=["lattice", "n2v", "context"])
    arguments.add_argument("--minutes", type=float, default=2.5)
    arguments.add_argument("--steps", type=int)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = arguments.parse_args()
    options = TrainingOptions(
        steps=chosen.steps,
        seconds=None if chosen.steps else 60 * chosen.minutes,
        seed=chosen.seed,
    )
    stacks, path = nandb(), chosen.out / "training_nandb.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    for name in chosen.methods:
        row = (
            supervised(stacks, options) if name == "supervised" else trained(stacks, name, options)
        )
        row["busy"] = os.getloadavg()[0]
        print(json.dumps(row), flush=True)
        rows = [old for old in rows if old["method"] != row["method"]] + [row]
        content = {"hardware": "2 CPU cores", "minutes": chosen.minutes, "rows": rows}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
