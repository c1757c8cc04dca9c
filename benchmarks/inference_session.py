"""What ONNX Runtime's own choices are worth for the graphs of this program, as ratios.

For each preset of `lattice` the session that `live` opens, and beside it sessions that differ in
one thing: how far the runtime optimises the graph (`extended` is all but its own layout of blocks
of channels, `basic` all but fused operations too), its setting for 1×1 convolutions, numbers too
small to be normal taken for zero, and the graph as it stands in the bundle (no rules for a known
size). One thread, all in turn, round by round, in time of the process itself: the ratios hold on a
busy machine. Eight bits are `inference_precision.py`'s.

    python benchmarks/inference_session.py [--presets fast live best] [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.inference.graph.fixed_shape import graph_for_frames
from quietscope.inference.graph.inspection import read_contract
from quietscope.inference.runtime import providers
from quietscope.storage.atomic_output import write_json
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import LATTICE_PLANS, TrainingOptions
from quietscope.training.train import train

RESULTS = Path(__file__).parent / "results" / "inference_session.json"
SHAPE = (512, 512)
POINTWISE = "mlas.nchwc_pointwise_conv_max_input_channel_batch"
Level = ort.GraphOptimizationLevel
USUAL = "as live opens it"


def session(graph: bytes | Path, level: Any = Level.ORT_ENABLE_ALL, **entries: str | None) -> Any:
    """Open a session as `providers` does, with other entries; None leaves one out."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.graph_optimization_level = level
    for name, value in {**providers._THREADS, **entries}.items():
        if value is not None:
            settings.add_session_config_entry(name, value)
    if isinstance(graph, bytes):
        return ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    for name, size in read_contract(graph).overrides(1, SHAPE).items():
        settings.add_free_dimension_override_by_name(name, size)
    return ort.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])


def variants(model: Path) -> dict[str, Any]:
    """Return the sessions by name, the usual one first."""
    fixed = graph_for_frames(model, SHAPE)
    return {
        USUAL: session(fixed),
        "optimised, extended": session(fixed, Level.ORT_ENABLE_EXTENDED),
        "optimised, basic": session(fixed, Level.ORT_ENABLE_BASIC),
        "1×1 convolutions as usual": session(fixed, **{POINTWISE: None}),
        "denormals are zero": session(fixed, **{"session.set_denormal_as_zero": "1"}),
        "without rules for a size": session(model),
    }


def ratios(sessions: dict[str, Any], rounds: int) -> dict[str, float]:
    """Return the median time of each over that of the first."""
    frame = np.random.default_rng(0).poisson(300, (1, 1, *SHAPE)).astype(np.uint16)
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(1 + rounds):
        for name, one in sessions.items():
            began = time.process_time()
            one.run(None, {"observations": frame})
            taken[name].append(time.process_time() - began)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    return {name: median / medians[USUAL] for name, median in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=list(LATTICE_PLANS), default=["live"])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    specimen = Specimen((128, 128), CameraLaw(1.0, 99.25, 2.5))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    found = {}
    for preset in given.presets:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            result = train(
                [stack], Path(folder) / "model", TrainingOptions(preset=preset, steps=2)
            )
            assert result is not None
            path = result.bundle.model_path
            found[preset] = ratios(variants(path), given.rounds)
        for name, ratio in found[preset].items():
            print(f"{preset}, {name:28} {ratio:6.3f}", flush=True)
    hardware = providers.cpu_name(1)
    write_json(
        RESULTS,
        {"hardware": hardware, "onnxruntime": ort.__version__, "over_usual": found},
    )


if __name__ == "__main__":
    main()
