"""What the preview costs the acquisition: time in `show`, and the window's share of a core.

Feeds noise at the camera's pace to a real window (offscreen where there is no screen), times
every call of `PreviewLink.show` and reads the window's CPU time; once on a quiet machine and once
with every core at work, as a denoiser on the CPU would keep it.

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

from quietscope.acquisition.preview.link import PreviewLink
from quietscope.storage.atomic_output import write_json

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
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pass
"""


def main() -> None:
    """Measure every frame size and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="per frame size")
    parser.add_argument("--frame-rate-hz", type=float, default=100.0)
    parser.add_argument("--out", type=Path, help="also write the result here")
    options = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    result: dict[str, Any] = {
        "hardware": f"{psutil.cpu_count()} CPU cores",
        "frame_rate_hz": options.frame_rate_hz,
    }
    for size in (512, 2048):
        interval_s = 1 / options.frame_rate_hz
        result[f"{size}x{size}"] = cost(size, options.seconds, interval_s)
        result[f"{size}x{size}, all cores busy"] = cost(
            size, options.seconds, interval_s, busy=True
        )
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


def cost(size: int, seconds: float, interval_s: float, *, busy: bool = False) -> dict[str, float]:
    """Measure one frame size; `busy` keeps every core at work meanwhile."""
    link = opened(size)
    (window,) = psutil.Process().children()
    feed(link, size, 1.0, interval_s)
    workers = [
        subprocess.Popen([sys.executable, "-c", BUSY, str(seconds)])
        for _ in range(psutil.cpu_count() or 1 if busy else 0)
    ]
    before = window.cpu_times()
    calls = feed(link, size, seconds, interval_s)
    after = window.cpu_times()
    link.close(keep_window=False)
    for worker in workers:
        worker.wait()
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


if __name__ == "__main__":
    main()
