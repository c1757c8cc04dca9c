"""Beside a model stands what needs none: a blur of the frame, and of the mean of its inputs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from quietscope.inference.commands import _beside_trivial
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.evaluation.metrics import psnr_db
from quietscope.inference.evaluation.trivial_competitors import WIDTHS_PX, BlurCompetitor
from quietscope.storage.stack import stack_from_array

SHAPE = (48, 64)


class Blur:
    """A denoiser: the blurred mean of what it is given."""

    def __init__(self, sigma, context_frames=0):
        self.frame_shape, self.context_frames, self._sigma = SHAPE, context_frames, sigma

    def denoise(self, observations, out):
        there = observations[observations.any(axis=(1, 2))]
        out[0] = ndimage.gaussian_filter(there.mean(axis=0, dtype=np.float64), self._sigma)
        out[1] = 0

    def close(self):
        pass


@pytest.fixture(scope="module")
def truth():
    blobs = ndimage.gaussian_filter(np.random.default_rng(3).random(SHAPE), 3)
    return 5 + 300 * (blobs - blobs.min())


@pytest.fixture(scope="module")
def noisy(truth):
    return np.random.default_rng(0).poisson(truth, (12, *SHAPE)).astype(np.uint16)


def test_the_width_that_is_best_on_average_counts(truth, noisy):
    competitor = BlurCompetitor()
    assert competitor.best() is None
    for frame in noisy:
        competitor.add(frame.astype(float), truth)
    best = competitor.best()
    means = {
        width: np.mean(
            [psnr_db(ndimage.gaussian_filter(f.astype(float), width), truth) for f in noisy]
        )
        for width in WIDTHS_PX[1:]
    }
    assert best.sigma_px == max(means, key=means.get)
    assert best.psnr_db == pytest.approx(max(means.values()))


def test_a_blur_as_a_model_is_no_better_than_the_blur(truth, noisy):
    stack, signal = stack_from_array(noisy), stack_from_array(truth.astype(np.float32)[None])
    result = evaluate(stack, Blur(2.0), truth=signal).result()
    assert result["psnr_raw_db"] < result["psnr_db"] <= result["psnr_gaussian_db"] + 1e-3
    assert result["psnr_running_mean_db"] is None
    assert result["gain_over_trivial_db"] <= 1e-3
    assert "no better than" in _beside_trivial({**result, "gain_over_trivial_db": -0.1})[-1]


def test_a_model_of_several_frames_stands_beside_their_mean(truth, noisy):
    """The mean of 4 frames has a quarter of the variance; the first frames have fewer before."""
    stack, signal = stack_from_array(noisy), stack_from_array(truth.astype(np.float32)[None])
    result = evaluate(stack, Blur(0.0, context_frames=3), truth=signal).result()
    assert result["psnr_running_mean_db"] > result["psnr_gaussian_db"]
    assert result["psnr_running_mean_db"] >= result["psnr_db"] - 1e-6
    lines = _beside_trivial(result)
    assert "by the mean of the frames" in lines[0]
    late = evaluate(stack, Blur(0.0, 3), truth=signal, frames=range(3, 12))
    mean4 = [psnr_db(noisy[i - 3 : i + 1].mean(axis=0), truth) for i in range(3, 12)]
    assert late.mean("psnr_db") == pytest.approx(np.mean(mean4), abs=1e-4)


def test_a_blur_of_frames_says_so_when_the_model_is_worth_it():
    result = {
        "gain_over_trivial_db": 0.8,
        "psnr_gaussian_db": 35.0,
        "gaussian_sigma_px": 1.25,
        "psnr_running_mean_db": None,
    }
    lines = _beside_trivial(result)
    assert lines == [
        "without a model: 35.00 dB by a Gaussian blur of the frame (σ 1.25 px)",
        "the model is 0.80 dB better than the best of these",
    ]
