"""The bars on a GPU: latency and rate from host array to host array, beside their floors.

Needs an NVIDIA GPU and says so where there is none. The floors are what no program can beat: the
bytes of a frame over the copy rate measured here with page-locked memory, and its operations over
the rate, measured here, of a matrix product of the same number type.

    python benchmarks/inference_gpu.py [--frames 500] [--provider cuda] [--presets fast live best]

Takes about five minutes; `results/inference_gpu.json` holds what it found.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.inference.runtime.benchmark import bench
from quietscope.inference.runtime.cuda_runtime import CudaRuntime
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.providers import cuda_device_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

RESULTS = Path(__file__).parent / "results" / "inference_gpu.json"
BARS_MS_P99 = {512: 0.7, 2048: 3.0}
BAR_FRAMES_PER_S = {2048: 300.0}
PRECISIONS = ("fp32", "fp16")
COPIED_BYTES = 64 * 2**20


def copy_rates() -> dict[str, float]:
    """Return the bytes per second of copies up and down, page-locked, the best of ten."""
    runtime = CudaRuntime()
    host = np.zeros(COPIED_BYTES, np.uint8)
    device = ort.OrtValue.ortvalue_from_shape_and_type([COPIED_BYTES], np.uint8, "cuda")
    locked = runtime.lock(host)
    rates = {}
    for name, ends in {
        "up": (device.data_ptr(), host.ctypes.data),
        "down": (host.ctypes.data, device.data_ptr()),
    }.items():
        seconds = []
        for _ in range(10):
            began = time.perf_counter()
            runtime.copy(*ends, COPIED_BYTES)
            seconds.append(time.perf_counter() - began)
        rates[name] = COPIED_BYTES / min(seconds)
    if locked:
        runtime.unlock(host)
    return rates


def floor_ms(row: dict[str, Any], rates: dict[str, float]) -> dict[str, float]:
    """Return the least times of one frame: one after the other, and overlapped."""
    pixels = float(np.prod(row["shape"]))
    up, down = pixels * 2 / rates["up"], pixels * 2 * 4 / rates["down"]  # uint16; two float32
    operations = row["gflop_per_frame"] / row["limit_gflops"]
    return {
        "upload": 1e3 * up,
        "download": 1e3 * down,
        "operations": 1e3 * operations,
        "latency": 1e3 * (up + operations + down),
        "per_frame_overlapped": 1e3 * max(up, operations, down),
    }


def pipelined_fps(bundle: Path, size: int, given: argparse.Namespace, precision: str) -> float:
    """Return the frames per second from host array to host array with copies overlapped."""
    frames = np.random.default_rng(0).poisson(300, (8, 1, size, size)).astype(np.uint16)
    with OnnxDenoiser(
        bundle, (size, size), provider=given.provider, precision=precision
    ) as denoiser:
        out = np.empty((2, size, size), np.float32)
        pipeline = denoiser.pipeline()
        for warm_up in range(8):
            pipeline.put(warm_up, frames[warm_up])
        list(pipeline.drain())
        began = time.perf_counter()
        for number in range(given.frames):
            for _, estimate in pipeline.put(number, frames[number % 8]):
                out[:] = estimate
        for _, estimate in pipeline.drain():
            out[:] = estimate
        seconds = time.perf_counter() - began
        pipeline.close()
    return given.frames / seconds


def line(row: dict[str, Any]) -> str:
    size, latency, floor = row["shape"][0], row["latency_ms"], row["floor_ms"]
    bar = BAR_FRAMES_PER_S.get(size)
    return (
        f"{row['preset']} {size}² {row['precision']}: p50 {latency['p50']:.2f} ms, p99 "
        f"{latency['p99']:.2f} ms (bar {BARS_MS_P99[size]}, floor {floor['latency']:.2f}); "
        f"{row['throughput_fps']:.0f} frames/s one by one, {row['pipelined_fps']:.0f} with "
        f"overlapped copies ({f'bar {bar:.0f}, ' if bar else ''}floor "
        f"{1e3 / floor['per_frame_overlapped']:.0f}); upload {floor['upload']:.2f}, operations "
        f"{floor['operations']:.2f}, download {floor['download']:.2f} ms at least"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--provider", default="cuda", choices=["cuda", "tensorrt"])
    parser.add_argument("--presets", nargs="+", default=["fast", "live", "best"])
    given = parser.parse_args()
    if cuda_device_name() is None:
        print("no NVIDIA GPU here: nothing was measured; run this on the machine that has one")
        sys.exit(0)
    specimen = Specimen((256, 256), CameraLaw(0.5, 100.0, 2.0))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    rates, rows = None, []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for preset in given.presets:
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
                    rates = rates or copy_rates()  # once a session has loaded CUDA
                    row |= {
                        "preset": preset,
                        "floor_ms": floor_ms(row, rates),
                        "pipelined_fps": pipelined_fps(bundle, size, given, precision),
                    }
                    rows.append(row)
                    print(line(row), flush=True)
    write_json(
        RESULTS,
        {"hardware": cuda_device_name(), "copied_bytes_per_s": rates, "rows": rows},
    )


if __name__ == "__main__":
    main()
