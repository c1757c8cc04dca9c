"""One 512² frame: this program against CAREamics' `predict` with its default network.

Both are trained for a moment first (speed does not depend on the weights), then timed on the same
frames and cores, one program after the other: torch's threads would take cores from ours.

CAREamics is no dependency and brings its own versions; give it an environment of its own:

    python -m venv care && care/bin/pip install careamics==0.3.5
    python benchmarks/inference_against_careamics.py --careamics-python care/bin/python

Takes about two minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.providers import all_cores, cpu_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

RESULTS = Path(__file__).parent / "results" / "inference_against_careamics.json"
WORKER = Path(__file__).with_name("inference_careamics_worker.py")
SHAPE = (512, 512)
ROUNDS, THEIR_ROUNDS = 40, 10
BAR_TIMES_AS_FAST = 20


def ours(preset: str, frames: np.ndarray, folder: Path) -> list[float]:
    bundle = folder / preset
    train([stack_from_array(frames)], bundle, TrainingOptions(preset=preset, steps=2))
    out, seconds = np.empty((2, *SHAPE), np.float32), []
    with OnnxDenoiser(bundle, SHAPE, provider="cpu", threads=all_cores()) as denoiser:
        for index in range(ROUNDS):
            frame = frames[index % len(frames)][np.newaxis]
            began = time.perf_counter()
            denoiser.denoise(frame, out)
            seconds.append(time.perf_counter() - began)
    return seconds


def theirs(python: str, frames: np.ndarray, folder: Path) -> dict[str, Any]:
    np.save(folder / "frames.npy", frames)
    command = [python, str(WORKER), str(folder / "frames.npy"), str(THEIR_ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"CAREamics failed under {python}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": 1e3 * statistics.median(seconds), "least": 1e3 * min(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["fast", "live", "best"])
    parser.add_argument("--careamics-python", default=sys.executable)
    given = parser.parse_args()
    specimen = Specimen(SHAPE, CameraLaw(0.5, 100.0, 2.0))
    frames = np.stack([specimen.observe(index) for index in range(24)])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        care = theirs(given.careamics_python, frames, Path(folder))
        taken = {name: milliseconds(ours(name, frames, Path(folder))) for name in given.presets}
    predict = milliseconds(care["seconds"])
    faster = {name: predict["median"] / times["median"] for name, times in taken.items()}
    print(f"CAREamics {care['version']} predict: {predict['median']:.0f} ms")
    for name, times in faster.items():
        print(
            f"{name}: {taken[name]['median']:.1f} ms, {times:.1f} times as fast as CAREamics "
            f"(bar {BAR_TIMES_AS_FAST})"
        )
    write_json(
        RESULTS,
        {
            "hardware": cpu_name(all_cores()),
            "careamics": care["version"],
            "careamics_threads": care["threads"],
            "shape": list(SHAPE),
            "ms": {**taken, "careamics": predict},
            "times_as_fast": faster,
        },
    )


if __name__ == "__main__":
    main()
