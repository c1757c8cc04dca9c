"""The layout that the README draws is the layout that the code has.

The imports are read from the source, wherever in a file they stand: at its top, inside a function,
or for the type checker alone. What finds a wrong import is itself tried on a small made-up house.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

from quietscope.errors import EXTRAS

ROOT = Path(__file__).parent.parent
HOUSE = "quietscope"

NOT_THE_HOUSE = {"tests", "benchmarks", "examples", "docs", "packaging", "build", "dist"}

# From the top of the house to its ground. A storey may use what lies below it, and nothing of the
# storeys above it or of its neighbours.
STOREYS = (
    {"__main__"},
    {"cli", "__init__"},
    {"napari_plugin"},
    {"gui", "arrays"},
    {"comparison"},
    {"demo", "doctor", "inspection"},
    {"acquisition", "training"},
    {"inference"},
    {"calibration"},
    {"reporting"},
    {"storage"},
    {"errors", "version"},
)

Imports = Mapping[str, set[str]]


# ------------------------------------------------------------------ what finds a wrong import


def modules_of(root: Path) -> dict[str, Path]:
    """Name every module below `root`, dotted and without the house's own name.

    A package is named by its folder, the house itself by the empty name.
    """
    found = {}
    for file in root.rglob("*.py"):
        parts = list(file.relative_to(root).with_suffix("").parts)
        if parts[0] in NOT_THE_HOUSE | {"setup"} or any(part.startswith(".") for part in parts):
            continue
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(root: Path, house: str = HOUSE) -> dict[str, set[str]]:
    """For every module of the house, the modules of the house that it imports."""
    modules = modules_of(root)
    return {
        name: {target for target in _targets(name, file, modules, house) if target != name}
        for name, file in modules.items()
    }


def _targets(name: str, file: Path, modules: Mapping[str, Path], house: str) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for named in _named(node, package, house):
            yield _nearest(named, modules)


def _named(node: ast.AST, package: str, house: str) -> Iterator[str]:
    """What one statement names inside the house, which may be a module or what it holds."""
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".") if package else []
            base = ".".join([*above[: len(above) - node.level + 1], base]).strip(".")
        elif base.partition(".")[0] == house:
            base = base.partition(".")[2]
        else:
            return
        yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            top, _, rest = alias.name.partition(".")
            if top == house:
                yield rest
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
        text = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
        if isinstance(text, str) and text.partition(".")[0] == house:
            yield text.partition(".")[2]


def _nearest(named: str, modules: Mapping[str, Path]) -> str:
    while named and named not in modules:
        named = named.rpartition(".")[0]
    return named


def wrong_arrows(imports: Imports) -> list[str]:
    """Every import that leads upwards in the house, or to a neighbour."""
    storey = {room: height for height, rooms in enumerate(STOREYS) for room in rooms}
    wrong = []
    for module, targets in imports.items():
        for target in targets:
            here, there = (name.split(".")[0] or "__init__" for name in (module, target))
            if here != there and storey[there] <= storey[here]:
                wrong.append(f"{module} imports {target}")
    return sorted(wrong)


def circles(imports: Imports) -> dict[str, list[str]]:
    """For every package, a circle among its own modules and sub-packages, if it has one.

    A sub-package counts as one thing here, so that two sub-packages that import each other are
    a circle even where no two of their modules are.
    """
    neighbours: dict[str, dict[str, set[str]]] = {}
    for module, targets in imports.items():
        for target in targets:
            package, here, there = _where_they_part(module, target, imports)
            if here != there:
                neighbours.setdefault(package, {}).setdefault(here, set()).add(there)
    found = {}
    for package, graph in neighbours.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            found[package] = list(error.args[1])
    return found


def _where_they_part(module: str, target: str, imports: Imports) -> tuple[str, str, str]:
    """Return the lowest package that holds both, and which of its children each belongs to."""
    packages = {name.rpartition(".")[0] for name in imports}
    one, other = (
        [*name.split("."), "__init__"]
        if name in packages and name
        else (name or "__init__").split(".")
        for name in (module, target)
    )
    shared = 0
    while shared < min(len(one), len(other)) - 1 and one[shared] == other[shared]:
        shared += 1
    return ".".join(one[:shared]), one[shared], other[shared]


# ----------------------------------------------------------------------------- the house itself


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    found = imports_of(ROOT)
    assert len(found) > 100, "the checker reads next to nothing"
    return found


def test_every_room_has_its_storey(imports: Imports) -> None:
    rooms = {name.split(".")[0] or "__init__" for name in imports}
    assert rooms <= set().union(*STOREYS)


def test_imports_run_one_way(imports: Imports) -> None:
    assert wrong_arrows(imports) == []


def _packages() -> list[str]:
    return sorted(name for name, file in modules_of(ROOT).items() if file.name == "__init__.py")


@pytest.mark.parametrize("package", _packages())
def test_nothing_runs_in_a_circle(imports: Imports, package: str) -> None:
    circle = circles(imports).get(package)
    assert circle is None, f"in {package or HOUSE}: {' → '.join(circle)}"


def test_every_package_is_shipped(tmp_path: Path) -> None:
    """What pip would install is compared with what lies in the folders."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=_not_of_the_house)
    build = (
        "import os, sys\n"
        "from setuptools import build_meta\n"
        "os.chdir(sys.argv[1])\n"
        "print(build_meta.build_wheel(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", build, str(checkout), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        shipped = {name for name in wheel.namelist() if name.startswith(f"{HOUSE}/")}
    expected = {
        f"{HOUSE}/{file.relative_to(ROOT).as_posix()}" for file in modules_of(ROOT).values()
    }
    beside = {f"{HOUSE}/comparison/viewer.{kind}" for kind in ("css", "html", "js")}
    general = ROOT / "inference" / "general" / "shipped"
    beside |= {f"{HOUSE}/{file.relative_to(ROOT).as_posix()}" for file in general.iterdir()}
    beside |= {f"{HOUSE}/py.typed", f"{HOUSE}/napari_plugin/napari.yaml"}
    assert shipped == expected | beside


def _not_of_the_house(folder: str, names: list[str]) -> set[str]:
    hidden = {name for name in names if name.startswith((".", "__pycache__"))}
    return hidden | (NOT_THE_HOUSE if Path(folder) == ROOT else set()) & set(names)


BROUGHT_BY_PYCROMANAGER = {"mmpycorex", "ndstorage", "pyjavaz", "pyzmq"}


def test_every_library_that_is_imported_is_asked_for() -> None:
    """What lies here by chance, because something else needs it, is missing elsewhere."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*declared["dependencies"], *chain(*declared["optional-dependencies"].values())]
    asked = {re.split(r"[\[<>=; ]", line)[0].lower().replace("_", "-") for line in lines}
    installed = metadata.packages_distributions()
    imported = {top for file in modules_of(ROOT).values() for top in _libraries(file)}
    lost = {
        top: installed[top]
        for top in imported & set(installed) - {HOUSE}
        if not {name.lower().replace("_", "-") for name in installed[top]}
        & (asked | BROUGHT_BY_PYCROMANAGER)
    }
    assert lost == {}


def _libraries(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from (name.partition(".")[0] for name in names)


def test_every_module_that_a_text_imports_exists() -> None:
    """Also those in programs that tests hand to another process, in examples and in the guides."""
    modules = modules_of(ROOT)
    texts = [
        file
        for folder in ("tests", "benchmarks", "examples", "docs", ".")
        for kind in ("*.py", "*.md")
        for file in (ROOT.glob(kind) if folder == "." else (ROOT / folder).rglob(kind))
    ]
    statement = re.compile(rf"\bfrom {HOUSE}\.([\w.]+) import (\w+)|-m[\", ]+{HOUSE}\.([\w.]+)")
    lost = [
        f"{file.relative_to(ROOT)}: {HOUSE}.{module}"
        for file in texts
        for found in statement.finditer(file.read_text(encoding="utf-8"))
        for module in [found[1] or found[3]]
        if module not in modules
        and not (ROOT / f"{module.replace('.', '/')}.py").is_file()  # a benchmark's simulator
        and file != Path(__file__)
    ]
    assert lost == []


def test_no_module_is_called_by_what_it_is_not() -> None:
    vague = {"utils", "util", "common", "manager", "helper", "helpers", "misc"}
    for name, file in modules_of(ROOT).items():
        assert not vague & set(name.split(".")), file


def test_only_the_command_line_configures_logging() -> None:
    for name, file in modules_of(ROOT).items():
        if name != "cli":
            assert "basicConfig" not in file.read_text(encoding="utf-8"), file


# ------------------------------------------------------------- the checker, on a made-up house


def _build(root: Path, files: Mapping[str, str]) -> dict[str, set[str]]:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        for folder in [file.parent, *file.parent.parents]:
            if folder.is_relative_to(root):
                (folder / "__init__.py").touch()
    return imports_of(root)


SOUND = {
    "errors.py": "",
    "cli.py": "from .training.output import export\nfrom .storage.stack import Stack\n",
    "storage/stack.py": "from ..errors import Problem\n",
    "storage/readers/tiff.py": "from ...errors import Problem\n",
    "training/output/export.py": "import quietscope.storage.stack\nfrom .. import options\n",
    "training/options.py": "import numpy\n",
    "acquisition/stream/stage.py": "from ...inference.denoiser import Denoiser\n",
    "inference/denoiser.py": "",
}


def test_a_sound_house_passes(tmp_path: Path) -> None:
    imports = _build(tmp_path, SOUND)
    assert imports["training.output.export"] == {"storage.stack", "training.options"}
    assert wrong_arrows(imports) == []
    assert circles(imports) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "from ...training.options import Options",
        "from ...training import options",
        "from ... import training",
        "import quietscope.training.options",
        "from quietscope.training.options import Options",
        "from quietscope import training",
        "def work():\n    from ...training.options import Options",
        "if TYPE_CHECKING:\n    from ...training.options import Options",
        "import importlib\nimportlib.import_module('quietscope.training.options')",
    ],
)
def test_a_forbidden_import_in_a_sub_package_is_found(tmp_path: Path, statement: str) -> None:
    imports = _build(tmp_path, SOUND | {"acquisition/stream/stage.py": statement + "\n"})
    wrong = wrong_arrows(imports)
    assert len(wrong) == 1
    assert wrong[0].startswith("acquisition.stream.stage imports training")


def test_an_import_upwards_from_a_sub_package_is_found(tmp_path: Path) -> None:
    imports = _build(tmp_path, SOUND | {"storage/readers/tiff.py": "from ...cli import main\n"})
    assert wrong_arrows(imports) == ["storage.readers.tiff imports cli"]


@pytest.mark.parametrize(
    ("files", "package"),
    [
        pytest.param(
            {"training/a.py": "from .b import x\n", "training/b.py": "from .a import y\n"},
            "training",
            id="two modules",
        ),
        pytest.param(
            {
                "training/output/a.py": "from .b import x\n",
                "training/output/b.py": "from .c import y\n",
                "training/output/c.py": "def late():\n    from .a import z\n",
            },
            "training.output",
            id="three modules of a sub-package, one of them late",
        ),
        pytest.param(
            {
                "training/data/a.py": "from ..model.b import x\n",
                "training/data/c.py": "",
                "training/model/b.py": "",
                "training/model/d.py": "from ..data import c\n",
            },
            "training",
            id="two sub-packages without a circle of modules",
        ),
        pytest.param(
            {"training/train.py": "from .output import export\n"}
            | {"training/output/export.py": "if TYPE_CHECKING:\n    from ..train import Run\n"},
            "training",
            id="a module and a sub-package, for types alone",
        ),
        pytest.param(
            {
                "training/__init__.py": "from .run import go\n",
                "training/run.py": "from . import LIMIT\n",
            },
            "training",
            id="a package and its own module",
        ),
    ],
)
def test_a_circle_is_found_at_any_depth(
    tmp_path: Path, files: dict[str, str], package: str
) -> None:
    assert list(circles(_build(tmp_path, SOUND | files))) == [package]


# ------------------------------------------------------------------ a control PC without torch

WITHOUT_TORCH = """
import importlib.abc, sys

class LeftOut(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnxscript", "onnx_ir"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, LeftOut())
"""


def _without_torch(program: str, given: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONUTF8": "1"},
    )


def test_a_control_pc_works_without_torch(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    """All that needs no training, and every module outside of it, in one process without torch."""
    model, run = make_bundle(), tmp_path / "run"
    camera = ["--exposure-ms", 2, "--roi", "0,0,64,64"]
    ladder = ["--levels", 3, "--frames-per-level", 4]
    lines = [
        ["record", "--out", run, "--frames", 6, *camera],
        ["calibrate", "--out", tmp_path / "camera.npz", *ladder, *camera],
        ["live", "--model", model, "--out", tmp_path / "live", "--no-preview", *camera],
        ["denoise", run, "--model", model, "--out", tmp_path / "clean.ome.zarr"],
        ["evaluate", run, "--model", model, "--static"],
        ["bench", "--model", model, "--shape", "64x64", "--frames", 2],
    ]
    modules = [
        name
        for name in modules_of(ROOT)
        if name.split(".")[0] not in {"training", ""}
        and name != "napari_plugin.widget"  # in napari
    ]
    program = (
        "import importlib, json\n"
        "from quietscope.cli import app\n"
        "lines, modules = json.load(sys.stdin)\n"
        "for line in lines:\n"
        "    app(line, standalone_mode=False)\n"
        "for name in modules:\n"
        "    importlib.import_module(f'quietscope.{name}')\n"
    )
    done = _without_torch(program, [[[str(word) for word in line] for line in lines], modules])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 frames recorded" in done.stdout
    assert "100 denoised on CPUExecutionProvider" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        ("train", "stack.tif", "--out", "model", "--steps", "1"),
        ("retrain", "--library", "runs", "--once"),
        ("demo", "--out", "demo"),
    ],
    ids=lambda line: line[0],
)
def test_what_needs_torch_names_the_extra_in_one_line(
    tmp_path: Path, line: tuple[str, ...]
) -> None:
    program = (
        "import json, os\n"
        "from quietscope.cli import app\n"
        "folder, line = json.load(sys.stdin)\n"
        "os.chdir(folder)\n"
        "app(line)\n"
    )
    done = _without_torch(program, [str(tmp_path), line])
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {line[0]} needs torch and onnxscript, which this installation left out; "
        'install with: pip install "quietscope[train]"'
    ]
    assert list(tmp_path.iterdir()) == []


def test_every_extra_is_one_that_can_be_installed() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = declared["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"gpu", "test", "docs", "dev"}
    assert not any("torch" in line or "onnxscript" in line for line in declared["dependencies"])
    # Two packages that are files of one module: no installation may ask for both.
    asked = [line for group in extras.values() for line in group if "onnxruntime" in line]
    assert [line.partition("[")[0] for line in asked] == ["onnxruntime-gpu"]
