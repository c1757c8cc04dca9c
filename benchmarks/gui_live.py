"""What the window costs a live run, and whether it ever stands still.

Runs the demo camera at 512² through `quietscope live`, first alone, then seen in the window, for
the same number of images, and compares the rate of the acquisition. In the window a heartbeat of
10 ms measures how long the event loop was held up, memory is read every second, and the pictures
that came to the screen are counted from the first to the last. What the loop's own thread worked
between two beats tells a window that stands still from a computer that is busy with something
else. The model is a small box filter, so that the denoiser keeps up: what is measured is the
window. The camera gives as many images as the view shows at most, 25 a second.

    python benchmarks/gui_live.py --seconds 600 --out benchmarks/results/gui_live.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PySide6.QtCore import QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from quietscope.acquisition.preview.mailbox import Picture
from quietscope.acquisition.preview.process import provide_fonts
from quietscope.acquisition.preview.stream_watch import StreamState
from quietscope.acquisition.preview.window import PreviewWindow
from quietscope.benchmarks.box_model import write_box_model
from quietscope.gui.job import Job
from quietscope.gui.session import Session
from quietscope.gui.window.main_window import MainWindow
from quietscope.storage.atomic_output import write_json

SIDE, EXPOSURE_MS = 512, 40.0
BEAT_MS = 10


def words(folder: Path, bundle: Path, name: str, frames: int, exposure_ms: float) -> list[str]:
    """Return the command; the camera's own pictures, which cost it less than a specimen."""
    out = ["live", "--out", str(folder / name), "--model", str(bundle)]
    camera = ["--demo", "--no-specimen", "--exposure-ms", f"{exposure_ms:g}"]
    return [*out, *camera, "--frames", str(frames)]


def alone(asked: list[str]) -> dict[str, Any]:
    """Run without a window."""
    command = [sys.executable, "-P", "-m", "quietscope.cli"]
    asked = [*asked, "--no-preview", "--json"]
    done = subprocess.run([*command, *asked], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout))


def in_window(folder: Path, asked: list[str]) -> dict[str, Any]:
    """Run seen in the window; return the run's report and what the window measured of itself."""
    session = Session(folder / "state")
    session.facts.remember(workspace=folder / "quietscope", appearance="dark")
    window = MainWindow(session)
    window.resize(1280, 720)
    window.show()
    session.live.adopt(Job.start(session.facts.jobs, "live", [*asked, "--preview"]))
    window.go_to("live")
    beats, own, memory, pictures = [], [], [], []

    def beat() -> None:
        beats.append(time.perf_counter())
        own.append(time.thread_time())

    heart = QTimer()
    heart.setInterval(BEAT_MS)
    heart.timeout.connect(beat)
    process, next_look, began_cpu_s, worked_s = psutil.Process(), 0.0, 0.0, 0.0
    while session.live.busy:
        QTest.qWait(20)
        view = window.pages["live"].view.preview
        if view is None or view._picture is None:
            continue
        if not heart.isActive() and not pictures:  # the beginning builds the view
            heart.start()
            began_cpu_s = time.process_time()
            count_pictures(view, pictures)
        if view.stream_state() is StreamState.ENDED:
            heart.stop()
            worked_s = worked_s or time.process_time() - began_cpu_s
        if time.perf_counter() > next_look:
            memory.append(process.memory_info().rss / 2**20)
            next_look = time.perf_counter() + 1
    worked_s = worked_s or time.process_time() - began_cpu_s
    report = dict(session.live.report)
    error = session.live.error
    window.close()
    if error:
        raise SystemExit(error)
    gaps, work = 1000 * np.diff(beats), 1000 * np.diff(own)
    settled = memory[min(10, len(memory) // 4) :]
    return {
        **report,
        "pictures_per_second": (len(pictures) - 1) / (pictures[-1] - pictures[0]),
        "cpu_ms_per_picture": 1000 * worked_s / len(pictures),
        "loop_held_up_ms": {
            "p50": float(np.percentile(gaps, 50)),
            "p99": float(np.percentile(gaps, 99)),
            "p99.9": float(np.percentile(gaps, 99.9)),
            "max": float(gaps.max()),
        },
        "held_up_over_100_ms": int((gaps > 100).sum()),
        "own_work_between_beats_ms": {
            "p99": float(np.percentile(work, 99)),
            "max": float(work.max()),
        },
        "memory_mb": {"begin": settled[0], "end": settled[-1], "most": max(settled)},
    }


def count_pictures(view: PreviewWindow, times: list[float]) -> None:
    """Note when each picture from now on has come to the screen."""
    show = view.show_picture

    def counted(picture: Picture) -> None:
        show(picture)
        times.append(time.perf_counter())

    view.show_picture = counted


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the two runs")
    parser.add_argument("--exposure-ms", type=float, default=EXPOSURE_MS, help="of the camera")
    parser.add_argument("--out", type=Path, help="also write the result here")
    options = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    frames = round(options.seconds * 1000 / options.exposure_ms)
    _application = QApplication(["quietscope"])
    provide_fonts()
    load = [os.getloadavg()[0]] if hasattr(os, "getloadavg") else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        bundle = write_box_model(folder / "mean")
        without = alone(words(folder, bundle, "alone", frames, options.exposure_ms))
        seen = in_window(folder, words(folder, bundle, "seen", frames, options.exposure_ms))
    load += [os.getloadavg()[0]] if hasattr(os, "getloadavg") else []
    names = ("frame_rate_hz", "frames_delivered", "frames_recorded", "frames_missing", "hook_ms")
    measured = (
        "pictures_per_second",
        "cpu_ms_per_picture",
        "loop_held_up_ms",
        "held_up_over_100_ms",
        "own_work_between_beats_ms",
        "memory_mb",
    )
    result = {
        "hardware": f"{psutil.cpu_count()} CPU cores",
        "load_average_before_and_after": load,
        "frame_shape": [SIDE, SIDE],
        "exposure_ms": options.exposure_ms,
        "seconds_per_run": options.seconds,
        "alone": {name: without[name] for name in names},
        "seen": {name: seen[name] for name in (*names, *measured)},
        "rate_seen_over_alone": seen["frame_rate_hz"] / without["frame_rate_hz"],
    }
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
