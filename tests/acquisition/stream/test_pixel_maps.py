"""Models that know every pixel of the camera, live: frames meet the pixels that took them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from pycromanager import Acquisition, multi_d_acquisition_events

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.acquisition.stream.denoise_stage import DenoiseStage
from quietscope.acquisition.stream.run_directory import read_frame_log
from quietscope.inference.errors import FrameMismatchError
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.storage.open_stack import open_stack

CALIBRATED = (0, 0, 96, 64)
MAPS = np.zeros((1, 3, 64, 96), np.float32)
MAPS[0, 0] = 1
MAPS[0, 1] = np.arange(64 * 96).reshape(64, 96)  # every pixel has an offset of its own


@pytest.fixture
def model(make_bundle):
    """A graph that only corrects its pixels: what it adds to each tells which it took it for."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(np.uint16))
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["observations"], ["x"], to=TensorProto.FLOAT),
            helper.make_node(
                "Split", ["pixel_maps"], ["factor", "summand", "excess"], axis=1, num_outputs=3
            ),
            helper.make_node("Mul", ["x", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "summand"], ["denoised"]),
            helper.make_node("Sub", ["denoised", "denoised"], ["nothing"]),
            helper.make_node("Add", ["nothing", "excess"], ["uncertainty"]),
        ],
        "correcting",
        [
            helper.make_tensor_value_info("observations", element, ["n", 1, "y", "x"]),
            helper.make_tensor_value_info("pixel_maps", TensorProto.FLOAT, [1, 3, "y", "x"]),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y", "x"])
            for name in ("denoised", "uncertainty")
        ],
        [numpy_helper.from_array(MAPS, "pixel_maps")],
    )
    opset = [helper.make_opsetid("", 18)]
    return make_bundle(
        graph=helper.make_model(graph, opset_imports=opset, ir_version=9), roi=CALIBRATED
    )


def acquire(live, frames=2):
    with Acquisition(image_process_fn=live.image_process_fn, name="theirs") as acquisition:
        acquisition.acquire(multi_d_acquisition_events(num_time_points=frames))


@pytest.mark.parametrize("region", [CALIBRATED, (16, 8, 48, 32)])
def test_each_frame_meets_its_own_pixels_live_and_offline(model, tmp_path, region):
    x, y, width, height = region
    with (
        open_microscope(MicroscopeSettings(exposure_ms=2, roi=region)),
        LiveDenoiser(model, tmp_path / "run", provider="cpu") as live,
    ):
        acquire(live)
    raw = open_stack(tmp_path / "run" / "raw.ome.zarr")
    expected = raw.frame(1) + MAPS[0, 1, y : y + height, x : x + width]
    live_result = open_stack(tmp_path / "run" / "denoised.ome.zarr").frame(1)
    np.testing.assert_array_equal(live_result, expected)
    offline = tmp_path / "offline.ome.zarr"
    denoise_stack(raw, model, offline, provider="cpu")  # the recording says where it lies
    np.testing.assert_array_equal(open_stack(offline).frame(1), expected)


def test_another_region_is_refused_before_the_first_frame(model, tmp_path):
    with open_microscope(MicroscopeSettings(exposure_ms=2, roi=(64, 8, 48, 32))):
        live = LiveDenoiser(model, tmp_path / "run", provider="cpu")
        with pytest.raises(FrameMismatchError, match="knows every pixel of 96×64 pixels at x = 0"):
            live.__enter__()
    assert not (tmp_path / "run").exists()


def frames_of(run):
    """Yield raw, denoised (None if it is absent) and the region of every frame, by its time."""
    found = {}
    for part, place, line in read_frame_log(run / "frames.jsonl"):
        ending = "" if part == 1 else f"-{part}"
        raw = open_stack(run / f"raw{ending}.ome.zarr")
        index = raw.index({"time": place.time, "channel": 0, "z": 0})
        region = raw.attributes["quietscope"]["camera"]["roi"]
        path = run / f"denoised{ending}.ome.zarr"
        denoised = open_stack(path).frame(index) if path.exists() else None
        found[line["axes"]["time"]] = (raw.frame(index), denoised, region)
    return [found[t] for t in sorted(found)]


def move_at(core, places):
    """Return a hook that moves the region between two exposures."""

    def set_camera(event):
        if (place := places.get(event["axes"]["time"])) is not None:
            core.set_roi(*place, 48, 32)
        return event

    return set_camera


@pytest.mark.parametrize("completed_afterwards", [False, True])
def test_a_region_that_moves_in_mid_run_takes_its_pixel_maps_along(
    model, tmp_path, monkeypatch, completed_afterwards
):
    """Of the same size, so that nothing but the tags tells; also for frames denoised later."""
    if completed_afterwards:
        monkeypatch.setattr(DenoiseStage, "_denoise_or_show", lambda self, waiting: None)
    with open_microscope(MicroscopeSettings(exposure_ms=2, roi=(16, 8, 48, 32))) as microscope:
        set_camera = move_at(microscope.core, {3: (20, 10), 6: (16, 8)})
        with (
            LiveDenoiser(model, tmp_path / "run", provider="cpu") as live,
            Acquisition(
                image_process_fn=live.image_process_fn, pre_hardware_hook_fn=set_camera
            ) as acquisition,
        ):
            for event in multi_d_acquisition_events(num_time_points=9):
                acquisition.acquire(event)
    assert live.report["frames_denoised"] == 9
    frames = frames_of(tmp_path / "run")
    assert [tuple(region[:2]) for _, _, region in frames] == (
        [(16, 8)] * 3 + [(20, 10)] * 3 + [(16, 8)] * 3
    )
    for raw, denoised, (x, y, width, height) in frames:
        np.testing.assert_array_equal(raw + MAPS[0, 1, y : y + height, x : x + width], denoised)


def test_frames_of_pixels_that_the_model_does_not_know_are_only_recorded(model, tmp_path):
    with open_microscope(MicroscopeSettings(exposure_ms=2, roi=(16, 8, 48, 32))) as microscope:
        set_camera = move_at(microscope.core, {3: (200, 100), 6: (16, 8)})
        live = LiveDenoiser(model, tmp_path / "run", provider="cpu")

        def whole_run():
            with (
                live,
                Acquisition(
                    image_process_fn=live.image_process_fn, pre_hardware_hook_fn=set_camera
                ) as acquisition,
            ):
                for event in multi_d_acquisition_events(num_time_points=9):
                    acquisition.acquire(event)

        with pytest.raises(FrameMismatchError, match="knows every pixel of 96×64 pixels"):
            whole_run()
    frames = frames_of(tmp_path / "run")
    assert [denoised is None for _, denoised, _ in frames] == [False] * 3 + [True] * 3 + [
        False
    ] * 3
    assert live.report["frames_recorded"] == 9
    assert not live.report["complete"]
