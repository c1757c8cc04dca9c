"""What all tests share: where real data lies, which machines can run which tests, and how they
are spread over processes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

settings.register_profile(
    "quietscope",
    deadline=None,  # two shared cores: a slow example is no defect
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("quietscope")

REPOSITORY = Path(__file__).parent.parent

MOST_PROCESSES = 8
BYTES_PER_PROCESS = 3 * 2**30
"""What a process that trains, draws and opens windows in turn has come to hold."""


# --------------------------------------------------------------------- spread over processes


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


# Before any test imports torch: processes that each use every core wait for one another.
os.environ.setdefault(
    "OMP_NUM_THREADS", str(max(1, _cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))))
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many processes as cores and memory carry; none of their own for a single test file."""
    if len(config.args) == 1 and config.args[0].partition("::")[0].endswith(".py"):
        return 0
    return min(_cores(), MOST_PROCESSES, psutil.virtual_memory().total // BYTES_PER_PROCESS)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together what shares a fixture of its module; the rest goes to whoever is free."""
    from xdist.scheduler import LoadScopeScheduling

    class SharedFixturesTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid)

    return SharedFixturesTogether(config, log)


def _unit(nodeid: str) -> str:
    """Name the unit of work that a test belongs to: its file, or the test alone."""
    file = nodeid.partition("::")[0]
    return file if _shares_fixtures(file) else nodeid


@cache
def _shares_fixtures(file: str) -> bool:
    source = (REPOSITORY / file).read_text(encoding="utf-8")
    return re.search(r'scope="(module|class|package)"', source) is not None


def _long_ones_first(items: list[pytest.Item]) -> None:
    slow = {_unit(item.nodeid) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: _unit(item.nodeid) not in slow)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a file or folder once per test run, whichever test asks first.

    `made_once(name, make)` calls `make(path)`; the other processes wait and are given the same.
    Nobody may change what it holds.
    """
    base = tmp_path_factory.getbasetemp()
    together = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base

    def once(name: str, make: Callable[[Path], object]) -> Path:
        path = together / "made once" / name
        path.parent.mkdir(exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                make(path)
        return path

    return once


@pytest.fixture(scope="session", autouse=True)
def _computer_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let no live session of another test, or of a person, be seen: training would wait for it."""
    os.environ["QUIETSCOPE_STATE"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def trained_bundle(made_once: Callable[..., Path]) -> Path:
    """Give the bundle of a real training, of two steps: what is exported, not what it is worth."""

    def make(path: Path) -> None:
        import numpy as np

        from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
        from quietscope.storage.stack import stack_from_array
        from quietscope.training.options import TrainingOptions
        from quietscope.training.train import train

        specimen = Specimen((96, 96), CameraLaw(0.5, 100.0, 2.0))
        stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
        train([stack], path, TrainingOptions(preset="fast", steps=2))

    return made_once("trained", make)


def _real_data() -> Path | None:
    named = os.environ.get("QUIETSCOPE_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def _has_screen() -> bool:
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests that take half a minute each be asked for."""
    parser.addoption("--long", action="store_true", help="run the tests marked long as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run and what was not asked for."""
    reasons = {}
    if not config.getoption("--long"):
        reasons["long"] = "takes half a minute or more; run with --long"
    if _real_data() is None:
        reasons["realdata"] = "no recorded data here; set QUIETSCOPE_DATA to its folder"
    if not _has_screen():
        reasons["screen"] = "no screen"
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        reasons["gpu"] = "no CUDA device"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    _long_ones_first(items)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Give torch one thread: small patches gain nothing from more, and on a busy computer wait."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recorded data (the marker `realdata` skips the test where there is none)."""
    folder = _real_data()
    assert folder is not None
    return folder


# ------------------------------------------------------------------- small, real models


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a real bundle whose graph is a box filter: ready at once, right to the last digit.

    Its noise model is photon noise of 1 ADU per electron without an offset.
    """

    def make(name: str = "model", **how: Any) -> Path:
        from quietscope.benchmarks.box_model import write_box_model

        return write_box_model(tmp_path / name, **how)

    return make


@pytest.fixture(scope="session")
def qt() -> None:
    """Skip, with the reason, where Qt cannot be loaded.

    Asked in another process: Qt ends the process in which it cannot be loaded.
    """
    asked = subprocess.run(
        [
            sys.executable,
            "-c",
            "from quietscope.acquisition.preview.qt_platform import obstacle; print(obstacle())",
        ],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        check=True,
    )
    if asked.stdout.strip():
        pytest.skip(asked.stdout.strip())
