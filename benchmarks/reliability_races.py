"""Two programs claim one run directory at the same instant, a thousand times: never two owners.

Each race is one of these: nothing is there; a lock file was left behind; an earlier run is to be
replaced; lock file and earlier run carry times of another day, as after a step of the clock; the
program that owned the directory is killed at that instant. Whoever owns the directory makes a
marker that can be made only once; finding one that is there means two owners.

In the handovers both programs want the same lock over and over, and wait for it.

    python benchmarks/reliability_races.py --out benchmarks/results/reliability_races.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from quietscope.storage.atomic_output import OutputError, write_json

RACES = ("nothing there", "stale lock", "earlier run", "another day", "owner killed")
A_DAY_S = 86_400

RACER = """
import os, sys
from pathlib import Path
from quietscope.acquisition.stream.run_directory import RunDirectory
from quietscope.storage.atomic_output import OutputError
print("ready", flush=True)
for line in sys.stdin:
    path = Path(line.rstrip("\\n"))
    run, marker = RunDirectory(path), path.with_name(path.name + " owner")
    try:
        run.claim(overwrite=True)
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        answer = "owned"
    except OutputError:
        answer = "refused"
    except FileExistsError:
        answer = "two owners"
    print(answer, flush=True)
    sys.stdin.readline()
    if answer == "owned":
        marker.unlink()
    run.release()
    print("released", flush=True)
"""
HOLDER = """
import sys, time
from quietscope.storage.directory_lock import DirectoryLock
DirectoryLock(sys.argv[1]).acquire()
print("ready", flush=True)
time.sleep(600)
"""


HANDOVER = """
import os, sys
from quietscope.storage.directory_lock import owned
print("ready", flush=True)
sys.stdin.readline()
two = 0
for _ in range(int(sys.argv[2])):
    with owned(sys.argv[1], wait_s=60):
        try:
            os.close(os.open(sys.argv[1] + " owner", os.O_CREAT | os.O_EXCL))
            os.unlink(sys.argv[1] + " owner")
        except FileExistsError:
            two += 1
print(two, flush=True)
"""


class Program:
    """A process that is told lines and answers lines."""

    def __init__(self, source: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.heard()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def prepare(race: str, run: Path) -> Program | None:
    """Lay down what stands there before the race; return the owner that is to be killed."""
    lock = run.with_name(f".{run.name}.lock")
    if race in ("stale lock", "another day"):
        lock.write_bytes(b'\0{"pid": 1, "host": "gone", "since": "2026-01-01T00:00:00+00:00"}')
    if race in ("earlier run", "another day"):
        run.mkdir()
        (run / "events.log").write_text("an earlier run\n", encoding="utf-8")
    if race == "another day":
        for step_s, path in ((A_DAY_S, lock), (-A_DAY_S, run / "events.log")):
            os.utime(path, (time.time() + step_s,) * 2)
    return Program(HOLDER, str(run)) if race == "owner killed" else None


def run_race(race: str, run: Path, racers: list[Program]) -> tuple[str, ...]:
    owner = prepare(race, run)
    for racer in racers:
        racer.tell(str(run))
    if owner is not None:
        owner.end()
    answers = tuple(sorted(racer.heard() for racer in racers))
    for racer in racers:
        racer.tell("release")
    for racer in racers:
        racer.heard()
    return answers


def race_all(races: int, killed_every: int) -> dict[str, Any]:
    """Run the races, those with a killed owner (a process each) less often than the others."""
    found: dict[str, Counter[str]] = {race: Counter() for race in RACES}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        racers = [Program(RACER), Program(RACER)]
        for number in range(races):
            killed = number % killed_every == killed_every - 1
            race = RACES[-1] if killed else RACES[number % (len(RACES) - 1)]
            answers = run_race(race, Path(folder) / f"run {number}", racers)
            found[race][" and ".join(answers)] += 1
        for racer in racers:
            racer.end()
    total = sum(found.values(), Counter())
    return {
        "races": races,
        "two_owners": sum(n for what, n in total.items() if what.count("own") > 1),
        "one_owner": total["owned and refused"],
        "no_owner": total["refused and refused"],
        "by_kind": {race: dict(counts) for race, counts in found.items()},
        "seconds": time.perf_counter() - began,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }


def hand_over(times: int) -> dict[str, Any]:
    """Let two programs own a directory in turns, each as often as it can."""
    with tempfile.TemporaryDirectory() as folder:
        programs = [Program(HANDOVER, str(Path(folder) / "run"), str(times)) for _ in range(2)]
        for program in programs:
            program.tell("begin")
        two_owners = sum(int(program.heard()) for program in programs)
        for program in programs:
            program.end()
    return {"handovers": 2 * times, "two_owners": two_owners}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--races", type=int, default=1000)
    options.add_argument("--killed-every", type=int, default=20)
    options.add_argument("--out", type=Path, help="JSON file for the figures")
    chosen = options.parse_args()
    result = race_all(chosen.races, chosen.killed_every)
    result["handover"] = hand_over(chosen.races)
    print(json.dumps(result, indent=2))
    if chosen.out is not None:
        write_json(chosen.out, result)
    if result["two_owners"] or result["handover"]["two_owners"]:
        raise OutputError("a directory had two owners")


if __name__ == "__main__":
    main()
