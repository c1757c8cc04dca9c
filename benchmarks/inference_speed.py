"""How fast the presets run on this CPU, beside what the CPU can do.

Trains each preset for two steps (speed does not depend on the weights), then measures at several
frame sizes, all in turn: the denoiser from host array to host array, the bare session, a session
with ONNX Runtime's own defaults, the graph as it was before rewriting, and a matrix product.

    python benchmarks/inference_speed.py [--presets fast live best] [--sizes 256 512 1024 2048]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil

from quietscope.inference.benchmark import MatrixProduct
from quietscope.inference.bundle import open_bundle
from quietscope.inference.graph import read_contract
from quietscope.inference.onnx_denoiser import OnnxDenoiser
from quietscope.inference.operations import count_gflop
from quietscope.inference.providers import all_cores, cpu_name
from quietscope.outputs import write_json
from quietscope.specimen import CameraLaw, Specimen
from quietscope.stacks import stack_from_array
from quietscope.training import export
from quietscope.training.train import TrainingOptions, train

RESULTS = Path(__file__).parent / "results" / "inference_speed.json"
PIXELS_PER_MEASUREMENT = 12 * 512 * 512


def make_bundle(preset: str, folder: Path, *, rewritten: bool = True) -> Path:
    specimen = Specimen((256, 256), CameraLaw(0.5, 100.0, 2.0))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    out = folder / f"{preset}-{'rewritten' if rewritten else 'as exported'}"
    rewrite = export.rewrite_for_speed
    if not rewritten:
        export.rewrite_for_speed = lambda model: []
    try:
        train([stack], out, TrainingOptions(preset=preset, steps=2))
    finally:
        export.rewrite_for_speed = rewrite
    return out


def default_session(bundle: Path, shape: tuple[int, int]) -> ort.InferenceSession:
    model = open_bundle(bundle).model_path
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = all_cores()
    for name, size in read_contract(model).overrides(1, shape).items():
        settings.add_free_dimension_override_by_name(name, size)
    return ort.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])


def in_turn(
    works: dict[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return median and least seconds of each, measured one after the other, round by round.

    The least is what the machine can do where other programs disturb the median.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return medians, {name: min(seconds) for name, seconds in taken.items()}


def measure(rewritten: Path, exported: Path, size: int) -> dict[str, dict[str, float]]:
    shape = (size, size)
    denoiser = OnnxDenoiser(rewritten, shape, provider="cpu", threads=all_cores())
    before = OnnxDenoiser(exported, shape, provider="cpu", threads=all_cores())
    frame = np.random.default_rng(0).poisson(300, (1, *shape)).astype(np.uint16)
    out = np.empty((2, *shape), np.float32)
    plain = default_session(rewritten, shape)
    product = MatrixProduct("cpu", all_cores(), "fp32")
    by_kind = in_turn(
        {
            "denoiser": lambda: denoiser.denoise(frame, out),
            "bare_run": denoiser.bare_run(frame),
            "default_session": lambda: plain.run(None, {"observations": frame[None]}),
            "before_rewriting": lambda: before.denoise(frame, out),
            "product": product.run,
        },
        rounds=max(5, PIXELS_PER_MEASUREMENT // (size * size)),
    )
    gflop = count_gflop(denoiser.bundle.model_path, shape)
    denoiser.close()
    before.close()
    return {
        kind: figures(seconds, gflop, product.gflop, size)
        for kind, seconds in zip(("median", "least"), by_kind, strict=True)
    }


def figures(
    seconds: dict[str, float], gflop: float, product_gflop: float, size: int
) -> dict[str, float]:
    rate = product_gflop / seconds["product"]
    return {
        "ms": 1e3 * seconds["denoiser"],
        "ns_per_pixel": 1e9 * seconds["denoiser"] / size**2,
        "over_bare_run": seconds["denoiser"] / seconds["bare_run"],
        "over_default_session": seconds["denoiser"] / seconds["default_session"],
        "over_before_rewriting": seconds["denoiser"] / seconds["before_rewriting"],
        "before_rewriting_ms": 1e3 * seconds["before_rewriting"],
        "gflop": gflop,
        "gflops": gflop / seconds["denoiser"],
        "gemm_gflops": rate,
        "share_of_gemm": gflop / seconds["denoiser"] / rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["fast", "live", "best"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024, 2048])
    given = parser.parse_args()
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for preset in given.presets:
            rewritten = make_bundle(preset, Path(folder))
            exported = make_bundle(preset, Path(folder), rewritten=False)
            found[preset] = {}
            for size in given.sizes:
                rows = measure(rewritten, exported, size)
                found[preset][str(size)] = rows
                for kind, row in rows.items():
                    print(
                        f"{preset} {size}² {kind}: {row['ms']:.1f} ms, "
                        f"{row['ns_per_pixel']:.0f} ns/pixel, {row['over_bare_run']:.3f} × bare "
                        f"run, {row['over_default_session']:.3f} × default session, "
                        f"{row['over_before_rewriting']:.3f} × before rewriting, "
                        f"{row['share_of_gemm']:.0%} of {row['gemm_gflops']:.0f} GFLOP/s",
                        flush=True,
                    )
            # After each preset, so that an interrupted run leaves what it measured.
            write_json(
                RESULTS,
                {
                    "hardware": cpu_name(all_cores()),
                    "other_load": round(psutil.getloadavg()[0], 1),
                    "presets": found,
                },
            )


if __name__ == "__main__":
    main()
