"""What each filter computes, by its formula, and that it removes noise at every gain."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from scipy import ndimage

from quietscope.errors import MissingExtraError
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.classical.local_statistics import lee, lee_sigma, wiener
from quietscope.inference.classical.methods import METHODS
from quietscope.inference.classical.noise_estimate import estimated_noise_adu
from quietscope.inference.classical.smoothing import gaussian, mean, median
from quietscope.inference.errors import InferenceError

LIBRARIES = {"wavelet": "pywt", "bm3d": "bm3d"}
INSTALLED = [
    method
    for method in METHODS
    if method not in LIBRARIES or importlib.util.find_spec(LIBRARIES[method]) is not None
]


def scene():
    rows, columns = np.mgrid[:96, :96]
    return 300 + 200 * (np.hypot(rows - 48, columns - 40) < 25) + 0.5 * rows


def noisy_image(seed=0):
    return (scene() + 20 * np.random.default_rng(seed).standard_normal((96, 96))).astype("f4")


def filtered(method, observations, **options):
    shape = observations.shape[1:]
    out = np.empty((2, *shape), np.float32)
    ClassicalDenoiser(method, shape, **options).denoise(observations, out)
    return out[0]


@pytest.mark.parametrize("method", [m for m in INSTALLED if m != "identity"])
def test_filters_remove_noise_at_every_gain(method):
    left = []
    for gain in (0.1, 1.0, 30.0):
        random = np.random.default_rng(0)
        signal = gain * scene()
        noisy = signal + 30 * gain * random.standard_normal(signal.shape)
        before = noisy.astype(np.float32)
        result = filtered(method, before[None])
        np.testing.assert_array_equal(before, noisy.astype(np.float32))
        left.append(((result - signal) ** 2).mean() / ((noisy - signal) ** 2).mean())
    assert max(left) < 0.5
    assert max(left) < 1.05 * min(left)  # the same noise, in other units


# ------------------------------------------------------------------------------- formulas


def test_the_mean_is_that_of_a_square():
    image = noisy_image()
    np.testing.assert_allclose(mean(image, 3), ndimage.uniform_filter(image, 3), rtol=1e-5)
    np.testing.assert_allclose(mean(image, 5), ndimage.uniform_filter(image, 5), rtol=1e-5)
    assert mean(image, 3).var() > mean(image, 4).var() > mean(image, 5).var()
    flat = np.full((9, 9), 7, np.float32)
    np.testing.assert_allclose(mean(flat, 4), flat)


def test_the_median_of_radius_one_and_a_half_is_that_of_a_square():
    image = noisy_image()
    np.testing.assert_array_equal(median(image, 1.5), ndimage.median_filter(image, 3))


def test_lee_by_his_formula():
    """m + v_s/(v_s + σ²(m))·(x − m), window by window."""
    image = noisy_image()[:30, :30]

    def noise(signal):
        return 1.7 * signal

    found = lee(image, 5, noise)
    for y, x in [(10, 10), (2, 2), (17, 25), (27, 3)]:
        window = image[y - 2 : y + 3, x - 2 : x + 3].astype(float)
        m, v = window.mean(), window.var()
        left = max(v - 1.7 * m, 0)
        expected = m + left / (left + 1.7 * m) * (image[y, x] - m)
        assert found[y, x] == pytest.approx(expected, rel=1e-6)


def test_lee_keeps_what_the_noise_does_not_explain_and_averages_the_rest():
    flat = 400 + 5 * np.random.default_rng(1).standard_normal((64, 64))
    at_rest = lee(flat.astype(np.float32), 9, lambda signal: np.full(signal.shape, 25.0))
    assert at_rest.std() < 0.3 * flat.std()
    assert at_rest.mean() == pytest.approx(flat.mean(), abs=0.05)
    edge = np.where(np.arange(64) < 32, 100.0, 900.0) * np.ones((64, 1))
    kept = lee(edge.astype(np.float32), 5, lambda signal: np.full(signal.shape, 25.0))
    np.testing.assert_allclose(kept, edge, rtol=2e-3)


def test_lee_sigma_by_its_definition():
    image = noisy_image()[:24, :24] / np.float32(20)
    image[12, 12] += 40  # alone: the mean of its neighbours takes its place
    found = lee_sigma(image, 2.0)
    for y, x in [(8, 8), (15, 20), (3, 10)]:
        window = image[y - 3 : y + 4, x - 3 : x + 4].astype(float)
        near = window[np.abs(window - image[y, x]) <= 2.0]
        ring = image[y - 1 : y + 2, x - 1 : x + 2].astype(float)
        expected = near.mean() if near.size > 3 else (ring.sum() - image[y, x]) / 8
        assert found[y, x] == pytest.approx(expected, rel=1e-5)
    ring = image[11:14, 11:14].astype(float)
    assert found[12, 12] == pytest.approx((ring.sum() - image[12, 12]) / 8, rel=1e-5)


def test_wiener_knows_the_noise():
    image = noisy_image() / np.float32(20)
    statistics = ndimage.uniform_filter(image.astype(float), 5, mode="constant")
    found = wiener(image, 5)
    m = statistics[20, 20]
    v = image[18:23, 18:23].astype(float).var()
    gain = max(1 - 1 / v, 0)
    assert found[20, 20] == pytest.approx(m + gain * (image[20, 20] - m), rel=1e-4)


@pytest.mark.parametrize("method", [m for m in INSTALLED if m not in ("identity", "bm3d")])
def test_the_border_of_a_frame_is_no_edge(method):
    noise = np.random.default_rng(0).standard_normal((1, 40, 40)).astype(np.float32)
    result = filtered(method, 500 + 10 * noise, noise_adu=10.0)
    border = np.ones((40, 40), bool)
    border[2:-2, 2:-2] = False
    assert result[border].std() < 5
    assert result[border].mean() == pytest.approx(500, abs=2)


@pytest.mark.parametrize("method", INSTALLED)
def test_a_frame_without_light_stays_finite(method):
    dark = np.zeros((1, 48, 48), np.uint16)
    dark[0, 20, 20] = 1  # a single photon
    result = filtered(method, dark, noise_adu=0.5)
    assert np.isfinite(result).all()
    assert result.min() > -0.5
    assert result.max() <= 1.1


# ------------------------------------------------------------------------ strength and frames


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (7, 9), (8, 8)])
@pytest.mark.parametrize("method", INSTALLED)
def test_a_frame_that_is_smaller_than_a_filter_is_filtered(method, shape):
    noisy = 100 + 5 * np.random.default_rng(0).standard_normal(shape)
    result = filtered(method, noisy[None].astype(np.float32), strength=1.0)
    assert result.shape == shape
    assert np.abs(result - 100).max() <= np.abs(noisy - 100).max() + 1e-4


@pytest.mark.parametrize("method", ["gaussian", "mean", "total-variation", "non-local-means"])
def test_the_strength_chosen_without_truth_is_nearly_the_best(method):
    noisy = noisy_image()[None]
    shape = noisy.shape[1:]
    out = np.empty((2, *shape), np.float32)
    denoiser = ClassicalDenoiser(method, shape)
    assert denoiser.strength is None
    denoiser.denoise(noisy, out)
    chosen = ((out[0] - scene()) ** 2).mean()
    strengths = METHODS[method].strengths
    assert denoiser.strength in strengths
    errors = [((filtered(method, noisy, strength=s) - scene()) ** 2).mean() for s in strengths]
    assert chosen <= 1.35 * min(errors)
    assert chosen < max(errors)


def test_the_strength_stays_as_it_was_chosen():
    denoiser, out = ClassicalDenoiser("gaussian", (96, 96)), np.empty((2, 96, 96), np.float32)
    denoiser.denoise(noisy_image()[None], out)
    chosen = denoiser.strength
    denoiser.denoise(scene().astype(np.float32)[None], out)
    assert denoiser.strength == chosen


def test_several_frames_are_averaged_and_missing_ones_left_out():
    frames = np.stack([noisy_image(seed) for seed in range(4)])
    expected = gaussian(frames.mean(axis=0), 1.0)
    np.testing.assert_allclose(
        filtered("gaussian", frames, frames=4, strength=1.0), expected, rtol=1e-5
    )
    frames[2:] = 0
    expected = gaussian(frames[:2].mean(axis=0), 1.0)
    np.testing.assert_allclose(
        filtered("gaussian", frames, frames=4, strength=1.0), expected, rtol=1e-5
    )


@pytest.mark.parametrize("method", ["total-variation", "lee", "non-local-means"])
def test_more_frames_of_a_scene_at_rest_are_better(method):
    frames = np.stack([noisy_image(seed) for seed in range(6)])
    one, six = (((filtered(method, frames[:n], frames=n) - scene()) ** 2).mean() for n in (1, 6))
    assert six < 0.6 * one


def test_the_identity_is_the_frame():
    frame = np.random.default_rng(0).integers(0, 65536, (1, 20, 20)).astype(np.uint16)
    np.testing.assert_array_equal(filtered("identity", frame), frame[0])


def test_the_noise_is_estimated():
    random = np.random.default_rng(0)
    image = scene() + 12 * random.standard_normal((96, 96))
    assert estimated_noise_adu(image.astype(np.float32)) == pytest.approx(12, rel=0.1)
    dark = random.poisson(0.02, (200, 200)).astype(np.float32)
    assert 0 < estimated_noise_adu(dark) < 0.3
    assert estimated_noise_adu(np.full((50, 50), 7, np.float32)) == 0
    assert estimated_noise_adu(np.zeros((2, 50), np.float32)) == 0


# ----------------------------------------------------------------------------------- refusals


def test_an_unknown_method_is_named():
    with pytest.raises(InferenceError, match="expected one of identity, mean, gaussian, median"):
        ClassicalDenoiser("sharpen", (4, 4))


@pytest.mark.parametrize("strength", [0, -1, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_refused(strength):
    with pytest.raises(InferenceError, match="σ of the Gaussian, px"):
        ClassicalDenoiser("gaussian", (4, 4), strength=strength)


@pytest.mark.parametrize("frames", [0, 65])
def test_frames_that_are_none_are_refused(frames):
    with pytest.raises(InferenceError, match=f"frames is {frames}, expected 1 to 64"):
        ClassicalDenoiser("gaussian", (4, 4), frames=frames)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in INSTALLED])
def test_a_missing_library_is_named(method):
    with pytest.raises(MissingExtraError, match="pip install"):
        ClassicalDenoiser(method, (4, 4))
