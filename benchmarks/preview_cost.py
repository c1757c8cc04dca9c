"""What the preview costs the acquisition: time in `show`, and the window's share of a core.

Feeds noise at the camera's pace to a real window (offscreen where there is no screen) and times
every call of `PreviewLink.show`. `busy` keeps every core at work meanwhile, as a denoiser on the
CPU would, and counts its work with and without the window.

    python benchmarks/preview_cost.py --seconds 6
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from quietscope.acquisition.preview_link import PreviewLink
from quietscope.outputs import write_json

FIGURES = {
    "frame_rate_hz": 100.0,
    "latency_ms": 12.0,
    "frames_recorded": 1,
    "residual_explained": 0.98,
    "residual_correlation": 0.01,
    "uncertainty_adu_median": 3.0,
    "saturated_share": 0.0,
}
BUSY = """
import sys, time
import numpy as np
matrix = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
end, count = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    matrix @ matrix
    count += 1
print(count)
"""


def main() -> None:
    """Measure every frame size and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="per frame size")
    parser.add_argument("--frame-rate-hz", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of the busy comparison")
    parser.add_argument("--out", type=Path, help="also write the result here")
    options = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    result: dict[str, Any] = {
        "hardware": f"{psutil.cpu_count()} CPU cores",
        "frame_rate_hz": options.frame_rate_hz,
    }
    for size in (512, 2048):
        result[f"{size}x{size}"] = cost(size, options.seconds, 1 / options.frame_rate_hz)
    result["busy_work_with_window_ratio"] = busy_ratio(options.rounds, options.seconds)
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


def images(size: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    signal = 100 + 50 * np.sin(np.arange(size) / 30)[:, None] * np.ones(size)
    return np.random.default_rng(0).poisson(signal).astype(np.uint16), signal.astype(np.float32)


def opened(size: int) -> PreviewLink:
    link = PreviewLink.open(frame_shape=(size, size), pixel_type="uint16", title="cost")
    if not link.wait_until_shown():
        raise SystemExit(f"no window: {link.reason}")
    return link


def feed(link: PreviewLink, size: int, seconds: float, interval_s: float) -> list[float]:
    """Offer a picture every `interval_s` and return the milliseconds each call took."""
    raw, denoised = images(size)
    calls = []
    due = time.perf_counter()
    end = due + seconds
    while due < end:
        before = time.perf_counter()
        link.show(raw, denoised, FIGURES)
        calls.append(1000 * (time.perf_counter() - before))
        due += interval_s
        time.sleep(max(0.0, due - time.perf_counter()))
    return calls


def cost(size: int, seconds: float, interval_s: float) -> dict[str, float]:
    link = opened(size)
    (window,) = psutil.Process().children()
    feed(link, size, 1.0, interval_s)
    before = window.cpu_times()
    calls = feed(link, size, seconds, interval_s)
    after = window.cpu_times()
    link.close(keep_window=False)
    window.wait(20)
    used = after.user + after.system - before.user - before.system
    return {
        "show_ms_mean": round(float(np.mean(calls)), 4),
        "show_ms_p50": round(float(np.percentile(calls, 50)), 4),
        "show_ms_p99": round(float(np.percentile(calls, 99)), 4),
        "show_ms_max": round(float(np.max(calls)), 3),
        "pictures_per_second": round(sum(call > 0.1 for call in calls) / seconds, 1),
        "window_share_of_one_core": round(used / seconds, 3),
    }


def busy_ratio(rounds: int, seconds: float) -> float:
    """Return how much of its work a busy machine still does with the window open (median)."""

    def work(*, preview: bool) -> int:
        link = opened(512) if preview else None
        command = [sys.executable, "-c", BUSY, str(seconds)]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        workers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=one_thread)
            for _ in range(psutil.cpu_count() or 1)
        ]
        if link is not None:
            feed(link, 512, seconds, 0.01)
        done = sum(int(worker.communicate()[0]) for worker in workers)
        if link is not None:
            link.close(keep_window=False)
        return done

    ratios = []
    for turn in range(rounds):
        order = (True, False) if turn % 2 else (False, True)
        done = {preview: work(preview=preview) for preview in order}
        ratios.append(done[True] / done[False])
    return round(float(np.median(ratios)), 3)


if __name__ == "__main__":
    main()
