"""Several libraries in turn: each has its share of the time, and the trouble of one is its own."""

from __future__ import annotations

import time as clock
from datetime import datetime, time, timedelta
from types import SimpleNamespace

import pytest

from quietscope.errors import QuietscopeError
from quietscope.inference.errors import InferenceError
from quietscope.inference.library import Library
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.directory_lock import owned
from quietscope.storage.live_sessions import state_folder
from quietscope.training.commands import retrain
from quietscope.training.errors import TrainingError
from quietscope.training.retraining import overnight, service
from quietscope.training.retraining.decision import skip
from quietscope.training.retraining.request import Request
from quietscope.training.retraining.service import Night, run_night, serving
from quietscope.training.retraining.several import all_served, rounds_of
from quietscope.training.retraining.supervision import Ended
from quietscope.training.retraining.window import Window


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state"))
    places = [tmp_path / name for name in ("one", "not there", "a third")]
    places[0].mkdir()
    places[2].mkdir()
    return places


def test_a_library_that_fails_stops_no_other(libraries):
    found = retrain(libraries, once=True, steps=1)
    assert found.failed
    results = found.result["libraries"]
    assert [one.get("decision") for one in results.values()] == ["skipped", None, "skipped"]
    assert "no such folder" in results[str(libraries[1])]["failure"]
    assert any("FAILED" in line for line in found.summary)
    # One alone answers as it always did.
    assert retrain(libraries[:1], once=True).result["decision"] == "skipped"
    with pytest.raises(InferenceError, match="no such folder"):
        retrain(libraries[1:2], once=True)
    with pytest.raises(TrainingError, match="given twice"):
        retrain([libraries[0], libraries[0]], once=True)


def test_the_time_is_shared_and_what_one_leaves_goes_to_the_next(libraries):
    given = []

    def make(shelf: Library, request: Request, channel: str | None):
        given.append(request.seconds)
        return [skip(shelf, None, "nothing here")]

    rounds_of([libraries[0], libraries[2]], Request(seconds=1000.0), None, make)
    assert given == [pytest.approx(500, abs=1), pytest.approx(1000, abs=1)]


def test_a_library_whose_drive_is_gone_costs_the_others_nothing(libraries):
    def make(shelf: Library, request: Request, channel: str | None):
        if shelf.path == libraries[0]:
            raise OSError(5, "Input/output error")
        return [skip(shelf, None, "nothing here")]

    first, second = rounds_of([libraries[0], libraries[2]], Request(), None, make)
    assert "Input/output error" in first.failure
    assert second.failure is None


def test_a_night_whose_drive_is_gone_is_said_and_leaves_the_others_theirs(libraries, monkeypatch):
    def gone(night, **how):
        raise OSError(5, "Input/output error")

    said = []
    monkeypatch.setattr(overnight, "run_night", gone)
    monkeypatch.setattr(overnight, "say", said.append)
    night = Night(libraries[0], Window(time(22), time(6)))
    assert overnight._night(night, share=1.0) is None
    assert "Input/output error" in said[0]


def test_an_error_of_a_night_is_no_reason_to_wait_for_its_turn(tmp_path, monkeypatch):
    """Also where another library's night takes the turn at that very moment."""
    monkeypatch.setattr(service, "state_folder", lambda: tmp_path)
    monkeypatch.setattr(service, "holder_of", lambda place: "another night")
    with (
        pytest.raises(OutputError, match="disk is full"),
        service._turn(clock.time() + 60, lambda line: None),
    ):
        raise OutputError("the disk is full")


def test_a_night_has_its_share_of_the_window(libraries, monkeypatch):
    until = []

    def supervised(command, **how):
        until.append(how["until"] - clock.time())
        return Ended(status=0)

    monkeypatch.setattr(service, "supervise", supervised)
    with serving(libraries[0]):
        run_night(
            Night(libraries[0], Window(time(22), time(6))),
            now=datetime(2026, 3, 1, 22).astimezone(),
            share=0.5,
        )
    assert until == [pytest.approx(4 * 3600, abs=60)]


def test_jobs_of_several_libraries_share_the_window_whoever_comes_first(libraries, monkeypatch):
    """Job by job, without a common service: each is a process of its own."""
    one, _, third = libraries
    window, given, said = Window(time(22), time(6)), {}, []
    evening = datetime(2026, 3, 1, 22)

    class Evening(datetime):
        @classmethod
        def now(cls, tz=None):
            return evening.astimezone(tz) if tz else evening

    def night(library):
        def supervised(command, **how):
            given[library] = how["until"] - clock.time()
            return Ended(status=0)

        monkeypatch.setattr(service, "supervise", supervised)
        with serving(library):
            return run_night(Night(library, window), say=said.append)

    monkeypatch.setattr(service, "datetime", Evening)
    night(one)
    assert given[one] == pytest.approx(8 * 3600, abs=60)  # of the other nothing is known yet
    night(third)
    assert given[third] == pytest.approx(8 * 3600, abs=60)  # the first had its turn
    evening += timedelta(days=1)
    night(third)
    assert given[third] == pytest.approx(4 * 3600, abs=60)
    assert str(one) in said[-1]
    night(one)
    assert given[one] == pytest.approx(8 * 3600, abs=60)
    evening += timedelta(days=9)
    night(one)
    assert given[one] == pytest.approx(8 * 3600, abs=60)  # the other has no job any more


def test_who_has_its_turn_when_the_window_ends_begins_nothing(libraries, monkeypatch):
    monkeypatch.setattr(Window, "left", lambda window, now: 61.0)
    now = [clock.time()]

    def late(*_):
        now[0] += 40.0

    monkeypatch.setattr(service, "time", SimpleNamespace(time=lambda: now[0], sleep=clock.sleep))
    monkeypatch.setattr(service, "require_space", late)
    with serving(libraries[0]):
        record = run_night(Night(libraries[0], Window(time(22), time(6))))
    assert (record.state, record.failure) == ("unfinished", None)
    assert "only 21 s of the window were left" in record.remarks[0]


def test_who_waited_all_night_for_another_library_says_so(libraries, monkeypatch):
    monkeypatch.setattr(service, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(Window, "left", lambda window, now: 60.5)
    ticks = iter(range(0, 10_000, 30)).__next__
    monkeypatch.setattr(service, "time", SimpleNamespace(time=ticks, sleep=clock.sleep))
    with owned(state_folder() / "training"), serving(libraries[0]):
        record = run_night(Night(libraries[0], Window(time(22), time(6))))
    assert record.state == "unfinished"
    assert "other libraries were trained on this computer" in record.remarks[0]


def test_what_others_serve_is_left_to_them(libraries):
    said = []
    with serving(libraries[0]):
        with all_served([libraries[0], libraries[2]], serving, said.append) as ours:
            assert ours == [libraries[2]]
        with (
            pytest.raises(QuietscopeError, match="another service"),
            all_served(libraries[:1], serving, said.append),
        ):
            pass
    assert "served by another service" in said[0]
