"""How fast the presets run on this CPU, beside what the CPU can do.

Trains each preset for two steps (speed does not depend on the weights), then measures at several
frame sizes, all in turn, round by round: the denoiser from host array to host array, the bare
session, a session with ONNX Runtime's own defaults on the exported graph, the graph as PyTorch
exports it, the convolutions and matrix products that are fastest here, and at 512² the reference:
a plain 16-channel U-Net of depth 2 in the four-pass lattice, as PyTorch exports it.

    python benchmarks/inference_speed.py [--presets fast live best] [--sizes 256 512 1024 2048]

Takes about three minutes on two idle cores; `results/inference_speed.json` holds what it found.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.inference.bundle import open_bundle
from quietscope.inference.graph.inspection import read_contract
from quietscope.inference.graph.operations import count_gflop
from quietscope.inference.runtime.machine_limit import MachineLimit
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.providers import all_cores, cpu_name, open_session
from quietscope.storage.atomic_output import write_json
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import TrainingOptions
from quietscope.training.output import export_onnx as export
from quietscope.training.train import train

RESULTS = Path(__file__).parent / "results" / "inference_speed.json"
REFERENCE_SIZE = 512
ROUNDS = {256: 25, 512: 12, 1024: 6, 2048: 4}
BARS = {"share_of_limit": {"fast": 0.6, "live": 0.85, "best": 0.85}, "fast_over_reference": 0.5}

SHORT_S = 0.1

Seconds = dict[str, float]


def make_bundle(preset: str, folder: Path) -> tuple[Path, Path]:
    """Return a bundle and the graph that PyTorch exported for it, before it was rewritten."""
    specimen = Specimen((256, 256), CameraLaw(0.5, 100.0, 2.0))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    exported, rewrite = [], export.rewrite_for_speed

    def keep_and_rewrite(model: Any) -> list[str]:
        exported.append(copy.deepcopy(model))
        return rewrite(model)

    export.rewrite_for_speed = keep_and_rewrite
    try:
        train([stack], folder / preset, TrainingOptions(preset=preset, steps=2))
    finally:
        export.rewrite_for_speed = rewrite
    onnx.save(exported[-1], str(folder / f"{preset}.onnx"))
    return folder / preset, folder / f"{preset}.onnx"


# -------------------------------------------------------------------------------- reference


class PlainLattice(nn.Module):
    """Four flips through one U-Net at half resolution, and a Gaussian posterior.

    12.6 GFLOP per 512² frame.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList([_block(3, 16), _block(16, 32), _block(32, 64)])
        self.narrows = nn.ModuleList([nn.Conv2d(32, 16, 1), nn.Conv2d(64, 32, 1)])
        self.decoders = nn.ModuleList([_block(32, 16), _block(64, 32)])
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        x = (observations.float() - 100) / 50
        flips: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
        batch = torch.cat([x.flip(flip) if flip else x for flip in flips])
        predicted = self.network(functional.pixel_unshuffle(batch, 2)[:, 1:]).chunk(4)
        parts = [p.flip(flip) if flip else p for p, flip in zip(predicted, flips, strict=True)]
        prior = functional.pixel_shuffle(torch.stack(parts, dim=2).flatten(1, 2), 2)
        mean, variance = prior[:, :1], prior[:, 1:].exp()
        share = variance / (variance + mean.clamp_min(0) + 0.1)
        return (mean + (x - mean) * share) * 50 + 100, (variance * (1 - share)).sqrt() * 50

    def network(self, x: Tensor) -> Tensor:
        kept = []
        for encoder in self.encoders[:-1]:
            kept.append(encoder(x))
            x = functional.max_pool2d(kept[-1], 2)
        x = self.encoders[-1](x)
        for level in (1, 0):
            x = functional.interpolate(self.narrows[level](x), scale_factor=2.0, mode="nearest")
            x = self.decoders[level](torch.cat([kept[level], x], dim=1))
        return self.head(x)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )


def make_reference(folder: Path) -> Path:
    path = folder / "reference.onnx"
    example = torch.zeros(1, 1, REFERENCE_SIZE, REFERENCE_SIZE, dtype=torch.uint16)
    program = torch.onnx.export(
        PlainLattice().eval(),
        (example,),
        dynamo=True,
        input_names=["observations"],
        output_names=["denoised", "uncertainty"],
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
    return path


# ------------------------------------------------------------------------------ measurement


def default_session(model: Path, shape: tuple[int, int]) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = all_cores()
    for name, size in read_contract(model).overrides(1, shape).items():
        settings.add_free_dimension_override_by_name(name, size)
    return ort.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])


