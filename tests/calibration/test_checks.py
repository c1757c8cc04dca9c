"""The checks catch what spoils a calibration, and stay quiet on a good one."""

import numpy as np
import pytest

from quietscope.calibration.checks import coverage_of_data
from quietscope.calibration.errors import CameraMismatchError
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.result import Calibration
from quietscope.storage.stack import Stack, stack_from_array

GAIN, OFFSET, READ = 0.5, 100.0, 2.0
SHAPE = (64, 64)
FRAMES = 40


def frames(electrons, seed: int, *, read_extra: np.ndarray | float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = rng.poisson(np.broadcast_to(electrons, (FRAMES, *SHAPE)))
    adu = GAIN * (count + rng.normal(0, READ, count.shape)) + OFFSET + read_extra
    return np.clip(np.rint(adu), 0, 65535).astype(np.uint16)


def stack(pixels: np.ndarray, name: str) -> Stack:
    return stack_from_array(pixels, path=name)


def scene() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return 100 + 2000 * (np.sin(x / 4) * np.cos(y / 5)) ** 2


def calibrated(brightest: np.ndarray, **options) -> Calibration:
    levels = [stack(frames(e, i), f"{e}") for i, e in enumerate((20, 100, 500), start=1)]
    return fit_camera(
        [*levels, stack(brightest, "brightest")], dark=stack(frames(0, 0), "dark"), **options
    )


def verdict(calibration: Calibration, name: str) -> bool:
    (check,) = [check for check in calibration.checks if check.name == name]
    assert check.advice
    return check.passed


def failed(calibration: Calibration) -> set[str]:
    # How much of a 16-bit range a ladder covers is advice, not a fault of the recording.
    return {c.name for c in calibration.checks if not c.passed} - {"coverage"}


@pytest.mark.parametrize("light", [2000.0, scene()], ids=["flat field", "static scene"])
def test_a_good_recording_passes(light):
    assert failed(calibrated(frames(light, 9))) == set()


def test_a_moved_scene_is_caught():
    still = scene()
    moved = np.stack([np.roll(still, round(2 * i / FRAMES), axis=1) for i in range(FRAMES)])
    found = calibrated(frames(moved, 9))
    assert not verdict(found, "motion")
    assert verdict(found, "lamp_drift")


@pytest.mark.parametrize("drift", [0.02, -0.02])
def test_a_lamp_that_drifts_by_two_percent_is_caught(drift):
    light = 2000 * np.linspace(1, 1 + drift, FRAMES)[:, None, None]
    found = calibrated(frames(light, 9))
    assert not verdict(found, "lamp_drift")
    assert verdict(found, "motion")


def test_saturation_of_one_pixel_in_a_thousand_is_caught():
    pixels = frames(2000.0, 9)
    top = np.sort(pixels.ravel())[-pixels.size // 1000]
    found = calibrated(np.minimum(pixels, top))
    assert not verdict(found, "saturation")
    # At the camera's own limit as well, without a pile to see.
    full = pixels.copy()
    full.ravel()[::1000] = 65535
    assert not verdict(calibrated(full), "saturation")


def test_noise_that_rows_share_is_caught():
    rng = np.random.default_rng(4)
    rows = rng.normal(0, 4.0, (FRAMES, SHAPE[0], 1))
    found = calibrated(frames(2000.0, 9, read_extra=rows))
    assert not verdict(found, "spatial_correlation")


def test_correlation_of_neighbours_is_caught():
    rng = np.random.default_rng(4)
    common = rng.normal(0, 8.0, (FRAMES, SHAPE[0], SHAPE[1] + 1))
    found = calibrated(frames(2000.0, 9, read_extra=common[..., 1:] + common[..., :-1]))
    assert not verdict(found, "spatial_correlation")


def test_clipping_at_zero_is_caught():
    levels = [stack(frames(e, i, read_extra=-OFFSET), f"{e}") for i, e in enumerate((2, 20, 100))]
    assert not verdict(fit_camera(levels), "clipping_at_zero")


def test_zeros_of_a_photon_counter_are_no_clipping():
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.linspace(0.2, 20, 64 * 64).reshape(64, 64), (40, 64, 64))
    found = fit_camera([stack(counts.astype(np.uint8), "counts")], offset_adu=0.0)
    assert verdict(found, "clipping_at_zero")


def test_hot_pixels_are_found_and_mapped():
    extra = np.zeros((FRAMES, *SHAPE))
    extra[:, 10, 20] = np.random.default_rng(0).normal(0, 40, FRAMES)
    extra[:, 30:32, 40:44] = 300
    levels = [stack(frames(e, i, read_extra=extra), f"{e}") for i, e in enumerate((20, 100, 500))]
    found = fit_camera(levels, dark=stack(frames(0, 7, read_extra=extra), "dark"))
    assert not verdict(found, "hot_pixels")
    assert found.maps.hot[10, 20]
    assert found.maps.hot[30:32, 40:44].all()
    assert found.maps.hot.sum() == 9
    # They do not spoil the camera's own figures.
    assert found.photon_transfer.read_noise_e == pytest.approx(READ, rel=0.03)
    assert found.photon_transfer.offset_adu == pytest.approx(OFFSET, abs=0.1)


def test_few_repeats_are_pointed_out():
    few = [stack(frames(e, i)[:6], f"{e}") for i, e in enumerate((20, 100, 500))]
    found = fit_camera(few)
    assert not verdict(found, "repeats")


def test_a_camera_that_is_not_linear_departs_from_the_law():
    # Gamma-like compression of the bright half.
    bent = [np.rint(1000 * np.sqrt(frames(e, i) / 1000)) for i, e in enumerate((200, 1500, 9000))]
    levels = [stack(pixels.astype(np.uint16), f"{i}") for i, pixels in enumerate(bent)]
    try:
        found = fit_camera(levels)
    except ValueError:
        return  # refused outright is as good
    assert not verdict(found, "mixture_against_photon_transfer")


def test_data_brighter_than_the_levels_is_covered_by_the_law_and_it_is_said():
    model = calibrated(frames(2000.0, 9)).noise_model
    inside = coverage_of_data(model, stack(frames(1000.0, 3), "cells"))
    brighter = coverage_of_data(model, stack(frames(20_000.0, 3), "cells"))
    assert inside.passed
    assert "lies within what was calibrated" in inside.says
    assert brighter.passed
    assert "brighter than the light levels" in brighter.says
    truth = GAIN**2 * (20_000 + READ**2)
    half = model.photon_transfer.variance_half_interval(OFFSET + GAIN * 20_000)
    assert abs(float(model.variance(OFFSET + GAIN * 20_000)) - truth) < 1.5 * float(half)


def test_data_beyond_what_the_law_knows_is_refused_with_the_next_command():
    dim = [stack(frames(e, i), f"{e}") for i, e in enumerate((1, 1.5), start=1)]
    model = fit_camera(dim, dark=stack(frames(0, 0), "dark")).noise_model
    outside = coverage_of_data(model, stack(frames(40_000.0, 3), "cells"))
    low, high = model.covered_range_adu
    assert low < OFFSET + 1
    assert high < 200
    assert not outside.passed
    assert "quietscope calibrate --out" in outside.says


def test_a_noise_model_of_another_camera_is_refused():
    camera = CameraFingerprint(camera="Zyla", gain_setting="12-bit", binning="1")
    model = calibrated(frames(2000.0, 9), fingerprint=camera).noise_model
    model.fingerprint.require_match(camera, what="camera.npz")
    with pytest.raises(
        CameraMismatchError, match="gain setting is 16-bit, calibrated with 12-bit"
    ):
        model.fingerprint.require_match(
            camera.model_copy(update={"gain_setting": "16-bit"}), what="camera.npz"
        )


def test_maps_give_every_pixel_its_own_noise():
    rng = np.random.default_rng(1)
    extra = np.zeros((FRAMES, *SHAPE))
    extra[:, :, 32:] = rng.normal(0, 2.0, (FRAMES, SHAPE[0], 32))
    levels = [stack(frames(e, i, read_extra=extra), f"{e}") for i, e in enumerate((20, 100, 500))]
    model = fit_camera(levels, dark=stack(frames(0, 7, read_extra=extra), "dark")).noise_model
    signal = np.full(SHAPE, OFFSET + GAIN * 50)
    found = model.pixel_variance(signal)
    quiet = GAIN**2 * (50 + READ**2)
    assert found[:, :32].mean() == pytest.approx(quiet, rel=0.06)
    assert found[:, 32:].mean() == pytest.approx(quiet + 4, rel=0.06)
    # And the likelihood of fresh frames is better for it.
    fresh = frames(50, 99, read_extra=np.roll(extra, 5, axis=0))
    own = model.pixel_log_likelihood(fresh, signal)
    shared = model.log_likelihood(fresh, signal)
    assert own.mean() > shared.mean()
    with pytest.raises(ValueError, match="use the region of the sensor that was calibrated"):
        model.pixel_variance(signal[:10])
