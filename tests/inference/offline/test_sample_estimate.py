"""The mode of samples is a picture that could have been; their mean need not be."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.inference.errors import InferenceError
from quietscope.inference.offline.sample_estimate import (
    estimate_of,
    mode_of,
    require_estimate,
    require_memory,
)

NOISE = 0.3


def of_two_modes(share: float, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return samples of a square that is here or, in the other share, not, and the likelier."""
    rng = np.random.default_rng(0)
    here = np.zeros((24, 24), np.float32)
    here[8:16, 8:16] = 10
    present = np.arange(count) < share * count
    samples = here * present[:, None, None] + NOISE * rng.standard_normal((count, 24, 24))
    return samples.astype(np.float32), here if share > 0.5 else 0 * here


@pytest.mark.parametrize("share", [0.65, 0.35])
def test_the_map_estimate_is_one_of_two_readings_and_the_mean_lies_between(share):
    samples, likelier = of_two_modes(share)
    inside = np.s_[10:14, 10:14]
    mean = estimate_of(samples, "mmse")
    assert np.abs(mean[inside] - 10 * share).max() < 0.5
    mode = estimate_of(samples, "map")
    assert np.abs(mode[inside] - likelier[inside]).max() < NOISE
    # also as a whole it is nearer to a sample's own reading than the mean is
    assert np.abs(mode - likelier).mean() < 0.3 * np.abs(mean - likelier).mean()


def test_of_one_mode_both_are_the_same_but_for_chance():
    rng = np.random.default_rng(0)
    truth = np.add.outer(np.arange(20.0), np.arange(30.0))
    samples = (truth + NOISE * rng.standard_normal((60, 20, 30))).astype(np.float32)
    mode, mean = estimate_of(samples, "map"), estimate_of(samples, "mmse")
    assert mode.dtype == mean.dtype == np.float32
    assert np.abs(mode - mean).mean() < 0.5 * NOISE
    assert np.abs((mode - truth).mean()) < 0.05


def test_samples_that_agree_are_their_mode():
    same = np.broadcast_to(np.float32(7.5), (5, 9, 9)).copy()
    np.testing.assert_allclose(mode_of(same), 7.5)
    assert np.isfinite(mode_of(np.zeros((1, 3, 2), np.float32))).all()


def test_what_cannot_be_estimated_is_refused_in_a_line():
    with pytest.raises(InferenceError, match="estimate is 'mode', expected mmse or map"):
        require_estimate("mode")
    require_memory(64, (2048, 2048))
    with pytest.raises(InferenceError, match="at most 64; give fewer, or write the samples"):
        require_memory(65, (2048, 2048))
