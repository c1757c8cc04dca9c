"""Build the Windows installer: gather its parts in `build/windows`, then call constructor.

    python packaging/windows/build.py

Constructor runs on Windows alone, and comes with conda (`conda install constructor`). Elsewhere
the parts are gathered all the same, so that all but constructor's own work can be looked at.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ICON_EDGE = 256


def icon() -> Image.Image:
    """Draw a cell that is noisy on the left and clean on the right."""
    y, x = np.mgrid[:ICON_EDGE, :ICON_EDGE] / (ICON_EDGE - 1) - 0.5
    cell = np.exp(-(((x / 0.33) ** 2 + (y / 0.4) ** 2) ** 2))
    nucleus = np.exp(-(((x / 0.14) ** 2 + (y / 0.16) ** 2) ** 2))
    light = 0.12 + 0.55 * cell + 0.3 * nucleus
    noisy = np.random.default_rng(1).poisson(9 * light) / 9
    shown = np.clip(np.where(x < 0, noisy, light), 0, 1)
    tint = np.array([0.25, 1.0, 0.75])
    return Image.fromarray((255 * shown[..., None] * tint).astype(np.uint8))


def gather(folder: Path) -> Path:
    """Put wheel, icons, menu and recipe into a folder; return the recipe."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*pip, str(ROOT)], check=True)
    [wheel] = folder.glob("quietscope-*.whl")
    version = wheel.name.split("-")[1]
    drawn = icon()
    drawn.save(folder / "quietscope.png")
    drawn.save(folder / "quietscope.ico", sizes=[(n, n) for n in (16, 32, 48, 256)])
    for part in (HERE / "post_install.bat", HERE / "quietscope_menu.json", ROOT / "LICENSE"):
        shutil.copy(part, folder)
    recipe = (HERE / "construct.yaml").read_text(encoding="utf-8")
    filled = recipe.replace("VERSION", version).replace("WHEEL", wheel.name)
    (folder / "construct.yaml").write_text(filled, encoding="utf-8")
    return folder / "construct.yaml"


def main() -> None:
    """Gather, and build where that is possible."""
    recipe = gather(ROOT / "build" / "windows")
    constructor = shutil.which("constructor")
    if sys.platform != "win32" or constructor is None:
        print(f"{recipe.parent}: gathered; constructor on Windows makes the installer of it")
        return
    subprocess.run(
        [constructor, str(recipe.parent), "--output-dir", str(ROOT / "dist")], check=True
    )


if __name__ == "__main__":
    main()
