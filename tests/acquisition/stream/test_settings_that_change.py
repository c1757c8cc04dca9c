"""The camera is set anew in mid-run: attributes, pixel maps and models follow, frame by frame."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycromanager import Acquisition, multi_d_acquisition_events

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.acquisition.stream.run_directory import read_frame_log
from quietscope.calibration.errors import CameraMismatchError
from quietscope.inference.errors import InferenceError
from quietscope.storage.open_stack import open_stack

SIDE = 32


@pytest.fixture(scope="module")
def microscope():
    with open_microscope(MicroscopeSettings(exposure_ms=2, roi=(0, 0, SIDE, SIDE))) as opened:
        yield opened


def report_of(run):
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


def camera_of(run, name):
    return open_stack(run / name).attributes["quietscope"]["camera"]


CHANGES = {
    "region": (
        lambda core: core.set_roi(16, 8, SIDE, SIDE),
        lambda core: core.set_roi(0, 0, SIDE, SIDE),
        ("roi", [0, 0, SIDE, SIDE], [16, 8, SIDE, SIDE]),
    ),
    "gain": (
        lambda core: core.set_property("Camera", "Gain", "4"),
        lambda core: core.set_property("Camera", "Gain", "0"),
        ("gain_setting", "Gain=0", "Gain=4"),
    ),
    "bit depth": (
        lambda core: core.set_property("Camera", "BitDepth", "12"),
        lambda core: core.set_property("Camera", "BitDepth", "16"),
        ("bit_depth", 16, 12),
    ),
    "binning": (
        lambda core: core.set_property("Camera", "Binning", "2"),
        lambda core: (core.set_property("Camera", "Binning", "1"), core.set_roi(0, 0, SIDE, SIDE)),
        ("binning", "1", "2"),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_frame_lies_where_the_store_tells_its_setting(microscope, tmp_path, what):
    """Set in the engine's hook between two exposures, while earlier images are on their way."""
    change, back, (field, before, after) = CHANGES[what]
    core, run = microscope.core, tmp_path / "run"

    def set_camera(event):
        if event["axes"]["time"] == 4:
            change(core)
        return event

    try:
        with (
            LiveDenoiser(output=run) as live,
            Acquisition(
                image_process_fn=live.image_process_fn, pre_hardware_hook_fn=set_camera
            ) as acquisition,
        ):
            for event in multi_d_acquisition_events(num_time_points=8):
                acquisition.acquire(event)
    finally:
        back(core)
    parts = {line["axes"]["time"]: part for part, _, line in read_frame_log(run / "frames.jsonl")}
    assert parts == {t: 1 if t < 4 else 2 for t in range(8)}
    first, second = camera_of(run, "raw.ome.zarr"), camera_of(run, "raw-2.ome.zarr")
    if what == "gain":  # the demo camera has further properties that count as gain
        assert before in first[field]
        assert after in second[field]
    else:
        assert (first[field], second[field]) == (before, after)
    assert report_of(run)["complete"]


def test_exposures_reach_the_attributes(microscope, tmp_path):
    events = multi_d_acquisition_events(
        num_time_points=2,
        channel_group="Channel",
        channels=["DAPI", "FITC"],
        channel_exposures_ms=[2, 3],
    )
    with (
        LiveDenoiser(output=tmp_path / "run") as live,
        Acquisition(image_process_fn=live.image_process_fn) as acquisition,
    ):
        acquisition.acquire(events)
    about = open_stack(tmp_path / "run").attributes["quietscope"]
    assert about["exposure_ms"] == 2
    assert about["exposures_ms"] == {"DAPI": [2], "FITC": [3]}


@pytest.fixture
def nobody_to_ask(monkeypatch):
    """As in a script on the Java backend: there is no core in this process."""
    monkeypatch.setattr("quietscope.acquisition.sources.ask_camera.running_core", lambda: None)


class Deliver:
    """Images with tags as Java's engine gives them."""

    def __init__(self, live):
        self.live = live

    def __call__(self, t, gain="1", channel=None, roi="0-0-8-8", **tags):
        axes = {"time": t} | ({} if channel is None else {"channel": channel})
        said = {"Core-Camera": "Cam", "Cam-Gain": gain, "ROI": roi, "Cam-Binning": "1", **tags}
        self.live.image_process_fn(np.full((8, 8), 100 + t, "uint16"), {"Axes": axes, **said})


def test_frames_of_another_gain_are_recorded_and_not_denoised(
    nobody_to_ask, tmp_path, make_bundle, caplog
):
    """The model is for gain 1: frames at gain 2 in between are refused, the others go on."""
    run = tmp_path / "run"
    live = LiveDenoiser(make_bundle(gain_setting="Gain=1"), run, provider="cpu")

    def deliver():
        with live:
            for t in range(9):
                Deliver(live)(t, gain="2" if 3 <= t < 6 else "1")

    with pytest.raises(CameraMismatchError, match="gain setting is Gain=2, calibrated"):
        deliver()
    report = report_of(run)
    counts = ("frames_recorded", "frames_denoised", "frames_not_of_the_models_camera")
    assert [report[count] for count in counts] == [9, 6, 3]
    assert not report["complete"]
    assert "frame 3 is recorded but not denoised" in caplog.text
    assert camera_of(run, "raw-2.ome.zarr")["gain_setting"] == "Gain=2"
    denoised = open_stack(run / "denoised.ome.zarr")
    assert [round(float(f.mean())) for f in denoised if f.any()] == [100, 101, 102, 106, 107, 108]


