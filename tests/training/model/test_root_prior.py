"""The student's network takes the preset's plan, with twice the channels."""

from __future__ import annotations

from quietscope.training.model.root_prior import widened
from quietscope.training.options import NetworkPlan


def test_twice_the_channels_leave_the_rest_of_the_plan_as_it_is() -> None:
    assert widened(NetworkPlan(16, 1, 1, growth=4)) == NetworkPlan(32, 1, 1, growth=4)
