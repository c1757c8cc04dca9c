"""How a budget of time is shared between the steps and what comes before and after them."""

from __future__ import annotations

import time

import pytest

from quietscope.training.schedule import LEAST_SHARE, Schedule


def begun(seconds, prepared, finishing):
    schedule = Schedule(seconds=seconds, steps=None, started=time.monotonic() - prepared)
    return schedule, schedule.begin(finishing)


def test_the_steps_have_what_preparing_and_finishing_leave():
    schedule, late = begun(100.0, prepared=10.0, finishing=30.0)
    assert late is None
    time.sleep(0.05)
    assert schedule.progress(0) == pytest.approx((schedule.elapsed - 10) / 60, abs=1e-3)


def test_progress_begins_at_nothing_however_long_preparing_took():
    schedule, _ = begun(100.0, prepared=40.0, finishing=10.0)
    assert schedule.progress(0) < 0.01


def test_a_budget_that_is_too_short_gives_the_steps_their_least_share_and_says_so():
    schedule, late = begun(20.0, prepared=15.0, finishing=30.0)
    assert late == pytest.approx(15 + 20 * LEAST_SHARE + 30, abs=0.1)
    assert schedule.progress(0) < 0.1


def test_a_budget_of_steps_has_no_clock():
    schedule = Schedule(seconds=None, steps=10, started=time.monotonic() - 1e5)
    assert schedule.begin(0.0) is None
    assert schedule.progress(5) == 0.5


def test_a_resumed_run_goes_on_where_it_was():
    schedule = Schedule(
        seconds=100.0, steps=None, started=time.monotonic(), spent=55.0, begun=10.0
    )
    assert schedule.begin(0.0) is None
    assert schedule.progress(0) == pytest.approx(45 / 90, abs=0.01)
