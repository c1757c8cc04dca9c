"""What all tests share: where real data lies, and which machines can run which tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "quietscope",
    deadline=None,  # two shared cores: a slow example is no defect
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("quietscope")

REPOSITORY = Path(__file__).parent.parent


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    reasons = {}
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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recorded data (the marker `realdata` skips the test where there is none)."""
    folder = _real_data()
    assert folder is not None
    return folder
