"""`inspect`: what is in a file is what was put in, and the advice follows from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter, shift
from typer.testing import CliRunner

from quietscope.cli import app
from quietscope.inspection.channel_figures import channel_figures
from quietscope.storage.stack import stack_from_array

SHAPE = (96, 96)
GAIN, OFFSET = 2.0, 100


def scene(seed=0):
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.random(SHAPE), 4)
    return 20 + 400 * (blobs - blobs.min()) / np.ptp(blobs)


def recording(count=16, *, electrons=None, seed=0):
    rng = np.random.default_rng(seed)
    signal = scene() if electrons is None else electrons
    noisy = rng.poisson(signal, (count, *SHAPE)) + rng.normal(0, 1.6, (count, *SHAPE))
    return np.clip(np.rint(GAIN * noisy + OFFSET), 0, 65535).astype(np.uint16)


def figures(pixels, **more):
    return channel_figures(stack_from_array(pixels, **more), "GFP")


def test_range_and_noise_are_those_of_the_camera():
    found = figures(recording())
    mean_electrons = (found.mean_adu - OFFSET) / GAIN
    assert found.noise_adu == pytest.approx(GAIN * np.sqrt(mean_electrons + 1.6**2), rel=0.15)
    assert found.gain_adu_per_e == pytest.approx(GAIN, rel=0.2)
    assert found.step_adu == 1
    assert found.saturated_share == found.zero_share == 0
    assert max(map(abs, found.noise_correlation_xy)) < 0.03
    assert found.moved_share < 0.05
    assert not list(found.advice())


def test_saturation_and_clipping_are_found():
    pixels = np.clip(recording().astype(int) * 8 - 1500, 0, 4095).astype(np.uint16)
    found = figures(pixels)
    assert found.saturated_share == pytest.approx((pixels == 4095).mean())
    assert found.zero_share == pytest.approx((pixels == 0).mean())
    advice = " ".join(found.advice())
    assert "saturated at 4095" in advice
    assert "offset" in advice


def test_twelve_bits_in_the_upper_ones_of_sixteen():
    found = figures(recording() * 16)
    assert found.step_adu == 16
    assert any("steps of 16" in line for line in found.advice())


def test_noise_that_is_correlated_along_rows():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 10, (16, *SHAPE))
    noise[..., 1:] += 0.8 * noise[..., :-1]
    found = figures(np.rint(noise + 500).astype(np.uint16))
    x, y = found.noise_correlation_xy
    assert x > 0.3 > abs(y) + 0.2
    assert any("r2r" in line for line in found.advice())


def test_motion_is_found():
    moving = np.stack(
        [
            recording(1, electrons=np.clip(shift(scene(), (0, k)), 5, None), seed=k)[0]
            for k in range(16)
        ]
    )
    assert figures(moving).moved_share > 0.5


def test_absent_frames_are_not_looked_at():
    pixels = recording()
    present = np.ones(16, bool)
    present[[3, 7]] = False
    pixels[~present] = 0
    found = figures(pixels, present=present)
    assert found.lowest_adu > 0
    assert found.frames_sampled == 14


def test_a_single_small_frame_says_why_it_tells_no_noise():
    found = figures(recording(1)[:, :8, :8])
    assert found.noise_adu is None
    assert "too small" in found.why_no_noise


def test_the_command_tells_what_there_is_and_what_to_do(tmp_path):
    pixels = recording(12).reshape(6, 2, *SHAPE)
    metadata = {
        "axes": "TCYX",
        "Channel": {"Name": ["GFP", "RFP"]},
        "PhysicalSizeX": 0.1,
        "PhysicalSizeY": 0.1,
    }
    path = tmp_path / "my cells.ome.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=metadata)
    done = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["axes"] == {"time": 6, "channel": 2}
    assert result["channels"] == ["GFP", "RFP"]
    assert result["pixel_size_yx_um"] == [0.1, 0.1]
    assert (result["frames"], result["frames_absent"]) == (12, 0)
    assert [found["channel"] for found in result["figures"]] == ["GFP", "RFP"]
    assert result["advice"][-1].startswith("next: quietscope train")
    told = CliRunner().invoke(app, ["inspect", str(path)])
    assert "12 frames: time 6 × channel 2" in told.stdout
    assert "GFP:" in told.stdout


def test_whether_a_calibration_fits(tmp_path):
    from quietscope.calibration.bootstrap import bootstrap_noise_model
    from quietscope.calibration.noise_files import save_noise_model

    own, other = tmp_path / "own.npz", tmp_path / "other.npz"
    save_noise_model(bootstrap_noise_model([stack_from_array(recording())]), own)
    bright = recording(electrons=50 * scene())
    save_noise_model(bootstrap_noise_model([stack_from_array(bright)]), other)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, recording(seed=1), photometric="minisblack")
    done = CliRunner().invoke(
        app,
        ["inspect", str(path), "--noise-model", str(own), "--noise-model", str(other), "--json"],
    )
    found = json.loads(done.stdout)["calibrations"]
    assert found[str(own)]["fits"], found
    assert not found[str(other)]["fits"]
    assert "calibration" in found[str(other)]["why"]


def test_frames_without_noise_are_not_advised_to_be_trained_on(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([scene().astype(np.uint16)] * 6))
    found = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.tif")])
    assert found.exit_code == 0
    assert "none saturated" in found.output
    assert "correlate" not in found.output
    assert "next: give the camera's own frames" in found.output


def test_frames_of_few_pixels_serve_a_calibration_only(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", recording()[:, :3, :3], photometric="minisblack")
    found = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.tif")])
    assert found.exit_code == 0
    assert "next: as repeats of one scene they serve fit-noise" in found.output


def test_one_small_frame_is_no_crash(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", recording(1)[0, :16, :16])
    found = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.tif")])
    assert found.exit_code == 0
    assert "next: record more frames" in found.output


def test_what_fits_of_the_library_around_a_recording(tmp_path, make_bundle):
    from quietscope.calibration.bootstrap import bootstrap_noise_model
    from quietscope.calibration.noise_files import save_noise_model
    from quietscope.inference.library import Library

    bundle = make_bundle("built", channel="RFP", camera="Another")
    bundle.rename(tmp_path / "model")
    Library(tmp_path).promote(tmp_path / "model", "first")
    save_noise_model(bootstrap_noise_model([stack_from_array(recording())]), tmp_path / "cam.npz")
    (tmp_path / "runs").mkdir()
    path = tmp_path / "runs" / "a.tif"
    tifffile.imwrite(path, recording(seed=1), photometric="minisblack")
    done = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["calibrations"][str(tmp_path / "cam.npz")]["fits"]
    assert not found["models"]["model"]["fits"]
    assert "it serves the channel RFP" in found["models"]["model"]["why"]
    assert "--noise-model" in found["advice"][-1]
    (tmp_path / "current.json").write_text("{")
    damaged = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert damaged.exit_code == 0, damaged.output
    assert not json.loads(damaged.stdout)["models"][str(tmp_path)]["fits"]
