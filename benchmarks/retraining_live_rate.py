"""What a training service costs a live session: its frame rate beside one, and alone.

    python benchmarks/retraining_live_rate.py

Two minutes. A service trains the models of a library (`quietscope schedule run`, as the system's
own job starts it); sessions of a few seconds record and denoise frames as fast as they can be
taken, some while the service trains and gives way, some without any. Every frame waits for the one
before, so nothing is skipped and the rate is that of recording and denoising together. The first
two seconds of each session, in which the machine may still be handed over, are told apart.

The trivial competitor, a training that does not give way, is measured beside (--no-rude leaves it
out): the same number of busy processes as the training has threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.benchmarks.box_model import write_box_model
from quietscope.inference.runtime.providers import all_cores, cpu_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.training.retraining.supervision import own_command

SHAPE = (512, 512)
SMALL = Specimen((128, 128), CameraLaw(0.5, 100.0, 2.0), peak_photoelectrons=20.0)
HANDED_OVER_S = 2.0
AT_WORK_S = 2.0
"""Processor time that the training has used since a session ended: it goes on."""
PATIENCE_S = 60.0
NIGHT = "night_process"


def record(library: Path) -> None:
    """Record something to learn from."""
    for day in range(2):
        with OmeZarrWriter(
            library / f"day {day}" / "raw.ome.zarr", frame_shape=SMALL.shape, dtype="uint16"
        ) as writer:
            for index in range(80):
                writer.write(SMALL.observe(80 * day + index), {"time": index})


def session(folder: Path, model: Path, seconds: float) -> dict[str, float]:
    """Run a live session at full speed; return frames/s of its beginning and of the rest."""
    rng = np.random.default_rng(0)
    frames = [rng.poisson(100, SHAPE).astype(np.uint16) for _ in range(8)]
    done: list[float] = []
    with LiveDenoiser(
        model, folder, provider="cpu", overwrite=True, complete_afterwards=False
    ) as live:
        began, sent = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            live.image_process_fn(frames[sent % len(frames)], {"Axes": {"time": sent}})
            sent += 1
            while live.report["frames_denoised_live"] < sent:
                time.sleep(0.0005)
            done.append(time.perf_counter() - began)
    early = sum(at < HANDED_OVER_S for at in done)
    return {
        "handing_over_fps": early / HANDED_OVER_S,
        "fps": (len(done) - early) / (done[-1] - HANDED_OVER_S),
    }


@contextmanager
def service(library: Path) -> Iterator[Callable[[], float]]:
    """Have a night at work; yields what returns the processor time of its training."""
    now = datetime.now()
    clock = [f"{moment:%H:%M}" for moment in (now, now + timedelta(minutes=20))]
    arguments = ("schedule", "run", "--library", str(library), "--at", clock[0])
    command = own_command("quietscope.cli", *arguments, "--until", clock[1])
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        parent = psutil.Process(process.pid)
        try:
            yield lambda: _used(parent)
        finally:
            for one in (*parent.children(recursive=True), parent):
                one.kill()


def _used(parent: psutil.Process) -> float:
    for one in parent.children(recursive=True):
        try:
            if NIGHT in " ".join(one.cmdline()):
                times = one.cpu_times()
                return float(times.user + times.system)
        except psutil.Error:
            continue
    return 0.0


def wait_for_work(used: Callable[[], float], least_s: float) -> None:
    """Return once the training has used so much more processor time."""
    before, ends = used(), time.monotonic() + PATIENCE_S
    while used() - before < least_s:
        if time.monotonic() > ends:
            raise SystemExit(f"the training did nothing for {PATIENCE_S:.0f} s")
        time.sleep(0.2)


@contextmanager
def rude() -> Iterator[None]:
    """Keep every core busy, as a training does that gives way to nobody."""
    spin = "while True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(all_cores() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measured(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Measure sessions without, beside, and without a service, in this order."""
    library = folder / "library"
    record(library)
    model = write_box_model(folder / "model", radius=3)
    alone, beside, rudely = [], [], []

    def one() -> dict[str, float]:
        return session(folder / "run", model, given.seconds)

    one()  # warms up caches and the disk
    alone.append(one())
    with service(library) as used:
        wait_for_work(used, 3 * AT_WORK_S)  # imports, and some steps
        for _ in range(given.times):
            beside.append(one())
            wait_for_work(used, AT_WORK_S)
    alone += [one() for _ in range(given.times - 1)]
    if given.rude:
        with rude():
            rudely.append(one())
    rows = {"alone": alone, "beside_a_service": beside, "beside_busy_cores": rudely}
    fps = {
        name: float(np.median([s["fps"] for s in found])) for name, found in rows.items() if found
    }
    early = {
        name: float(np.median([s["handing_over_fps"] for s in found]))
        for name, found in rows.items()
        if found
    }
    ratio = fps["beside_a_service"] / fps["alone"]
    return {
        "ratio": ratio,
        "fps": fps,
        "first_two_seconds_fps": early,
        "sessions": rows,
        "seconds_each": given.seconds,
        "frame_shape": SHAPE,
        "bar": "at least 98 % of the rate without a training service",
        "met": ratio >= 0.98,
        "hardware": cpu_name(all_cores()),
        "other_load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def main() -> None:
    """Measure, write the row and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="Of each session.")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--rude", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path("retraining_live_rate.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quietscope rate ") as folder:
        os.environ["QUIETSCOPE_STATE"] = str(Path(folder) / "state")
        row = measured(Path(folder), given)
    write_json(given.out, row)
    print(json.dumps(row, indent=2))
    print(f"rate beside a training service: {row['ratio']:.1%} of that without")


if __name__ == "__main__":
    main()
