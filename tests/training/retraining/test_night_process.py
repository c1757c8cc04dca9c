"""How many rounds a slot has in a night, with what each begins, and what they come to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from quietscope.inference.library import Library
from quietscope.training.retraining import night_process
from quietscope.training.retraining.decision import Decision
from quietscope.training.retraining.looked_at import (
    MOST_PROMISING_ROUNDS,
    LookedAt,
    remember_promising,
)
from quietscope.training.retraining.request import Request
from quietscope.training.retraining.window import WindowEndedError

HOURS = 7 * 1000.0


def kept(name="kept", *, promising=False):
    return Decision("kept", "worse on last week", Path(name), None, {}, promising=promising)


def promoted(name="promoted"):
    return Decision("promoted", "less by 20%", Path(name), Path(name), {})


SKIPPED = Decision("skipped", "no run was recorded", None, None, {})


@pytest.fixture
def night(monkeypatch):
    """Return what a slot's night comes to, and the rounds that were made."""

    def of(*outcomes):
        left, made = list(outcomes), []

        def one(shelf, slot, request):
            made.append((None, request.seconds))
            return left.pop(0)

        def another(shelf, last, request):
            made.append((last.candidate.name, request.seconds))
            return left.pop(0)

        monkeypatch.setattr(night_process, "one_round", one)
        monkeypatch.setattr(night_process, "another_round", another)
        # Rounds take no time here: the clock goes on by what each was given.
        own = SimpleNamespace(time=lambda: sum(seconds for _, seconds in made))
        monkeypatch.setattr(night_process, "time", own)
        found = night_process._until_nothing_is_gained(None, None, HOURS, Request())
        return found, made

    return of


def test_each_round_is_twice_as_long_while_they_gain(night):
    found, made = night(promoted("a"), promoted("b"), promoted("c"))
    assert made == [(None, 1000.0), ("a", 2000.0), ("b", 4000.0)]
    assert (found.candidate.name, found.reason) == ("c", "less by 20%; in 3 rounds")


def test_what_gained_on_the_new_and_lost_on_the_old_is_trained_further(night):
    found, made = night(kept("a", promising=True), promoted("b"), kept("c"))
    assert [begun_with for begun_with, _ in made] == [None, "a", "b"]
    assert (found.decision, found.candidate.name) == ("promoted", "b")
    assert "in 2 rounds; 1 further round gained nothing more" in found.reason


def test_a_night_whose_rounds_were_all_promising_says_that_it_goes_on(night):
    found, made = night(*(kept(promising=True) for _ in range(3)))
    assert (found.decision, len(made)) == ("kept", 3)
    assert "the next night goes on with it" in found.reason


@pytest.mark.parametrize("only", [kept(), SKIPPED])
def test_what_gained_nothing_ends_the_night_of_a_slot(night, only):
    found, made = night(only)
    assert (found, len(made)) == (only, 1)


def test_a_slot_is_not_begun_in_less_time_than_a_round_takes(tmp_path, monkeypatch):
    """It would fail for want of time, and the morning would call it a failed night."""
    clock, given = [0.0], []

    def rounds(shelf, slot, seconds, request):
        given.append((slot, seconds))
        clock[0] += 100.0
        return SKIPPED

    monkeypatch.setattr(night_process, "time", SimpleNamespace(time=lambda: clock[0]))
    monkeypatch.setattr(night_process, "slots_of", lambda shelf: ["a", "b", "c"])
    monkeypatch.setattr(night_process, "_until_nothing_is_gained", rounds)
    told = []
    with pytest.raises(WindowEndedError, match="no time was left for 1 of 3"):
        night_process._all_slots(Library(tmp_path), 240.0, told.append, Request())
    assert given == [("a", pytest.approx(72.0)), ("b", pytest.approx(63.0))]
    assert len(told) == 2


def test_a_promising_candidate_is_gone_on_with_and_not_for_ever(tmp_path, make_bundle):
    shelf = Library(tmp_path)
    make_bundle(shelf.models_dir / "better on new")
    candidate = shelf.models_dir / "better on new"

    def memory():
        return LookedAt.of(shelf).slot("slot")

    assert memory().goes_on(shelf) is None
    remember_promising(shelf, "slot", kept(candidate, promising=True))
    assert memory().goes_on(shelf) == candidate
    remember_promising(shelf, "slot", promoted(candidate))
    assert memory().goes_on(shelf) is None
    for _ in range(MOST_PROMISING_ROUNDS):
        remember_promising(shelf, "slot", kept(candidate, promising=True))
    assert not memory().is_promising
    assert memory().goes_on(shelf) is None
    remember_promising(shelf, "slot", kept(candidate))
    remember_promising(shelf, "slot", kept(candidate, promising=True))
    assert memory().goes_on(shelf) == candidate
    (candidate / "manifest.json").unlink()  # pruned: its head start is lost, nothing else
    assert memory().goes_on(shelf) is None
    assert memory().is_promising
