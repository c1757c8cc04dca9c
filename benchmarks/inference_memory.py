"""Does the memory grow? Ten thousand frames through one denoiser.

python benchmarks/inference_memory.py [--frames 10000] [--size 128]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import psutil

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.providers import all_cores, cpu_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

RESULTS = Path(__file__).parent / "results" / "inference_memory.json"
SETTLED_AFTER = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    specimen = Specimen((128, 128), CameraLaw(0.5, 100.0, 2.0))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    process, resident = psutil.Process(), []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "model"
        train([stack], bundle, TrainingOptions(preset="fast", steps=2))
        shape = (given.size, given.size)
        out = np.empty((2, *shape), np.float32)
        frames = np.random.default_rng(0).poisson(300, (8, 1, *shape)).astype(np.uint16)
        with OnnxDenoiser(bundle, shape, provider="cpu", threads=all_cores()) as denoiser:
            for index in range(given.frames):
                denoiser.denoise(frames[index % 8], out)
                if index % 100 == 0 and index >= SETTLED_AFTER:
                    resident.append(process.memory_info().rss)
    growth = resident[-1] - resident[0]
    print(
        f"{given.frames} frames of {given.size}²: {resident[0] / 1e6:.1f} MB after "
        f"{SETTLED_AFTER}, {resident[-1] / 1e6:.1f} MB at the end ({growth / 1e3:+.0f} kB)"
    )
    write_json(
        RESULTS,
        {
            "hardware": cpu_name(all_cores()),
            "frames": given.frames,
            "size": given.size,
            "resident_mb_first": resident[0] / 1e6,
            "resident_mb_last": resident[-1] / 1e6,
            "resident_mb_max": max(resident) / 1e6,
            "growth_kb": growth / 1e3,
        },
    )


if __name__ == "__main__":
    main()
