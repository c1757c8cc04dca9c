"""Frame rate with the stream attached against without it, in paired runs on the demo camera.

Each round runs every variant once, in an order that turns with the round; the figure is the
median over rounds of the ratio to that round's bare run. Rates count from `acquire` to the end of
the acquisition, so waiting for a slow consumer is included.

The demo camera computes an image and then sleeps in steps of 1 ms until the exposure is over, so
its own period jumps by 1 ms when computing takes a little longer or shorter. `--spread-ms 1` gives
each round an exposure of its own within half a step, which averages this out: the figure is then
the ratio of all frames. `--fast-image` has the camera send images without computing them.

Runs lie in directories of their own until the last one has ended: an ext4 disk without a journal
looks at every file that was deleted in the last minutes before it makes a new one, ten times the
cost of writing a frame.

    python benchmarks/stream_frame_rate.py --exposure-ms 10 --spread-ms 1 --frames 200 --rounds 6
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy import ndimage

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.storage.atomic_output import write_json

VARIANTS = ("bare", "record", "record and denoise")
BUSY = 0.1
"""Cores that other programs may use; a round in which they used more is made again, and the one
in which they used least counts."""

ATTEMPTS = 3


class Smoothing:
    """A denoiser that costs what the live preset costs on two cores: about 40 ms at 512²."""

    context_frames = 0

    def __init__(self, frame_shape: tuple[int, int]) -> None:
        self.frame_shape = frame_shape

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        ndimage.gaussian_filter(observations[0].astype(np.float32), 3, output=out[0])
        out[1] = 1.0

    def close(self) -> None:
        pass


def rate(frames: int, hook: Callable[..., Any] | None) -> float:
    from pycromanager import Acquisition, multi_d_acquisition_events

    events = multi_d_acquisition_events(num_time_points=frames)
    acquisition = Acquisition(image_process_fn=hook)
    began = time.perf_counter()
    acquisition.acquire(events)
    acquisition.mark_finished()
    acquisition.await_completion()
    return frames / (time.perf_counter() - began)


class OtherPrograms:
    """How many cores other programs used since this was built."""

    def __init__(self) -> None:
        self._began = self._now()

    def cores(self) -> float:
        seconds, others = (now - then for now, then in zip(self._now(), self._began, strict=True))
        return others / seconds

    @staticmethod
    def _now() -> tuple[float, float]:
        everybody, own = psutil.cpu_times(), psutil.Process().cpu_times()
        busy = everybody.user + everybody.system + getattr(everybody, "nice", 0.0)
        return time.perf_counter(), busy - own.user - own.system


def run(variant: str, frames: int, shape: tuple[int, int], folder: Path, model: Any) -> dict:
    if variant == "bare":
        return {"rate_hz": rate(frames, None)}
    denoiser = None if variant == "record" else (model or Smoothing(shape))
    live = LiveDenoiser(denoiser, folder, complete_afterwards=False)
    own_ms: list[float] = []

    def hook(image: Any, metadata: Any) -> Any:
        began = time.thread_time_ns()
        result = live.image_process_fn(image, metadata)
        own_ms.append((time.thread_time_ns() - began) / 1e6)
        return result

    with live:
        measured = rate(frames, hook)
    report = live.report
    assert report["frames_recorded"] == frames, report
    return {
        "rate_hz": measured,
        "hook_ms": report["hook_ms"],
        "hook_cpu_p99_ms": float(np.percentile(own_ms, 99)),
        "latency_ms": report["latency_ms"],
        "frames_denoised_live": report["frames_denoised_live"],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--exposure-ms", type=float, default=10.0)
    options.add_argument("--spread-ms", type=float, default=0.0, help="over the rounds")
    options.add_argument("--side", type=int, default=512, help="512 or, with a larger chip, more")
    options.add_argument("--frames", type=int, default=600)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--fast-image", action="store_true", help="the camera computes nothing")
    options.add_argument("--model", type=Path, help="a bundle; by default a Gaussian filter")
    options.add_argument("--variants", nargs="+", default=list(VARIANTS))
    options.add_argument("--folder", type=Path, help="where runs are written")
    options.add_argument("--out", type=Path, help="JSON file for the figures")
    chosen = options.parse_args()

    rounds: list[dict[str, Any]] = []
    busy_cores: list[float] = []
    with (
        open_microscope(MicroscopeSettings(exposure_ms=chosen.exposure_ms)) as microscope,
        tempfile.TemporaryDirectory(dir=chosen.folder) as folder,
    ):
        if chosen.side != 512:
            microscope.set_property("OnCameraCCDXSize", chosen.side)
            microscope.set_property("OnCameraCCDYSize", chosen.side)
        if chosen.fast_image:
            microscope.set_property("FastImage", 1)
        run("record", 20, microscope.frame_shape, Path(folder) / "warm up", None)
        for turn in range(chosen.rounds):
            first = turn % len(chosen.variants)
            order = chosen.variants[first:] + chosen.variants[:first]
            offset = (turn + 0.5) / chosen.rounds - 0.5
            microscope.exposure_ms = chosen.exposure_ms + offset * chosen.spread_ms
            attempts = []
            while len(attempts) < ATTEMPTS and min(attempts, default=(1.0,))[0] > BUSY:
                others = OtherPrograms()
                runs = Path(folder) / f"{turn} {len(attempts)}"
                shape = microscope.frame_shape
                found = {v: run(v, chosen.frames, shape, runs / v, chosen.model) for v in order}
                attempts.append((others.cores(), len(attempts), found))
                rates = {v: round(f["rate_hz"], 1) for v, f in found.items()}
                print(json.dumps(rates), f"other programs: {attempts[-1][0]:.2f} cores")
            cores, _, found = min(attempts)
            busy_cores.append(cores)
            rounds.append(found)
    figures = {
        "hardware": "2 CPU cores",
        "side": chosen.side,
        "exposure_ms": chosen.exposure_ms,
        "spread_ms": chosen.spread_ms,
        "fast_image": chosen.fast_image,
        "frames": chosen.frames,
        "ratio_to_bare": {
            v: statistics.median(r[v]["rate_hz"] / r["bare"]["rate_hz"] for r in rounds)
            for v in chosen.variants
            if v != "bare"
        },
        "ratio_to_bare_of_all_frames": {
            v: sum(1 / r["bare"]["rate_hz"] for r in rounds)
            / sum(1 / r[v]["rate_hz"] for r in rounds)
            for v in chosen.variants
            if v != "bare"
        },
        # Processor time in the hook: what it costs, whatever else the machine does meanwhile.
        "hook_cpu_p99_ms": {
            v: statistics.median(r[v]["hook_cpu_p99_ms"] for r in rounds)
            for v in chosen.variants
            if v != "bare"
        },
        "cores_of_other_programs": [round(cores, 2) for cores in busy_cores],
        "rounds_without_disturbance": sum(cores <= BUSY for cores in busy_cores),
        "hook_p99_ms": {
            v: statistics.median(r[v]["hook_ms"]["p99"] for r in rounds)
            for v in chosen.variants
            if v != "bare"
        },
        "rounds": rounds,
    }
    print(json.dumps({k: v for k, v in figures.items() if k != "rounds"}, indent=2))
    if chosen.out:
        write_json(chosen.out, figures)


if __name__ == "__main__":
    main()