def test_a_model_of_another_camera_is_refused_on_frame_one(nobody_to_ask, tmp_path, make_bundle):
    """Nobody could be asked before: the tags of the first image say which camera it is."""
    model = make_bundle(camera="Zyla", serial="VSC-1")
    live = LiveDenoiser(model, tmp_path / "run", provider="cpu")

    def deliver():
        with live:
            for t in range(3):
                Deliver(live)(t, **{"Cam-CameraName": "Prime", "Cam-CameraID": "P-7"})

    with pytest.raises(CameraMismatchError, match="camera is Prime, calibrated with Zyla"):
        deliver()
    assert report_of(tmp_path / "run")["frames_recorded"] == 3
    assert report_of(tmp_path / "run")["frames_denoised"] == 0
    assert camera_of(tmp_path / "run", "raw.ome.zarr")["camera"] == "Prime"


def test_force_uses_it_and_says_so(nobody_to_ask, tmp_path, make_bundle):
    model = make_bundle(gain_setting="Gain=1")
    with LiveDenoiser(model, tmp_path / "run", provider="cpu", force=True) as live:
        for t in range(6):
            Deliver(live)(t, gain="2" if t >= 3 else "1")
    assert live.report["frames_denoised"] == 6
    assert live.report["forced"] == ["gain setting is Gain=2, calibrated with Gain=1"]
    assert live.report["complete"]


def test_channels_with_a_gain_of_their_own_share_a_store(nobody_to_ask, tmp_path):
    with LiveDenoiser(output=tmp_path / "run") as live:
        for t in range(3):
            for channel, gain in (("DAPI", "1"), ("FITC", "8")):
                Deliver(live)(t, gain=gain, channel=channel)
    stack = open_stack(tmp_path / "run")
    assert stack.sizes == {"time": 3, "channel": 2, "z": 1}
    cameras = stack.attributes["quietscope"]["cameras"]
    assert {name: about["gain_setting"] for name, about in cameras.items()} == {
        "DAPI Cam": "Gain=1",
        "FITC Cam": "Gain=8",
    }


def test_pixel_size_and_exposure_come_from_the_tags(nobody_to_ask, tmp_path, make_bundle):
    with LiveDenoiser(make_bundle(), tmp_path / "run", provider="cpu") as live:
        for t in range(3):
            Deliver(live)(t, PixelSizeUm=0.65, Exposure=12.5)
    for name in ("raw.ome.zarr", "denoised.ome.zarr"):
        stack = open_stack(tmp_path / "run" / name)
        assert stack.pixel_size_um == pytest.approx(0.65)
        assert stack.attributes["quietscope"]["exposure_ms"] == 12.5


def test_distances_of_planes_and_time_points_come_from_the_tags(
    nobody_to_ask, tmp_path, make_bundle
):
    """Three planes 0.5 µm apart every 2 s, of which the last frames came a little late."""
    with LiveDenoiser(make_bundle(), tmp_path / "run", provider="cpu") as live:
        for t in range(3):
            for z in range(3):
                tags = {"ZPosition_um_Intended": 25 + 0.5 * z, "ElapsedTime-ms": 2000 * t + 40 * z}
                image = np.full((8, 8), 100 + t, "uint16")
                live.image_process_fn(image, {"Axes": {"time": t, "z": z}, **tags})
    for name in ("raw.ome.zarr", "denoised.ome.zarr"):
        group = json.loads((tmp_path / "run" / name / "zarr.json").read_text(encoding="utf-8"))
        multiscales = group["attributes"]["ome"]["multiscales"][0]
        [scale] = multiscales["datasets"][0]["coordinateTransformations"]
        assert scale["scale"][:3] == pytest.approx([2, 1, 0.5])
        units = {axis["name"]: axis.get("unit") for axis in multiscales["axes"]}
        assert (units["t"], units["z"]) == ("second", "micrometer")


# ------------------------------------------------------------ channels with a model


def test_a_model_for_a_channel_that_is_not_planned_is_refused(tmp_path, make_bundle):
    models = {"GFP": make_bundle()}
    live = LiveDenoiser(models, tmp_path / "run", planned_channels=["DAPI", "FITC"])
    with pytest.raises(InferenceError, match="DAPI, FITC, models were given for GFP"):
        live.__enter__()
    assert not (tmp_path / "run").exists()


def test_a_channel_that_never_comes_is_said_during_the_run_and_after(
    tmp_path, make_bundle, caplog
):
    with LiveDenoiser({"GFP": make_bundle()}, tmp_path / "run", provider="cpu") as live:
        for t in range(3):
            Deliver(live)(t, channel="DAPI")
    assert "no frame of channel GFP has come" in caplog.text
    assert live.report["models_without_frames"] == ["GFP"]
    assert live.report["frames_without_model"] == 3