def our_session(model: Path, shape: tuple[int, int]) -> Any:
    sizes = read_contract(model).overrides(1, shape)
    return open_session(model, provider="cpu", free_dimensions=sizes, threads=all_cores()).session


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> tuple[Seconds, Seconds]:
    """Return median and least seconds of each, measured one after the other, round by round.

    The least is what the machine can do where other programs disturb the median. Short work is
    done once before it is timed: it finds the caches as the frame before leaves them in a stream.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    short = {name for name, work in works.items() if timed(work) < SHORT_S}
    for _ in range(rounds):
        for name, work in works.items():
            if name in short:
                work()
            taken[name].append(timed(work))
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return medians, {name: min(seconds) for name, seconds in taken.items()}


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(bundle: Path, exported: Path, reference: Path, size: int) -> dict[str, Any]:
    shape = (size, size)
    frame = np.random.default_rng(0).poisson(300, (1, *shape)).astype(np.uint16)
    out = np.empty((2, *shape), np.float32)
    feeds = {"observations": frame[np.newaxis]}
    model = open_bundle(bundle).model_path
    plain, before = default_session(model, shape), our_session(exported, shape)
    limit = MachineLimit("cpu", all_cores(), "fp32")
    with OnnxDenoiser(bundle, shape, provider="cpu", threads=all_cores()) as denoiser:
        works: dict[str, Callable[[], object]] = {
            "denoiser": lambda: denoiser.denoise(frame, out),
            "bare_run": denoiser.bare_run(frame),
            "default_session": lambda: plain.run(None, feeds),
            "before_rewriting": lambda: before.run(None, feeds),
            "limit": limit.run,
        }
        if size == REFERENCE_SIZE:
            session = our_session(reference, shape)
            works["reference"] = lambda: session.run(None, feeds)
        median, least = in_turn(works, ROUNDS.get(size, 5))
    gflop = count_gflop(model, shape)
    # The network's own convolutions count among those of the runtime.
    rate = max(limit.gflops, gflop / min(least["denoiser"], least["bare_run"]))
    return {
        "gflop": gflop,
        "gemm_gflops": limit.gemm_gflops,
        "limit_reached_by": limit.reached_by,
        "median": figures(median, gflop, rate, size),
        "least": figures(least, gflop, rate, size),
    }


def figures(seconds: Seconds, gflop: float, rate: float, size: int) -> dict[str, float]:
    taken = seconds["denoiser"]
    others = [name for name in seconds if name not in ("denoiser", "limit")]
    return {
        "ms": 1e3 * taken,
        "ns_per_pixel": 1e9 * taken / size**2,
        "gflops": gflop / taken,
        "limit_gflops": rate,
        "share_of_limit": gflop / taken / rate,
        **{f"{name}_ms": 1e3 * seconds[name] for name in others},
        **{f"over_{name}": taken / seconds[name] for name in others},
    }


def line(preset: str, size: int, row: Mapping[str, Any]) -> str:
    median, least = row["median"], row["least"]
    reference = (
        f", {median['over_reference']:.2f} × reference ({median['reference_ms']:.1f} ms)"
        if "reference_ms" in median
        else ""
    )
    return (
        f"{preset} {size}²: {median['ms']:.1f} ms (least {least['ms']:.1f}), "
        f"{median['ns_per_pixel']:.0f} ns/pixel, {median['share_of_limit']:.0%} of "
        f"{median['limit_gflops']:.0f} GFLOP/s (least {least['share_of_limit']:.0%}; "
        f"{row['limit_reached_by']}), {median['over_bare_run']:.3f} × bare run, "
        f"{median['over_default_session']:.2f} × default session, "
        f"{median['over_before_rewriting']:.2f} × as exported{reference}"
    )


def spread(rows: Mapping[str, Any]) -> float:
    """Return how much the dearest pixel costs over the cheapest, across the frame sizes."""
    costs = [row["median"]["ns_per_pixel"] for row in rows.values()]
    return max(costs) / min(costs) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["fast", "live", "best"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024, 2048])
    given = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        reference = make_reference(Path(folder))
        for preset in given.presets:
            bundle, exported = make_bundle(preset, Path(folder))
            found[preset] = {}
            for size in given.sizes:
                found[preset][str(size)] = measure(bundle, exported, reference, size)
                print(line(preset, size, found[preset][str(size)]), flush=True)
            print(f"{preset}: cost per pixel within {spread(found[preset]):.0%}", flush=True)
    write_json(
        RESULTS,
        {
            "hardware": cpu_name(all_cores()),
            "onnxruntime": ort.__version__,
            "other_load": round(psutil.getloadavg()[0], 1),
            "bars": BARS,
            "cost_per_pixel_spread": {preset: spread(rows) for preset, rows in found.items()},
            "presets": found,
        },
    )


if __name__ == "__main__":
    main()
