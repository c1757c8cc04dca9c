"""Cameras of flesh and blood: an EM-CCD series and photon-counting stacks."""

import numpy as np
import pytest

from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.level_statistics import level_statistics
from quietscope.calibration.pixel_maps import pixel_maps
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array

pytestmark = pytest.mark.realdata


def series(folder, name):
    offset = open_stack(folder / f"{name}_no-signal_S0.tif").frame(0).astype(float)
    return [open_stack(path) for path in sorted(folder.glob(f"{name}_level-*.tif"))], offset


@pytest.mark.long
def test_emccd_without_gain(real_data):
    levels, offset = series(real_data / "emccd_calib", "ADU_1x-gain")
    found = fit_camera(levels, offset_adu=offset)
    law = found.photon_transfer
    assert law.gain_adu_per_e == pytest.approx(0.256, abs=0.003)
    assert law.read_noise_adu == pytest.approx(15.5, abs=0.5)
    assert not law.excess_noise
    assert found.held_out_nll["gaussian_mixture"] < found.held_out_nll["gaussian"] + 2e-5
    assert found.held_out_nll["gaussian_mixture"] < found.held_out_nll["histogram"]


@pytest.mark.long
def test_emccd_with_gain_names_its_excess_noise(real_data):
    levels, offset = series(real_data / "emccd_calib", "gain-IS_100x-gain")
    found = fit_camera(levels, offset_adu=offset)
    assert 43 <= found.photon_transfer.gain_adu_per_e <= 45.5
    assert found.photon_transfer.excess_noise
    assert found.held_out_nll["gaussian_mixture"] < min(
        found.held_out_nll["gaussian"], found.held_out_nll["histogram"]
    )


@pytest.mark.parametrize(
    "left_out",
    [pytest.param(0, marks=pytest.mark.long), 2, pytest.param(5, marks=pytest.mark.long)],
)
@pytest.mark.long
def test_variance_holds_at_a_level_that_was_left_out(real_data, left_out):
    levels, offset = series(real_data / "emccd_calib", "ADU_1x-gain")
    level = level_statistics(levels.pop(left_out))
    found = fit_camera(levels, offset_adu=offset).noise_model
    assert float(found.variance(level.mean)) == pytest.approx(level.variance, rel=0.03)


@pytest.mark.slow
def test_photon_counting_stack(real_data):
    path = sorted((real_data / "nandb_fkbp_confocal").glob("*.tif"))[0]
    found = fit_camera([open_stack(path)], offset_adu=0.0)
    assert found.photon_transfer.gain_adu_per_e == pytest.approx(1.02, abs=0.03)
    assert found.photon_transfer.read_noise_e == pytest.approx(0, abs=0.2)
    assert found.held_out_nll["gaussian_mixture"] < min(
        found.held_out_nll["gaussian"], found.held_out_nll["histogram"]
    )
    codes = np.arange(256)
    for signal in (0.1, 0.7, 3.0, 40.0):
        total = np.exp(found.noise_model.log_likelihood(codes, signal)).sum()
        assert total == pytest.approx(1, abs=1e-3)


def test_hot_pixels_of_an_scmos_camera_are_found_in_frames_made_from_its_maps(real_data):
    folder = real_data / "storm_analysis_scmos"
    offset, variance, _ = np.load(
        folder / "calib_offset_var_gain_ALIGNED.npy", allow_pickle=False
    ).reshape(3, 256, 256)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(60, 256, 256)) * np.sqrt(np.maximum(variance, 0))
    dark = np.clip(np.rint(100 + offset + noise), 0, 65535).astype(np.uint16)
    maps = pixel_maps(level_statistics(stack_from_array(dark, path="dark")), [])
    truly_hot = variance > np.median(variance) * 30
    assert maps.hot[truly_hot].all()
    assert maps.hot.mean() < 0.05
    assert np.corrcoef(maps.variance_adu2.ravel(), variance.ravel())[0, 1] > 0.9
