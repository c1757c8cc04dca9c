"""One 512² frame: each preset beside what a person would use instead, on one core and on all.

The presets of `lattice` and the general model, from host array to host array; CAREamics' U-Net of
its default size (two halvings, 32 channels) in PyTorch, the network alone, so the least that its
`predict` can take (`inference_against_careamics.py` times that one); the same network in ONNX
Runtime; BM3D and non-local means with the exact inverse, at a strength that is given. Nothing is
trained for longer than two steps: speed does not depend on the weights. For each number of cores
one process, bound to them, does everything in turn, round by round; the slow filters run once.

    python benchmarks/inference_presets.py [--presets fast live best] [--no-filters]

Takes about three minutes on two idle cores; `results/inference_presets.json` holds what it found.
On a busy machine the ratios hold, the milliseconds do not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.noise_files import load_noise_model, save_noise_model
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.classical.methods import METHODS
from quietscope.inference.general.for_camera import general_bundle
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.providers import all_cores, cpu_name, open_session
from quietscope.storage.atomic_output import write_json
from quietscope.storage.stack import stack_from_array
from quietscope.training.importing.careamics_unet import CAREamicsUNet, UNetPlan
from quietscope.training.options import PLANS, TrainingOptions
from quietscope.training.output.export_onnx import traced
from quietscope.training.train import train

RESULTS = Path(__file__).parent / "results" / "inference_presets.json"
SHAPE = (512, 512)
ROUNDS = 15
FILTERS = ("bm3d", "non-local-means")
CAMERA, UNET, FRAME = "camera.npz", "careamics.onnx", "frame.npy"
Work = Callable[[], object]


def prepare(folder: Path, presets: Sequence[str]) -> None:
    """Write models, noise model and frame for the processes that time them."""
    law = CameraLaw(1.0, 99.25, 2.5)
    specimen = Specimen((128, 128), law)
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    np.save(folder / FRAME, Specimen(SHAPE, law).observe(0)[np.newaxis])
    noise_model = bootstrap_noise_model([stack])
    save_noise_model(noise_model, folder / CAMERA)
    for preset in presets:
        options = TrainingOptions(preset=preset, steps=2)  # type: ignore[arg-type]
        train([stack], folder / preset, options, noise_model=noise_model)
    general = general_bundle(
        noise_model, "uint16", context_frames=0, with_maps=False, kept_in=folder / "kept"
    )
    general.path.rename(folder / "general")
    network, example = CAREamicsUNet(UNetPlan()).eval(), torch.zeros(1, 1, *SHAPE)
    named = {"input_names": ["x"], "output_names": ["y"]}
    (folder / UNET).write_bytes(traced(network, (example,), **named).SerializeToString())


def measure(folder: Path, cores: int, presets: Sequence[str], *, filters: bool) -> dict[str, Any]:
    """Return median and least milliseconds of everything; bind the process to that many cores."""
    if hasattr(process := psutil.Process(), "cpu_affinity"):
        process.cpu_affinity(process.cpu_affinity()[:cores])
    torch.set_num_threads(cores)
    frame = np.load(folder / FRAME)
    taken: dict[str, list[float]] = {}
    with ExitStack() as opened:
        works = {
            name: denoising(folder / name, frame, cores, opened) for name in (*presets, "general")
        }
        works |= careamics(folder / UNET, frame, cores)
        for _ in range(1 + ROUNDS):
            for name, work in works.items():
                taken.setdefault(name, []).append(milliseconds(work))
    found = {name: figures(each[1:]) for name, each in taken.items()}
    for name in FILTERS if filters else ():
        found[name] = figures([milliseconds(filtering(name, folder / CAMERA, frame))])
    return found


def denoising(bundle: Path, frame: NDArray[Any], cores: int, opened: ExitStack) -> Work:
    denoiser = opened.enter_context(OnnxDenoiser(bundle, SHAPE, provider="cpu", threads=cores))
    out = np.empty((2, *SHAPE), np.float32)
    return lambda: denoiser.denoise(frame, out)


def careamics(graph: Path, frame: NDArray[Any], cores: int) -> dict[str, Work]:
    network = CAREamicsUNet(UNetPlan()).eval()
    pixels = frame[np.newaxis].astype(np.float32)
    session = open_session(graph, provider="cpu", threads=cores).session

    @torch.inference_mode()
    def in_pytorch() -> object:
        return network(torch.from_numpy(pixels)).numpy()

    return {
        "CAREamics' U-Net, PyTorch": in_pytorch,
        "CAREamics' U-Net, ONNX Runtime": lambda: session.run(None, {"x": pixels}),
    }


def filtering(method: str, camera: Path, frame: NDArray[Any]) -> Work:
    strengths = METHODS[method].strengths
    denoiser = ClassicalDenoiser(
        method,
        SHAPE,
        noise_model=load_noise_model(camera),
        strength=strengths[len(strengths) // 2],
    )
    out = np.empty((2, *SHAPE), np.float32)
    return lambda: denoiser.denoise(frame, out)


def milliseconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def figures(taken: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(taken), "least": min(taken)}


def in_a_process(folder: Path, cores: int, given: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", str(folder), "--cores", str(cores)]
    command += ["--presets", *given.presets, *(["--no-filters"] if given.no_filters else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(found: dict[str, dict[str, Any]]) -> None:
    for cores, rows in found.items():
        print(f"on {cores}:")
        for name, row in rows.items():
            ratio = row["median"] / rows["live"]["median"] if "live" in rows else float("nan")
            print(f"  {name:32} {row['median']:9.1f} ms {ratio:8.2f} × live")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--no-filters", action="store_true")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        filters = not given.no_filters
        print(json.dumps(measure(given.worker, given.cores, given.presets, filters=filters)))
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        prepare(Path(name), given.presets)
        found = {
            f"{cores} {'core' if cores == 1 else 'cores'}": in_a_process(Path(name), cores, given)
            for cores in sorted({1, all_cores()})
        }
    table(found)
    load = round(psutil.getloadavg()[0], 1)
    write_json(
        RESULTS,
        {"hardware": cpu_name(all_cores()), "other_load": load, "shape": SHAPE, "ms": found},
    )


if __name__ == "__main__":
    main()
