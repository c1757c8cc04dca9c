"""What a facility asks of a night, by the benchmark's own walk at its smallest size."""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "retraining_bars.py"

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def bars():
    spec = importlib.util.spec_from_file_location("retraining_bars", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["retraining_bars"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["retraining_bars"]


def given(**changed):
    usual = {
        "times": 1,
        "steps": 300,
        "night_s": 25.0,
        "seed": 0,
        "rounds": 2,
        "last": True,
        "kinds": None,
    }
    return Namespace(**{**usual, "before": {}, **changed})


def test_another_specimen_and_light_bring_a_better_model(bars, tmp_path):
    found = bars.change(tmp_path, given(steps=400, rounds=1))
    assert found["decision"] == "promoted", found
    assert found["gain_new_db"] >= 1
    # What the old specimen loses at this size is in the benchmark's row.
    old = found["by_truth"]["old"]
    assert old["after_db"] > old["best_blur_db"] + 1


def test_nothing_new_is_skipped(bars, tmp_path):
    found = bars.nothing(tmp_path, given(times=2))
    assert found["met"], found


def test_sabotage_is_never_promoted(bars, tmp_path):
    found = bars.sabotage(tmp_path, given())
    assert found["promoted"] == 0, found


def test_a_night_that_is_killed_goes_on_and_nothing_is_broken(bars, tmp_path):
    found = bars.kills(tmp_path, given(times=3))
    assert found["failures"] == []


def test_a_live_session_has_the_cores_within_two_seconds(bars, tmp_path):
    found = bars.give_way(tmp_path, given(times=2, night_s=110.0))
    assert found["met"], found
