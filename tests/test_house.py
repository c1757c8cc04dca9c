"""The layout that the README draws is the layout that the code has."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each room, and what it may import from the house. Everything else is a wall.
GROUND = {"errors", "outputs", "console", "page", "urls", "stacks", "frame_store"}
ALLOWED = {
    "calibration": GROUND,
    "inference": GROUND | {"calibration"},
    "training": GROUND | {"calibration", "inference"},
    "acquisition": GROUND | {"calibration", "inference"},
}


def _house_imports(file: Path, room: str) -> set[str]:
    """Names of the rooms and ground modules that `file` imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            found |= {node.module.split(".")[0]} if node.module else {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quietscope"):
            found.add((node.module or "").split(".")[1] if "." in (node.module or "") else room)
    return found - {"__version__"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_imports_run_one_way(room: str) -> None:
    for file in (ROOT / room).glob("*.py"):
        wrong = _house_imports(file, room) - ALLOWED[room] - {room}
        assert not wrong, f"{file.relative_to(ROOT)} reaches into {sorted(wrong)}"


def test_ground_modules_know_no_room() -> None:
    for name in GROUND:
        tree = ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))
        imported = {
            (node.module or "").split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level == 1
        }
        assert imported <= GROUND | {""}, f"{name}.py imports {sorted(imported - GROUND)}"


@pytest.mark.parametrize("module", ["calibration", "inference", "acquisition", "cli"])
def test_the_live_path_starts_without_torch(module: str) -> None:
    program = (
        "import importlib, pkgutil, sys\n"
        f"package = importlib.import_module('quietscope.{module}')\n"
        "for found in pkgutil.iter_modules(getattr(package, '__path__', [])):\n"
        "    if not found.name.startswith('preview'):\n"
        f"        importlib.import_module('quietscope.{module}.' + found.name)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_is_called_by_what_it_is_not() -> None:
    vague = {"utils", "util", "common", "core", "manager", "helper", "helpers", "misc"}
    for file in ROOT.rglob("*.py"):
        if not {".venv", "build"} & set(file.parts):
            assert file.stem not in vague, file


def test_only_the_command_line_configures_logging() -> None:
    for room in ALLOWED:
        for file in (ROOT / room).glob("*.py"):
            assert "basicConfig" not in file.read_text(encoding="utf-8"), file
