"""The path of someone who has never been here: pip install, three lines, a denoised array.

    python packaging/check_strangers_path.py [--ways pip uvx pipx] [--out RESULT.json]

Each way begins with an empty environment, installs the wheel of the committed files without the
extra `train` (the general model needs no torch), and runs the three lines on an array of
hers that is not in the package. Steps are timed; the exit status is 1 where one fails, where the
array is no cleaner, or where a way took more than five minutes. Ways whose program is not here are
told as not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

from check_wheel import committed_files, run, scripts

RESULTS = Path(__file__).parent / "results" / "strangers_path.json"
AT_MOST_S = 300.0
HERS = """
import numpy as np
rows, columns = np.mgrid[:256, :256]
light = 8 + 60 * np.exp(-((rows % 48 - 24) ** 2 + (columns % 64 - 32) ** 2) / 60)
rng = np.random.default_rng(1)
movie = (100 + 2 * rng.poisson(light, (12, 256, 256))).astype(np.uint16)
np.save("hers.npy", movie)
np.save("truth.npy", 100 + 2 * light)
"""
THREE_LINES = """
import numpy as np, quietscope as qs
movie = np.load("hers.npy")
clean = qs.denoise(movie, model="general")
"""
CHECK = """
truth = np.load("truth.npy")
def error(image): return float(np.sqrt(((image - truth) ** 2).mean()))
print(error(movie), error(clean))
"""


def by_pip(work: Path, wheel: Path) -> str:
    """In a virtual environment."""
    venv.create(work / "empty", with_pip=True)
    python = scripts(work / "empty") / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=work)
    return run(python, "-c", THREE_LINES + CHECK, cwd=work)


def by_uv(work: Path, wheel: Path) -> str:
    """By uv, which makes the environment itself; as `uvx` does for the commands."""
    uv, with_wheel = _program("uv"), f"quietscope @ {wheel.as_uri()}"
    run(uv, "tool", "run", "--from", with_wheel, "quietscope", "--version", cwd=work)
    given = ("run", "--no-project", "--with", with_wheel, "python", "-c", THREE_LINES + CHECK)
    return run(uv, *given, cwd=work)


def by_pipx(work: Path, wheel: Path) -> str:
    """By pipx: the command in an environment of its own, whose Python runs the three lines."""
    pipx = _program("pipx")
    os.environ["PIPX_HOME"], os.environ["PIPX_BIN_DIR"] = str(work / "home"), str(work / "bin")
    run(pipx, "install", wheel, cwd=work)
    run(work / "bin" / "quietscope", "--version", cwd=work)
    python = scripts(work / "home" / "venvs" / "quietscope") / "python"
    return run(python, "-c", THREE_LINES + CHECK, cwd=work)


WAYS: dict[str, Callable[[Path, Path], str]] = {"pip": by_pip, "uvx": by_uv, "pipx": by_pipx}


class NotRunError(Exception):
    """Why a way cannot be gone here."""


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotRunError(f"{name} is not installed here")
    return found


def gone(way: str, wheel: Path) -> dict[str, float | str]:
    """Go one way in an empty folder, and time it."""
    with tempfile.TemporaryDirectory(prefix="quietscope stranger ") as folder:
        work = Path(folder)
        run(sys.executable, "-c", HERS, cwd=work)
        began = time.perf_counter()
        try:
            said = WAYS[way](work, wheel)
        except NotRunError as why:
            return {"not_run": str(why)}
        seconds = round(time.perf_counter() - began, 1)
    noisy, clean = map(float, said.split()[-2:])
    return {"seconds": seconds, "error_noisy_adu": noisy, "error_clean_adu": clean}


def main() -> None:
    """Build the wheel, go every way, tell, write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quietscope wheel ") as folder:
        source = committed_files(Path(folder) / "source")
        pip = (sys.executable, "-m", "pip")
        run(*pip, "wheel", "--quiet", "--no-deps", "-w", folder, source, cwd=Path(folder))
        [wheel] = Path(folder).glob("*.whl")
        found = {way: gone(way, wheel) for way in given.ways}
    result = {
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": [round(n, 1) for n in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "ways": found,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    ran = [one for one in found.values() if "seconds" in one]
    sys.exit(
        any(
            one["seconds"] > AT_MOST_S or one["error_clean_adu"] >= one["error_noisy_adu"]
            for one in ran
        )
    )


if __name__ == "__main__":
    main()
