"""Whether the job that is installed is really run, by whatever starts jobs on this computer.

    python benchmarks/retraining_job.py --yes

Installs the night of a small library by `quietscope schedule install` for the next minute, waits
until systemd, cron, launchd or the Task Scheduler has started it by itself, reads the record that
the night left, and removes the job. Where cron is installed and not running, and this is the
superuser (a container), it is started for as long as that takes. The recordings hold noise alone:
what is asked here is whether a night happens, not what it learns.

It touches this user's own jobs, so it does nothing without --yes; the table of cron is compared
before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from quietscope.storage.atomic_output import write_json
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.training.retraining.night_record import last_night
from quietscope.training.retraining.scheduling.installation import this_system

SHAPE, FRAMES = (64, 64), 12
NOTICE_S = 15
"""Before the minute begins, the job has to stand where it is looked for."""
WAIT_S = 240.0


def noise_alone(library: Path) -> None:
    """Record a run that teaches nothing: the night says so and is done within seconds."""
    rng = np.random.default_rng(0)
    with OmeZarrWriter(
        library / "monday" / "raw.ome.zarr", frame_shape=SHAPE, dtype="uint16"
    ) as writer:
        for index in range(FRAMES):
            writer.write(rng.poisson(130, SHAPE).astype(np.uint16), {"time": index})


def told(*arguments: str) -> dict[str, Any]:
    """Run a command of quietscope and return what it says."""
    command = [sys.executable, "-P", "-m", "quietscope.cli", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    return dict(json.loads(done.stdout))


@contextmanager
def starter(system: str) -> Iterator[str]:
    """Have whoever starts jobs running; yields who that is."""
    running = any(p.info["name"] in ("cron", "crond") for p in psutil.process_iter(["name"]))
    program = shutil.which("cron") or shutil.which("crond")
    if system != "cron" or running:
        yield system
        return
    if program is None or os.getuid() != 0:
        raise SystemExit("cron is not running here, and only the superuser can start it")
    with subprocess.Popen([program, "-f"]) as daemon:
        try:
            yield f"cron ({program}, started for this)"
        finally:
            daemon.terminate()


def table() -> str:
    """Return the user's table of cron; empty where there is none."""
    if shutil.which("crontab") is None:
        return ""
    return subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False).stdout


def started(library: Path) -> dict[str, Any]:
    """Install the job for the next minute, and wait for its night."""
    at = datetime.now() + timedelta(minutes=1, seconds=NOTICE_S)
    until = at + timedelta(minutes=30)
    clock = ["--at", f"{at:%H:%M}", "--until", f"{until:%H:%M}"]
    installed = told("schedule", "install", "--library", str(library), *clock, "--yes")
    due = at.replace(second=0, microsecond=0)
    ends = time.monotonic() + WAIT_S
    record = None
    while time.monotonic() < ends:
        record = last_night(library)
        if record is not None and record.state != "running":
            break
        time.sleep(0.5)
    status = told("schedule", "status", "--library", str(library))
    if record is None:
        return {"installed": installed["installed"], "ran": False}
    return {
        "installed": installed["installed"],
        "there_after_the_night": status["is_there"],
        "ran": True,
        "late_s": record.started.replace(tzinfo=None).timestamp() - due.timestamp(),
        "state": record.state,
        "decisions": [one.decision for one in record.decisions],
        "problem": status["problem"],
    }


def main() -> None:
    """Have a night really happen, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--yes", action="store_true", help="Touch this user's own jobs.")
    parser.add_argument("--out", type=Path, default=Path("retraining_job.json"))
    given = parser.parse_args()
    if not given.yes:
        raise SystemExit("this sets up a job of this user for some minutes; pass --yes")
    system, before = this_system(), table()
    with tempfile.TemporaryDirectory(prefix="100% a lab's ") as folder:
        library = Path(folder)
        noise_alone(library)
        with starter(system) as who:
            try:
                row = started(library)
            finally:
                told("schedule", "remove", "--library", str(library), "--yes")
    row |= {
        "started_by": who,
        "other_jobs_as_before": table() == before,
        "bar": "the installed job is really run by systemd or cron",
    }
    row["met"] = row["ran"] and row["state"] == "done" and row["other_jobs_as_before"]
    known = json.loads(given.out.read_text("utf-8")) if given.out.is_file() else {}
    write_json(given.out, {**known, system: row})
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
