"""What each score is, by its definition and by what it must not see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import normalized_root_mse, structural_similarity

from quietscope.inference.evaluation.metrics import (
    frc_resolution_px,
    nrmse,
    nrmse_euclidean,
    psnr_db,
    radial_power,
    scale_invariant_psnr_db,
    spectral_flatness,
    ssim_gaussian_map,
)

SHAPE = (96, 128)


def scene(sigma=1.0):
    random = np.random.default_rng(3)
    return 100 + 900 * ndimage.gaussian_filter(random.random(SHAPE), sigma)


def noise(seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE)


def test_both_definitions_of_nrmse_are_scikit_images():
    truth, image = scene(), scene() + 20 * noise()
    expected = normalized_root_mse(truth, image, normalization="min-max")
    assert nrmse(image, truth) == pytest.approx(expected)
    assert nrmse_euclidean(image, truth) == pytest.approx(normalized_root_mse(truth, image))


def test_ssim_has_the_window_of_its_authors():
    """11 pixels wide: the square of one pixel's error reaches five pixels and no further."""
    truth = scene()
    image = truth.copy()
    image[48, 64] += 300
    _, local = ssim_gaussian_map(image, truth)
    rows, columns = np.nonzero(np.abs(local - 1) > 1e-9)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (43, 53, 59, 69)
    mean, _ = ssim_gaussian_map(truth + 20 * noise(), truth)
    expected = structural_similarity(
        truth,
        truth + 20 * noise(),
        data_range=truth.max() - truth.min(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert mean == pytest.approx(expected)
    assert ssim_gaussian_map(truth[:7, :7], truth[:7, :7])[0] == pytest.approx(1)


def test_si_psnr_does_not_see_gain_and_offset():
    truth, image = scene(), scene() + 20 * noise()
    found = scale_invariant_psnr_db(image, truth)
    assert scale_invariant_psnr_db(0.3 * image - 50, truth) == pytest.approx(found)
    assert found >= psnr_db(image, truth)
    assert scale_invariant_psnr_db(2 * truth + 5, truth) > 200


def test_frc_tells_the_wavelength_down_to_which_structure_is_there():
    """White structure, of which an ideal filter leaves waves of eight pixels and longer."""
    random, shape = np.random.default_rng(0), (256, 300)
    truth = random.standard_normal(shape)
    along = [np.fft.fftfreq(size) for size in shape]
    kept = np.hypot(along[0][:, None], along[1]) < 1 / 8
    image = np.fft.ifft2(np.fft.fft2(truth) * kept).real + 0.2 * random.standard_normal(shape)
    assert frc_resolution_px(image, truth) == pytest.approx(8, abs=0.6)  # two rings of 1/256
    assert frc_resolution_px(truth, truth) == 2.0
    assert frc_resolution_px(random.standard_normal(shape), truth) > 20


def test_white_noise_is_flat_and_lost_structure_is_not():
    assert spectral_flatness(noise()) > 0.97
    assert spectral_flatness(noise() + 3 * ndimage.gaussian_filter(noise(1), 3)) < 0.9
    assert spectral_flatness(np.full(SHAPE, 7.0)) is None
    assert radial_power(5 * noise())[1].mean() == pytest.approx(25, rel=0.05)
