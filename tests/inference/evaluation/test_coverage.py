"""Shares of true values within the stated intervals."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.inference.evaluation.coverage import Coverage, draw_coverage, in_words

SHAPE = (200, 250)


def counted(error, stated):
    coverage = Coverage()
    for frame in np.split(error, 2):
        coverage.add(frame, np.full(frame.shape, stated**2))
    return coverage.result()


def test_normal_errors_of_the_stated_size_are_covered_as_stated():
    error = 3.0 * np.random.default_rng(0).standard_normal(SHAPE)
    found = counted(error, 3.0)
    assert list(found) == ["50", "68", "95"]
    assert list(found.values()) == pytest.approx([0.50, 0.68, 0.95], abs=0.01)
    assert max(counted(error, 1.5).values()) < 0.7
    assert min(counted(error, 6.0).values()) > 0.8


def test_a_few_huge_errors_hide_in_z_but_not_here():
    """Standardised errors have a deviation of 1, and yet most are far too small."""
    error = 0.1 * np.random.default_rng(0).standard_normal(SHAPE)
    error[::10, ::10] = 9.95
    found = counted(error, 1.0)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(1.0, abs=0.01)
    assert found["50"] > 0.98
    assert found["95"] == pytest.approx(0.99, abs=0.001)


def test_nothing_stated_is_nothing_found():
    assert counted(np.ones(SHAPE), 0.0) is None


def test_it_is_drawn_and_said():
    found = {"50": 0.41, "68": 0.6, "95": 0.9}
    assert in_words(found) == "of the pixels 41 %, 60 %, 90 % lie within what is stated for " + (
        "50, 68, 95 %"
    )
    axes = draw_coverage({"model": found}).axes[0]
    assert [line.get_label() for line in axes.lines] == ["honest", "model"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [41, 60, 90])
