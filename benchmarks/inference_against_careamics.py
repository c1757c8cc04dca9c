"""One 512² frame: this program against CAREamics' `predict` with its default network.

Both are trained for a moment first (speed does not depend on the weights), then timed in turn on
the same frames and cores. CAREamics is not a dependency; install it beside quietscope to run this:

    pip install careamics
    python benchmarks/inference_against_careamics.py [--presets fast live best]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from quietscope.inference.onnx_denoiser import OnnxDenoiser
from quietscope.inference.providers import all_cores, cpu_name
from quietscope.outputs import write_json
from quietscope.specimen import CameraLaw, Specimen
from quietscope.stacks import stack_from_array
from quietscope.training.train import TrainingOptions, train

RESULTS = Path(__file__).parent / "results" / "inference_against_careamics.json"
SHAPE = (512, 512)
ROUNDS = 7


def careamics_predict(folder: Path, frames: np.ndarray) -> Callable[[], object]:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    careamist: Any = importlib.import_module("careamics.careamist")
    factory: Any = importlib.import_module("careamics.config.factories.n2v_factory")
    config = factory.create_n2v_config(
        "speed", "array", "SYX", (64, 64), 4, num_epochs=1, num_steps=2
    )
    model = careamist.CAREamist(config, work_dir=folder, enable_progress_bar=False)
    model.train(train_data=frames.astype(np.float32))
    frame = frames[:1].astype(np.float32)
    return lambda: model.predict(frame, axes="SYX", data_type="array", batch_size=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["fast", "live", "best"])
    given = parser.parse_args()
    if importlib.util.find_spec("careamics") is None:
        sys.exit("careamics is not installed here; install it with `pip install careamics`")
    specimen = Specimen(SHAPE, CameraLaw(0.5, 100.0, 2.0))
    frames = np.stack([specimen.observe(index) for index in range(24)])
    out = np.empty((2, *SHAPE), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        works: dict[str, Callable[[], object]] = {}
        for preset in given.presets:
            bundle = Path(folder) / preset
            train([stack_from_array(frames)], bundle, TrainingOptions(preset=preset, steps=2))
            denoiser = OnnxDenoiser(bundle, SHAPE, provider="cpu", threads=all_cores())
            works[preset] = lambda denoiser=denoiser: denoiser.denoise(frames[:1], out)
        works["careamics"] = careamics_predict(Path(folder), frames)
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(ROUNDS):
            for name, work in works.items():
                began = time.perf_counter()
                work()
                taken[name].append(time.perf_counter() - began)
    medians = {name: 1e3 * statistics.median(seconds) for name, seconds in taken.items()}
    # torch's threads spin on after a run and take cores from whatever comes next: the least time
    # of each is what a user sees who runs one of them.
    least = {name: 1e3 * min(seconds) for name, seconds in taken.items()}
    faster = {name: least["careamics"] / least[name] for name in given.presets}
    for name, times in faster.items():
        print(f"{name}: {least[name]:.1f} ms, {times:.1f} times as fast as CAREamics")
    print(f"CAREamics predict: {least['careamics']:.0f} ms")
    version = importlib.import_module("careamics").__version__
    write_json(
        RESULTS,
        {
            "hardware": cpu_name(all_cores()),
            "careamics": version,
            "shape": list(SHAPE),
            "ms_median": medians,
            "ms_least": least,
            "times_as_fast": faster,
        },
    )


if __name__ == "__main__":
    main()
