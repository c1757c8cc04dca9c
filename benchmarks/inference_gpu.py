"""The bars on a GPU: latency and rate from host array to host array, beside their floors.

Needs an NVIDIA GPU and says so where there is none. The floors are what no program can beat: the
bytes of a frame over the measured copy rate, and its operations over the measured rate of a
matrix product of the same number type.

    python benchmarks/inference_gpu.py [--frames 500] [--provider cuda]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from quietscope.inference.benchmark import bench
from quietscope.inference.providers import cuda_device_name
from quietscope.outputs import write_json
from quietscope.specimen import CameraLaw, Specimen
from quietscope.stacks import stack_from_array
from quietscope.training.train import TrainingOptions, train

RESULTS = Path(__file__).parent / "results" / "inference_gpu.json"
BARS_MS_P99 = {512: 0.7, 2048: 3.0}
BAR_FRAMES_PER_S = {2048: 300.0}
PRESETS = ("fast", "live", "best")
PRECISIONS = ("fp32", "fp16")
PINNED_BYTES_PER_S = 50e9
"""PCI Express 5 ×16 with page-locked memory; the floor of the copies."""


def floor_ms(row: dict[str, Any]) -> dict[str, float]:
    pixels = float(np.prod(row["shape"]))
    copied = pixels * (2 + 2 * 4)  # uint16 up, two float32 planes down
    return {
        "copies": 1e3 * copied / PINNED_BYTES_PER_S,
        "operations": 1e3 * row["gflop_per_frame"] / row["gemm_gflops"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--provider", default="cuda")
    given = parser.parse_args()
    if cuda_device_name() is None:
        print("no NVIDIA GPU here: nothing was measured; run this on the machine that has one")
        sys.exit(0)
    specimen = Specimen((256, 256), CameraLaw(0.5, 100.0, 2.0))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for preset in PRESETS:
            bundle = Path(folder) / preset
            train([stack], bundle, TrainingOptions(preset=preset, steps=2))
            for size in BARS_MS_P99:
                for precision in PRECISIONS:
                    row = bench(
                        bundle,
                        (size, size),
                        frames=given.frames,
                        provider=given.provider,
                        precision=precision,
                    ).result()
                    row |= {"preset": preset, "floor_ms": floor_ms(row)}
                    rows.append(row)
                    latency = row["latency_ms"]
                    print(
                        f"{preset} {size}² {precision}: p50 {latency['p50']:.2f} ms, p99 "
                        f"{latency['p99']:.2f} ms (bar {BARS_MS_P99[size]}), "
                        f"{row['throughput_fps']:.0f} frames/s "
                        f"(bar {BAR_FRAMES_PER_S.get(size, 0):.0f}); floor: copies "
                        f"{row['floor_ms']['copies']:.2f} ms, operations "
                        f"{row['floor_ms']['operations']:.2f} ms",
                        flush=True,
                    )
    write_json(RESULTS, {"hardware": cuda_device_name(), "rows": rows})


if __name__ == "__main__":
    main()
