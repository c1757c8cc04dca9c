"""The simulated specimen obeys the camera's law and moves."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen

LAW = CameraLaw(gain_adu_per_e=2.0, offset_adu=99.25, read_noise_e=2.5)


def test_observations_have_the_law_s_mean_and_variance() -> None:
    photoelectrons = np.full((400, 400), 12.0)
    observed = LAW.observe(photoelectrons, np.random.default_rng(0)).astype(float)
    assert observed.mean() == pytest.approx(99.25 + 2.0 * 12.0, abs=0.1)
    # Shot and read noise in electrons, the gain squared, and rounding to whole ADU.
    assert observed.var() == pytest.approx(4.0 * (12.0 + 2.5**2) + 1 / 12, rel=0.02)


def test_a_bright_pixel_saturates() -> None:
    law = CameraLaw(1.0, 100.0, 1.0, saturation_adu=4095.0)
    observed = law.observe(np.full((8, 8), 1e5), np.random.default_rng(0))
    assert (observed == 4095).all()


def test_a_frame_is_a_function_of_its_index() -> None:
    first, second = (Specimen((64, 96), LAW, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.observe(7), second.observe(7))
    assert not np.array_equal(first.observe(7), first.observe(8))


def test_the_truth_moves_but_does_not_flicker() -> None:
    specimen = Specimen((128, 128), LAW, seed=1)
    now, next_, later = (specimen.truth_photoelectrons(i) for i in (0, 1, 60))
    step, leap = np.abs(next_ - now).mean(), np.abs(later - now).mean()
    assert 0 < step < 0.2 * leap
    assert later.mean() == pytest.approx(now.mean(), rel=0.3)


def test_noise_is_independent_from_frame_to_frame() -> None:
    specimen = Specimen((128, 128), LAW, seed=1)
    noise = [specimen.observe(i) - specimen.truth(i) for i in (0, 1)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.03
