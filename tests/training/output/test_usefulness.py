"""Whether a model is worth using: against its input, a blur, and the mean of the same frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from quietscope.training.data.side_inputs import Sample
from quietscope.training.output.usefulness import Usefulness, usefulness_of

GAIN, OFFSET, READ = 2.0, 100.0, 3.0
SHAPE = (96, 128)


class Camera:
    """Poisson noise with a gain, an offset and read noise."""

    least_variance_adu2 = READ**2

    def variance(self, signal):
        return GAIN * np.clip(np.asarray(signal) - OFFSET, 0, None) + READ**2


@pytest.fixture(scope="module")
def signal():
    rough = np.random.default_rng(2).random(SHAPE)
    return OFFSET + 40 + 4000 * np.clip(gaussian_filter(rough, 4) - 0.5, 0, None)


def samples_of(signal, frames=3, count=4):
    rng = np.random.default_rng(0)
    electrons = rng.poisson((signal - OFFSET) / GAIN, (count, frames, *SHAPE))
    noisy = OFFSET + GAIN * electrons + READ * rng.standard_normal(electrons.shape)
    return [Sample(one) for one in np.rint(noisy).astype(np.uint16)]


def estimator(make):
    """A model that makes of observations (N, P, Y, X) what it likes."""

    class Made(torch.nn.Module):
        def forward(self, observations):
            out = torch.from_numpy(
                make(observations.numpy().astype(np.float64)).astype(np.float32)
            )
            return out, torch.zeros_like(out)

    return Made()


def judged(make, signal, context_frames=0):
    samples = samples_of(signal, frames=1 + context_frames)
    return usefulness_of(estimator(make), samples, Camera(), context_frames=context_frames, seed=0)


def test_one_that_knows_the_truth_is_better_and_its_error_is_near_zero(signal):
    found = judged(lambda observed: signal[None, None], signal)
    assert found.better_than_trivial
    assert abs(found.model) < 0.6 * found.blur  # the score scatters by a fifth of it here
    assert found.sentence().startswith("better than the raw frames and than a blur")


def test_one_that_changes_nothing_is_no_better_than_the_raw_frames(signal):
    found = judged(lambda observed: observed[:, :1], signal)
    assert not found.better_than_trivial
    assert found.model == pytest.approx(found.input)
    assert "no better than the raw frames" in found.sentence()


@pytest.mark.parametrize("sigma", [0.8, 1.25, 3.0])
def test_one_that_blurs_is_no_better_than_a_blur(signal, sigma):
    found = judged(lambda observed: gaussian_filter(observed, (0, 0, sigma, sigma)), signal)
    assert not found.better_than_trivial
    assert found.model >= found.blur
    assert "no better than" in found.sentence()


def test_the_mean_of_the_same_frames_is_named_where_it_is_better(signal):
    def halfway(observed):
        blurred = gaussian_filter(observed[:, :1], (0, 0, 1, 1))
        return 0.7 * signal[None, None] + 0.3 * blurred

    found = judged(halfway, signal, context_frames=6)
    assert found.running_mean < found.blur
    if found.running_mean < found.model:
        assert "the blurred mean of the same frames is better still" in found.sentence()
    alone = judged(halfway, signal)
    assert alone.running_mean is None


def test_a_difference_in_the_last_digits_is_none():
    found = Usefulness(-1.73721527, -1.73721513, 37.0, 0.5, None, 8)
    assert not found.better_than_trivial
    assert "no better than the raw frames" in found.sentence()


def test_errors_that_are_too_small_to_measure_are_not_shown_as_negative():
    found = Usefulness(-0.1, 5.0, -0.3, 1.25, None, 8)
    assert "too small to measure" in found.sentence()
    assert "-0" not in found.sentence()
