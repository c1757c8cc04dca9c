"""pymmcore-plus with the stream as an output of its sequence, against without it, in paired runs.

Each round runs every variant once on the demo camera, in an order that turns with the round; the
figure is the median over rounds of the ratio of frame rates to that round's bare run. The variant
`their own store` is what a user without us has: pymmcore-plus' own writer of OME-Zarr
(`output="….ome.zarr"`). `pycro-manager` is the same stream on the same camera behind the hook of
pycro-manager, for the time in the hook.

    python benchmarks/stream_pymmcore_plus.py --frames 200 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.storage.atomic_output import write_json

BARE = "bare"


def timed(action: Callable[[], object], frames: int) -> float:
    began = time.perf_counter()
    action()
    return frames / (time.perf_counter() - began)


def sequence(frames: int) -> Any:
    import useq

    return useq.MDASequence(time_plan={"interval": 0, "loops": frames})


def bare(core: Any, frames: int, _: Path) -> dict[str, Any]:
    return {"rate_hz": timed(lambda: core.mda.run(sequence(frames)), frames)}


def as_output(core: Any, frames: int, folder: Path) -> dict[str, Any]:
    with LiveDenoiser(output=folder, microscope=core) as live:
        rate = timed(lambda: core.mda.run(sequence(frames), output=live), frames)
    return reported(live, rate, frames)


def without_queue(core: Any, frames: int, folder: Path) -> dict[str, Any]:
    from pymmcore_plus.mda import mda_listeners_connected

    with (
        LiveDenoiser(output=folder, microscope=core, mode="sink") as live,
        mda_listeners_connected(live, mda_events=core.mda.events, asynchronous=False),
    ):
        rate = timed(lambda: core.mda.run(sequence(frames)), frames)
    return reported(live, rate, frames)


def their_own_store(core: Any, frames: int, folder: Path) -> dict[str, Any]:
    path = folder.with_suffix(".ome.zarr")
    return {"rate_hz": timed(lambda: core.mda.run(sequence(frames), output=path), frames)}


VARIANTS: dict[str, Callable[[Any, int, Path], dict[str, Any]]] = {
    BARE: bare,
    "output=live": as_output,
    "without a queue": without_queue,
    "their own store": their_own_store,
}


def reported(live: LiveDenoiser, rate: float, frames: int) -> dict[str, Any]:
    assert live.report["frames_recorded"] == frames, live.report
    return {"rate_hz": rate, "hook_ms": live.report["hook_ms"]}


def with_pycromanager(frames: int, exposure_ms: float, folder: Path) -> dict[str, Any]:
    from pycromanager import Acquisition, multi_d_acquisition_events

    with (
        open_microscope(MicroscopeSettings(exposure_ms=exposure_ms)),
        LiveDenoiser(output=folder) as live,
        Acquisition(image_process_fn=live.image_process_fn) as acquisition,
    ):
        acquisition.acquire(multi_d_acquisition_events(num_time_points=frames))
    return {"hook_ms": live.report["hook_ms"]}


def median(values: list[float]) -> float:
    return statistics.median(values)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--exposure-ms", type=float, default=10.0)
    options.add_argument("--frames", type=int, default=200)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--folder", type=Path, help="where runs are written")
    options.add_argument("--out", type=Path, help="JSON file for the figures")
    chosen = options.parse_args()

    from pymmcore_plus import CMMCorePlus

    names = list(VARIANTS)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        core = CMMCorePlus.instance()
        core.loadSystemConfiguration()
        core.setExposure(chosen.exposure_ms)
        as_output(core, 20, Path(folder) / "warm up")
        for turn in range(chosen.rounds):
            first = turn % len(names)
            rounds.append(
                {
                    name: VARIANTS[name](core, chosen.frames, Path(folder) / f"{turn} {number}")
                    for number, name in enumerate(names[first:] + names[:first])
                }
            )
        core.reset()
        hook = with_pycromanager(chosen.frames, chosen.exposure_ms, Path(folder) / "pycro")
    result = {
        "camera": f"DemoCamera 512×512 uint16, {chosen.exposure_ms:g} ms",
        "frames": chosen.frames,
        "rounds": chosen.rounds,
        "rate_hz": {name: median([r[name]["rate_hz"] for r in rounds]) for name in names},
        "ratio_to_bare": {
            name: median([r[name]["rate_hz"] / r[BARE]["rate_hz"] for r in rounds])
            for name in names
        },
        "hook_ms": {
            name: {of: median([r[name]["hook_ms"][of] for r in rounds]) for of in ("p50", "p99")}
            for name in names
            if "hook_ms" in rounds[0][name]
        }
        | {"pycro-manager": {of: hook["hook_ms"][of] for of in ("p50", "p99")}},
        "versions": {
            name: version(name) for name in ("pymmcore-plus", "useq-schema", "pycromanager")
        },
        "cores": psutil.cpu_count(),
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))
    if chosen.out:
        write_json(chosen.out, result)


if __name__ == "__main__":
    main()
