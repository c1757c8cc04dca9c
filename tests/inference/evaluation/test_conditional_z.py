"""Error over what was stated, by class of pixel."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.inference.evaluation.conditional_z import ConditionalZ


def test_a_class_that_is_more_wrong_than_stated_is_told_apart():
    rng = np.random.default_rng(0)
    truth = np.linspace(0, 100, 400)[:, None] * np.ones((1, 400))
    truth[100:102] += 500  # the steepest pixels, and the brightest
    error = rng.standard_normal(truth.shape)
    error[98:105] *= 3
    found = ConditionalZ()
    for _ in range(2):
        found.add(error, np.ones_like(truth), truth)
    z = found.result()
    assert z["brightest_thousandth"] == pytest.approx(3, rel=0.1)
    assert z["steepest_percent"] == pytest.approx(3, rel=0.1)
    assert z["brightness_quarter_3"] == pytest.approx(1, rel=0.03)


def test_where_nothing_was_stated_nothing_is_said():
    found = ConditionalZ()
    found.add(np.ones((4, 4)), np.zeros((4, 4)), np.arange(16.0).reshape(4, 4))
    assert found.result() == {}
