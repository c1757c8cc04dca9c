"""Several libraries, each on a worker of a real local Dask cluster."""

from __future__ import annotations

import sys

import pytest

from quietscope.errors import QuietscopeError
from quietscope.training.commands import retrain
from quietscope.training.errors import TrainingError
from quietscope.training.retraining import spread

distributed = pytest.importorskip("distributed")


@pytest.mark.long
def test_each_library_is_a_round_on_a_worker_and_one_that_fails_stops_no_other(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state"))
    libraries = [tmp_path / name for name in ("one lab's", "not there", "a third", "a fourth")]
    for place in (libraries[0], *libraries[2:]):
        place.mkdir()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
    ) as cluster:
        found = retrain(libraries, once=True, steps=5, scheduler=cluster.scheduler_address)
    assert found.failed
    results = found.result["libraries"]
    assert list(results) == [str(place) for place in libraries]
    assert [one.get("decision") for one in results.values()] == [
        "skipped",
        None,
        "skipped",
        "skipped",
    ]
    assert "no such folder" in results[str(libraries[1])]["failure"]
    assert any("FAILED" in line for line in found.summary)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import json; print(json.dumps({'decision': 'kept'}))", None),
        (
            "import sys; sys.exit('loading' + chr(10) + 'error: the disk is full')",
            "the disk is full",
        ),
        ("import sys; sys.exit(9)", "ended with 9"),
    ],
)
def test_what_a_worker_says_is_the_result_or_one_line(monkeypatch, code, said):
    monkeypatch.setattr(spread, "own_command", lambda *_: [sys.executable, "-c", code])
    assert spread.round_on_worker("library", []).get("failure") == said


def test_a_cluster_that_is_not_there_is_said_and_nights_have_none(tmp_path):
    with pytest.raises(QuietscopeError, match="cannot be reached"):
        retrain([tmp_path], once=True, scheduler="nowhere:1:2:3")
    with pytest.raises(TrainingError, match="--scheduler belongs to --once"):
        retrain([tmp_path], at="22:00", until="06:00", scheduler="local")
