"""What eight-bit numbers gain in time and cost in quality, on real photon-counting data.

Eight bits would be offered if they lost no more than 0.1 dB and no smaller preset were as fast and
as good.

Trains on the nandb stacks, then scores each preset in fp32 and in int8 against the same truth (the
mean of the repeats that are not inputs), and times both in turn on 512² frames on one thread, in
time of the process itself: the ratio holds on a busy machine. The ranges of the eight bits are
taken from a frame of each stack, without the outermost ten thousandth.

    python benchmarks/inference_precision.py [--presets fast live best] [--steps 800]

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quietscope.inference.bundle import MODEL, NOISE_MODEL, new_bundle, open_bundle, seal
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.graph.inspection import INPUT, load_model
from quietscope.inference.graph.precision import name_nodes, network_nodes
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.providers import cpu_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import Stack
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

DATA = Path(os.environ.get("QUIETSCOPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results" / "inference_precision.json"
FRAMES = range(7, 50, 16)
SEEN = 20
ROUNDS = 15


def quantised_bundle(bundle: Path, out: Path, seen: Sequence[NDArray[Any]]) -> Path:
    """Copy a bundle with its inner network in eight bits, with the ranges that frames give."""
    opened = open_bundle(bundle)
    with new_bundle(out) as staging:
        shutil.copy(opened.noise_model_path, staging / NOISE_MODEL)
        (staging / MODEL).write_bytes(eight_bits(load_model(opened.model_path), seen))
        seal(staging, opened.manifest)
    return out


def eight_bits(model: Any, seen: Sequence[NDArray[Any]]) -> bytes:
    """Quantise the network inside `model` to 8 bits.

    Parameters
    ----------
    model
        An onnx.ModelProto.
    seen
        Observations (1 + T, Y, X) in the camera's pixel type, which give every tensor's range.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    name_nodes(model)
    inner = network_nodes(model.graph)
    kinds = sorted({node.op_type for node in model.graph.node if node.name in inner})
    with tempfile.TemporaryDirectory(prefix="quietscope-") as folder, _quiet():
        source, target = Path(folder) / "model.onnx", Path(folder) / "reduced.onnx"
        onnx.save(model, str(source))
        quantize_static(
            str(source),
            str(target),
            _Frames(seen),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": 99.99},
            op_types_to_quantize=kinds,
            nodes_to_quantize=sorted(inner),
        )
        return target.read_bytes()


class _Frames:
    """What the quantiser runs to see the range of every tensor."""

    def __init__(self, seen: Sequence[NDArray[Any]]) -> None:
        self._frames = iter(seen)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        frame = next(self._frames, None)
        return None if frame is None else {INPUT: np.ascontiguousarray(frame[np.newaxis])}

    def set_range(self, start_index: int, end_index: int) -> None:
        raise NotImplementedError


@contextmanager
def _quiet() -> Iterator[None]:
    # The quantiser recommends a preparation that the export has done already, and prints.
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def quality(stacks: list[Stack], bundle: Path) -> dict[str, float]:
    scores = [
        evaluate(stack, bundle, static=True, frames=FRAMES, provider="cpu").result()
        for stack in stacks
    ]
    keys = ("psnr_db", "psnr_raw_db", "ssim", "uncertainty_z_std")
    return {key: float(np.mean([score[key] for score in scores])) for key in keys}


def milliseconds(bundles: dict[str, Path]) -> dict[str, float]:
    frame = np.random.default_rng(0).poisson(20, (1, 512, 512)).astype(np.uint8)
    out = np.empty((2, 512, 512), np.float32)
    denoisers = {
        precision: OnnxDenoiser(bundle, (512, 512), provider="cpu", threads=1)
        for precision, bundle in bundles.items()
    }
    taken: dict[str, list[float]] = {precision: [] for precision in bundles}
    for _ in range(ROUNDS):
        for precision, denoiser in denoisers.items():
            began = time.process_time()
            denoiser.denoise(frame, out)
            taken[precision].append(time.process_time() - began)
    return {precision: 1e3 * statistics.median(seconds) for precision, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["fast", "live", "best"])
    parser.add_argument("--steps", type=int, default=800)
    given = parser.parse_args()
    stacks = [open_stack(p) for p in sorted((DATA / "nandb_fkbp_confocal").glob("*.tif"))]
    seen = [stack.observations(SEEN, 0) for stack in stacks]
    found = {}
    for preset in given.presets:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "model"
            train(stacks, bundle, TrainingOptions(preset=preset, steps=given.steps))
            bundles = {
                "fp32": bundle,
                "int8": quantised_bundle(bundle, Path(folder) / "quantised", seen),
            }
            times = milliseconds(bundles)
            scores = {precision: quality(stacks, path) for precision, path in bundles.items()}
        lost = scores["fp32"]["psnr_db"] - scores["int8"]["psnr_db"]
        speed = times["fp32"] / times["int8"]
        found[preset] = {"ms": times, "scores": scores, "lost_db": lost, "times_faster": speed}
        print(f"{preset}: int8 is {speed:.2f} times as fast and loses {lost:.3f} dB", flush=True)
    write_json(RESULTS, {"hardware": cpu_name(1), "steps": given.steps, "presets": found})


if __name__ == "__main__":
    main()
