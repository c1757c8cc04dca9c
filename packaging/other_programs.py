"""Environments of other programs, and the tests that run in them.

    python packaging/other_programs.py --into FOLDER [--only bioimageio] [--make-only]

CAREamics and bioimageio.core pin versions that are not ours, so each gets an environment of its
own (hundreds of megabytes; made once, then kept). Their Pythons are named to the tests by
QUIETSCOPE_BIOIMAGEIO and QUIETSCOPE_CAREAMICS; without these, such tests are skipped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {
    # bioimageio.spec 0.5.12, which it pins, cannot serialise under pydantic 2.14.
    "bioimageio": ("bioimageio.core==0.11.0", "onnxruntime>=1.24", "pydantic<2.13"),
    "careamics": ("careamics==0.3.5", "pydantic<2.13"),
}
TESTS = {
    "bioimageio": ["tests/training/output/test_bioimage.py"],
    "careamics": ["tests/training/importing/test_from_careamics.py"],
}


def made(folder: Path, program: str) -> Path:
    """Return the Python of a program's environment; make it where it is not there."""
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    python = folder / program / scripts / ("python.exe" if sys.platform == "win32" else "python")
    if not python.is_file():
        venv.create(folder / program, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", *PROGRAMS[program]]
    subprocess.run(pip, check=True)
    return python


def main() -> None:
    """Make the environments, then run the tests that need them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--only", choices=PROGRAMS)
    parser.add_argument("--make-only", action="store_true")
    given = parser.parse_args()
    folder = given.into.resolve()
    wanted = [given.only] if given.only else list(PROGRAMS)
    named = {f"QUIETSCOPE_{name.upper()}": str(made(folder, name)) for name in wanted}
    for name, python in named.items():
        print(f"{name}={python}", flush=True)
    if given.make_only:
        return
    tests = [test for name in wanted for test in TESTS[name]]
    line = [sys.executable, "-m", "pytest", "--long", "-n0", *tests]
    sys.exit(subprocess.run(line, cwd=ROOT, env={**os.environ, **named}).returncode)


if __name__ == "__main__":
    main()
