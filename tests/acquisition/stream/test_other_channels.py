"""Models that look at another channel, live on the real core: the same as offline."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pycromanager import Acquisition, multi_d_acquisition_events

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.inference.errors import FrameMismatchError
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.open_stack import open_stack

SIDE = 64
CHANNELS = ["DAPI", "FITC"]


@pytest.fixture(scope="module")
def microscope():
    settings = MicroscopeSettings(exposure_ms=2, roi=(0, 0, SIDE, SIDE))
    with open_microscope(settings) as opened:
        opened.set_property("Mode", "Noise")  # no two frames are alike
        yield opened


@pytest.fixture
def models(make_bundle):
    """Each channel's model takes a frame that came before, and the other channel's newest."""
    return {
        own: make_bundle(own, channel=own, context_frames=1, other_channels=(other,))
        for own, other in (("DAPI", "FITC"), ("FITC", "DAPI"))
    }


def acquire(live, **events):
    with Acquisition(image_process_fn=live.image_process_fn, name="theirs") as acquisition:
        acquisition.acquire(multi_d_acquisition_events(channel_group="Channel", **events))


@pytest.mark.parametrize("order", ["tcz", "tzc"])
def test_live_gives_the_result_of_offline(microscope, models, tmp_path, order):
    with LiveDenoiser(models, tmp_path / "run", provider="cpu") as live:
        acquire(
            live,
            num_time_points=4,
            channels=CHANNELS,
            z_start=0,
            z_end=2,
            z_step=1,
            order=order,
        )
    assert live.report["frames_denoised"] == 4 * 2 * 3
    raw = open_stack(tmp_path / "run" / "raw.ome.zarr")
    offline = tmp_path / "offline.ome.zarr"
    denoise_stack(raw, models, offline, provider="cpu")
    ours, theirs = open_stack(tmp_path / "run" / "denoised.ome.zarr"), open_stack(offline)
    for index in range(len(raw)):
        np.testing.assert_array_equal(ours.frame(index), theirs.frame(index))


def test_each_frame_is_seen_with_the_newest_of_the_other_channel(microscope, models, tmp_path):
    with LiveDenoiser(models, tmp_path / "run", provider="cpu") as live:
        acquire(live, num_time_points=3, channels=CHANNELS)
    raw = open_stack(tmp_path / "run" / "raw.ome.zarr")
    found = open_stack(tmp_path / "run" / "denoised.ome.zarr")

    def pixels(t, c):
        return raw.frame(raw.index({"time": t, "channel": c, "z": 0}))

    nothing = np.zeros((SIDE, SIDE), np.uint16)
    expected = np.empty((2, SIDE, SIDE), np.float32)
    inputs = {
        (0, 0): [pixels(0, 0), nothing, nothing],
        (0, 1): [pixels(0, 1), nothing, pixels(0, 0)],
        (2, 0): [pixels(2, 0), pixels(1, 0), pixels(1, 1)],
        (2, 1): [pixels(2, 1), pixels(1, 1), pixels(2, 0)],
    }
    for (t, c), planes in inputs.items():
        with OnnxDenoiser(models[CHANNELS[c]], (SIDE, SIDE), provider="cpu") as denoiser:
            denoiser.denoise(np.stack(planes), expected)
        index = found.index({"time": t, "channel": c, "z": 0})
        np.testing.assert_array_equal(found.frame(index), expected[0])


def test_a_other_channel_needs_no_model_of_its_own(microscope, models, tmp_path):
    with LiveDenoiser({"FITC": models["FITC"]}, tmp_path / "run", provider="cpu") as live:
        acquire(live, num_time_points=3, channels=CHANNELS)
    assert live.report["frames_denoised"] == 3
    raw = open_stack(tmp_path / "run" / "raw.ome.zarr")
    offline = tmp_path / "offline.ome.zarr"
    denoise_stack(raw, {"FITC": models["FITC"]}, offline, provider="cpu")
    ours, theirs = open_stack(tmp_path / "run" / "denoised.ome.zarr"), open_stack(offline)
    for t in range(3):
        index = raw.index({"time": t, "channel": 1, "z": 0})
        np.testing.assert_array_equal(ours.frame(index), theirs.frame(index))


def test_a_run_without_the_other_channel_says_so_and_keeps_raw(microscope, models, tmp_path):
    live = LiveDenoiser({"FITC": models["FITC"]}, tmp_path / "run", provider="cpu")
    with (
        pytest.raises(FrameMismatchError, match="also looks at DAPI, which this run does not"),
        live,
    ):
        acquire(live, num_time_points=3, channels=["FITC"])
    assert live.report["frames_recorded"] == 3


def test_the_first_time_point_may_have_any_number(models, tmp_path):
    image = np.full((SIDE, SIDE), 100, np.uint16)
    with LiveDenoiser(models, tmp_path / "run", provider="cpu") as live:
        for number in range(4):
            axes = {"time": 5 + number // 2, "channel": CHANNELS[number % 2]}
            live.image_process_fn(image, {"Axes": axes})
            wait_for(lambda n=number: live.report["frames_denoised"] == n + 1)
    assert live.report["frames_denoised"] == 4


def test_other_channels_of_several_cameras_are_kept_by_their_whole_name(make_bundle, tmp_path):
    """What is not kept is read back, and without a recording of ours there is nothing to read."""
    model = make_bundle("model", other_channels=("GFP left",))
    images = np.random.default_rng(0).integers(0, 4096, (4, SIDE, SIDE), np.uint16)
    found = []
    for record in (True, False):
        run = tmp_path / f"record {record}"
        with LiveDenoiser({"RFP left": model}, run, record=record, provider="cpu") as live:
            for number, image in enumerate(images):
                channel, camera = [("GFP", "left"), ("RFP", "left")][number % 2]
                axes = {"time": number // 2, "channel": channel}
                live.image_process_fn(np.zeros_like(image), {"Axes": axes, "Camera": "right"})
                live.image_process_fn(image, {"Axes": axes, "Camera": camera})
                wait_for(lambda n=number: live.report["frames_denoised"] == (n + 1) // 2)
        found.append(list(open_stack(run / "denoised.ome.zarr")))
    np.testing.assert_array_equal(*found)


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
