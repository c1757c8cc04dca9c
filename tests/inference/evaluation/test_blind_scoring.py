"""What is scored without the truth agrees with it, and is fair to the uncertainty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from quietscope.inference.bundle import open_bundle
from quietscope.inference.evaluation.blind_scoring import BlindScoring

SHAPE = (128, 128)


class Blur:
    context_frames = 0
    frame_shape = SHAPE

    def __init__(self, sigma, uncertainty=0.0):
        self.sigma, self.uncertainty = sigma, uncertainty

    def denoise(self, observations, out):
        out[0] = ndimage.gaussian_filter(observations[0].astype(float), self.sigma)
        out[1] = self.uncertainty

    def close(self):
        pass


@pytest.fixture
def scoring(make_bundle):
    from quietscope.calibration.noise_files import load_noise_model

    return BlindScoring(load_noise_model(open_bundle(make_bundle()).noise_model_path))


def scene():
    blobs = ndimage.gaussian_filter(np.random.default_rng(3).random(SHAPE), 3)
    return 50 + 400 * (blobs - blobs.min()) / np.ptp(blobs)


def test_the_ranking_is_that_of_the_true_errors(scoring):
    signal = scene()
    noisy = np.random.default_rng(0).poisson(signal).astype(np.uint16)
    sigmas = (0.5, 1.0, 2.0, 6.0)
    true = [
        ((ndimage.gaussian_filter(noisy.astype(float), s) - signal) ** 2).mean() for s in sigmas
    ]
    found = [scoring.score(Blur(s), noisy[None], 0).held_out_mse_adu2 for s in sigmas]
    assert np.argsort(found).tolist() == np.argsort(true).tolist()
    raw = scoring.score(Blur(1.0), noisy[None], 0).held_out_mse_raw_adu2
    assert raw > max(found[:3])


def test_an_honest_uncertainty_has_the_best_likelihood(scoring):
    noisy = np.random.default_rng(0).poisson(scene()).astype(np.uint16)
    error = ((ndimage.gaussian_filter(noisy.astype(float), 6.0) - scene()) ** 2).mean()
    found = [
        scoring.score(Blur(6.0, factor * error**0.5), noisy[None], 0).held_out_nll
        for factor in (0.0, 1.0, 4.0)
    ]
    assert found[1] < min(found[0], found[2])
