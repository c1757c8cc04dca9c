"""From nothing to a denoised demo: build the wheel, install it in an empty environment, run it.

    python packaging/check_wheel.py [--extras train] [--train-seconds 30] [--out RESULT.json]

The wheel is built from the committed files alone, so nothing that lies about in this folder may
help. Steps are timed; the exit status is 1 where one of them fails. Needs an index to install from
and nothing else; runs the same on Linux, Windows and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "wheel.json"


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command; return its standard output, or stop with what it said."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


def committed_files(folder: Path) -> Path:
    """Unpack what is committed; a checkout without git (an sdist) is taken as it is."""
    done = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], capture_output=True)
    if done.returncode:
        return ROOT
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def scripts(environment: Path) -> Path:
    """Return where an environment has its programs."""
    return environment / ("Scripts" if sys.platform == "win32" else "bin")


def main() -> None:
    """Build, install, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default="train")
    parser.add_argument("--train-seconds", default="30")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    seconds: dict[str, float] = {}

    def timed(what: str, *words: str | Path, cwd: Path) -> str:
        began = time.perf_counter()
        said = run(*words, cwd=cwd)
        seconds[what] = round(time.perf_counter() - began, 1)
        print(f"{what}: {seconds[what]} s", flush=True)
        return said

    with tempfile.TemporaryDirectory(prefix="quietscope wheel ") as folder:
        work = Path(folder)
        source = committed_files(work / "source")
        wheels = work / "wheels"
        pip = (sys.executable, "-m", "pip")
        timed("build", *pip, "wheel", "--quiet", "--no-deps", "-w", wheels, source, cwd=work)
        [wheel] = wheels.glob("*.whl")
        venv.create(work / "empty", with_pip=True)
        programs = scripts(work / "empty")
        python, quietscope = programs / "python", programs / "quietscope"
        wanted = f"{wheel}[{given.extras}]" if given.extras else str(wheel)
        timed("install", python, "-m", "pip", "install", "--quiet", wanted, cwd=work)
        version = timed("first start", quietscope, "--version", cwd=work).split()[-1]
        timed("every command", quietscope, "--help", cwd=work)
        said = timed(
            "demo", quietscope, "demo", "--out", "demo", "--no-preview",
            "--train-seconds", given.train_seconds, "--json", cwd=work,
        )  # fmt: skip
        demo = json.loads(said)
        size = sum(f.stat().st_size for f in (work / "empty").rglob("*") if f.is_file())
        result = {
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load": [round(n, 1) for n in os.getloadavg()] if hasattr(os, "getloadavg") else None,
            "wheel": wheel.name,
            "wheel_kb": round(wheel.stat().st_size / 1e3),
            "version": version,
            "environment_mb": round(size / 1e6),
            "seconds": seconds,
            "psnr_raw_db": demo["psnr_raw_db"],
            "psnr_denoised_db": demo["psnr_denoised_db"],
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    if demo["psnr_denoised_db"] <= demo["psnr_raw_db"]:
        sys.exit("the demo made the picture no better")


if __name__ == "__main__":
    main()
