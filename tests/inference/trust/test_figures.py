"""Trust figures: they say when what was removed is camera noise, and when it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from quietscope.inference.trust import NoiseVariance, TrustFigures, lag_one_correlation

GAIN, READ_ADU = 2.0, 3.0


@dataclass(frozen=True)
class Linear:
    """The photon-transfer law itself."""

    signal_range_adu: tuple[float, float] = (0.0, 60_000.0)
    least_variance_adu2: float = READ_ADU**2

    def variance(self, signal):
        return GAIN * np.asarray(signal, float) + READ_ADU**2


def scene(shape=(512, 512), seed=0):
    random = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(random.random(shape), 6)
    return 200 + 4000 * (blobs - blobs.min())


def observe(signal, seed=1):
    random = np.random.default_rng(seed)
    noisy = GAIN * random.poisson(signal / GAIN) + READ_ADU * random.standard_normal(signal.shape)
    return np.rint(noisy).clip(0, 65535).astype(np.uint16)


def measure(raw, denoised, uncertainty=0.0, **options):
    shape = raw.shape
    return TrustFigures.measure(
        raw,
        np.asarray(denoised, np.float32),
        np.broadcast_to(np.float32(uncertainty), shape),
        NoiseVariance(Linear()),
        **options,
    )


def test_removing_exactly_the_noise_is_one_and_white():
    signal = scene()
    figures = measure(observe(signal), signal)
    assert figures.residual_explained == pytest.approx(1.0, abs=0.03)
    assert abs(figures.residual_correlation) < 0.02
    assert figures.saturated_share == 0


def test_removing_structure_too_shows_in_both_figures():
    """The noise explains less of the residual, and neighbours agree about what is missing."""
    signal = scene()
    figures = measure(observe(signal), ndimage.gaussian_filter(signal, 12))
    assert figures.residual_explained < 0.8
    assert figures.residual_correlation > 0.2


def test_leaving_noise_in_is_more_than_one():
    signal = scene()
    raw = observe(signal)
    figures = measure(raw, 0.5 * raw + 0.5 * signal)
    assert figures.residual_explained > 2


def test_the_noise_that_a_posterior_mean_keeps_is_accounted_for():
    """Wiener's estimate keeps a share w of the noise and says u² = w·σ²: explained is 1 again."""
    random = np.random.default_rng(0)
    prior_mean, prior_variance = 1000.0, 900.0
    signal = prior_mean + np.sqrt(prior_variance) * random.standard_normal((512, 512))
    variance = Linear().variance(prior_mean)
    raw = signal + np.sqrt(variance) * random.standard_normal(signal.shape)
    weight = prior_variance / (prior_variance + variance)
    estimate = prior_mean + weight * (raw - prior_mean)
    figures = measure(raw.astype(np.float32), estimate, np.sqrt(weight * variance))
    assert figures.residual_explained == pytest.approx(1.0, abs=0.03)
    assert figures.uncertainty_adu_median == pytest.approx(np.sqrt(weight * variance), rel=1e-5)


def test_saturated_pixels_are_counted_and_left_out():
    signal = scene()
    raw = observe(signal)
    raw[:, :128] = 65535
    figures = measure(raw, signal)
    assert figures.saturated_share == pytest.approx(0.25, abs=0.01)
    assert figures.residual_explained == pytest.approx(1.0, abs=0.05)
    assert measure(observe(signal), signal, saturation_adu=0.0).residual_explained is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (100, 700)])
def test_any_frame_shape(shape):
    signal = np.full(shape, 500.0)
    figures = measure(observe(signal), signal)
    assert all(value is None or np.isfinite(value) for value in figures.result().values())


def test_sampling_agrees_with_every_pixel():
    signal = scene()
    raw = observe(signal)
    sampled, whole = measure(raw, signal), measure(raw, signal, sampled_pixels=raw.size)
    assert sampled.residual_explained == pytest.approx(whole.residual_explained, abs=0.03)


def test_without_a_noise_model_nothing_is_explained():
    signal = scene((64, 64))
    figures = TrustFigures.measure(
        observe(signal), signal.astype(np.float32), np.zeros((64, 64), np.float32), None
    )
    assert figures.residual_explained is None


def test_the_table_is_the_model():
    signals = np.linspace(0, 300_000, 977)  # also beyond the calibrated range
    np.testing.assert_allclose(
        NoiseVariance(Linear())(signals), Linear().variance(signals), rtol=1e-9
    )


def test_correlation_of_smoothed_noise():
    random = np.random.default_rng(0)
    white = random.standard_normal((400, 400))
    assert abs(lag_one_correlation(white)) < 0.01
    # A two-pixel mean along x correlates x neighbours by 1/2 and y neighbours not at all.
    smooth = (white[:, 1:] + white[:, :-1]) / 2
    assert lag_one_correlation(smooth) == pytest.approx(0.25, abs=0.02)
