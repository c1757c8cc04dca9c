"""The stream on the real core: what the camera delivers is what stands on the disk."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pycromanager import Acquisition, multi_d_acquisition_events
from scipy import ndimage

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.errors import AcquisitionError, MissingFramesError
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.acquisition.stream.run_directory import read_frame_log
from quietscope.calibration.errors import CameraMismatchError
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.inference.errors import BundleError
from quietscope.inference.runtime.pipeline import FramePipeline
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.directory_lock import is_owned
from quietscope.storage.open_stack import open_stack
from quietscope.storage.written_frames import written_frames

SIDE = 64
BINNING = ("Camera", "Binning")


@pytest.fixture(scope="module")
def microscope():
    settings = MicroscopeSettings(exposure_ms=2, roi=(0, 0, SIDE, SIDE))
    with open_microscope(settings) as opened:
        opened.set_property("Mode", "Noise")  # no two frames are alike
        yield opened


class Smoothing:
    """A real denoiser: the mean over its frames, smoothed."""

    def __init__(self, shape=(SIDE, SIDE), context_frames=0, seconds=0.0):
        self.frame_shape = shape
        self.context_frames = context_frames
        self.seconds = seconds
        self.calls = 0

    def denoise(self, observations, out):
        time.sleep(self.seconds)
        self.calls += 1
        ndimage.gaussian_filter(observations.astype(np.float32).mean(axis=0), 1, output=out[0])
        out[1] = observations.std()

    def close(self):
        pass


def acquire(hook=None, events=None, *, frames=20, saved=None, directory=None):
    """Run an acquisition; return what pycro-manager itself stored, by axes."""
    if events is None:
        events = multi_d_acquisition_events(num_time_points=frames)
    with Acquisition(
        image_process_fn=hook, image_saved_fn=saved, directory=directory, name="theirs"
    ) as acquisition:
        acquisition.acquire(events)
    dataset = acquisition.get_dataset()
    stored = {
        tuple(sorted(axes.items())): dataset.read_image(**axes).copy()
        for axes in dataset.get_image_coordinates_list()
    }
    dataset.close()
    return stored


def axes_of(events):
    return [tuple(sorted(event["axes"].items())) for event in events]


def assert_recorded(run: Path, delivered: dict, part: int = 1) -> None:
    """Compare every raw frame, bit for bit, with what pycro-manager got from the camera."""
    store = run / ("raw.ome.zarr" if part == 1 else f"raw-{part}.ome.zarr")
    stack = open_stack(store)
    found = 0
    for number, place, line in read_frame_log(run / "frames.jsonl"):
        if number != part:
            continue
        axes = {"time": place.time, "channel": place.channel, "z": place.z}
        axes |= {"position": place.position or 0} if "position" in stack.sizes else {}
        frame = stack.frame(stack.index(axes))
        np.testing.assert_array_equal(frame, delivered[tuple(sorted(line["axes"].items()))])
        found += 1
    assert found == len(delivered) == written_frames(store).sum()


def report_of(run: Path) -> dict:
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


# ------------------------------------------------------------------------ tap and sink


def test_tap_leaves_pycromanagers_images_alone_and_records_the_same(microscope, tmp_path):
    with LiveDenoiser(Smoothing(), tmp_path / "my run") as live:
        delivered = acquire(live.image_process_fn, frames=40)
    assert len(delivered) == 40
    assert_recorded(tmp_path / "my run", delivered)
    report = report_of(tmp_path / "my run")
    assert report == json.loads(json.dumps(live.report))
    assert report["frames_delivered"] == report["frames_recorded"] == 40
    assert report["frames_denoised"] == 40
    assert report["complete"]
    assert report["first_missing_frame"] is None
    assert report["simulated"] is True
    stack = open_stack(tmp_path / "my run")
    assert stack.attributes["quietscope"]["camera"] == microscope.fingerprint().model_dump(
        mode="json"
    )
    assert stack.attributes["quietscope"]["exposure_ms"] == 2


@pytest.mark.filterwarnings(  # NDTiff leaves its reader to the garbage collector
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
def test_tap_next_to_pycromanagers_own_files(microscope, tmp_path):
    with LiveDenoiser(output=tmp_path / "run") as live:
        delivered = acquire(live.image_process_fn, frames=10, directory=str(tmp_path / "theirs"))
    assert len(delivered) == 10
    assert_recorded(tmp_path / "run", delivered)


def test_sink_keeps_everything_and_pycromanager_nothing(microscope, tmp_path):
    seen = []
    with LiveDenoiser(output=tmp_path / "run", mode="sink") as live:

        def hook(image, metadata):
            seen.append(image.copy())
            return live.image_process_fn(image, metadata)

        assert acquire(hook, frames=15) == {}
    np.testing.assert_array_equal(list(open_stack(tmp_path / "run")), seen)


def test_frames_stay_as_they_were_whatever_the_script_does_next(microscope, tmp_path):
    seen = []
    with LiveDenoiser(output=tmp_path / "run") as live:

        def hook(image, metadata):
            seen.append(image.copy())
            result = live.image_process_fn(image, metadata)
            image[:] = 0  # the script goes on working on the same memory
            metadata["Axes"]["time"] = 99
            assert result[0] is image

        acquire(hook, frames=10)
    np.testing.assert_array_equal(list(open_stack(tmp_path / "run")), seen)


@pytest.mark.filterwarnings(  # NDTiff leaves its reader to the garbage collector
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("pixel_type", ["16bit", "8bit"])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_image_saved_fn_reads_what_the_camera_gave(microscope, tmp_path, where, pixel_type):
    """From the disk too, where pycro-manager's reader mixes in what it had read ahead."""
    given = {}

    def keep(image, metadata):
        given[tuple(sorted(metadata["Axes"].items()))] = image.copy()
        return image, metadata

    microscope.core.set_property("Camera", "PixelType", pixel_type)
    directory = str(tmp_path / "theirs") if where == "disk" else None
    try:
        with LiveDenoiser(Smoothing(), tmp_path / "run") as live:
            acquire(keep, saved=live.image_saved_fn, frames=30, directory=directory)
    finally:
        microscope.core.set_property("Camera", "PixelType", "16bit")
    assert_recorded(tmp_path / "run", given)
    assert report_of(tmp_path / "run")["frames_denoised"] == 30


def test_metadata_of_every_frame_is_kept(microscope, tmp_path):
    with LiveDenoiser(output=tmp_path / "run") as live:
        acquire(live.image_process_fn, frames=5)
    lines = [line for _, _, line in read_frame_log(tmp_path / "run" / "frames.jsonl")]
    assert [line["index"] for line in lines] == list(range(5))
    assert [line["axes"] for line in lines] == [{"time": t} for t in range(5)]
    assert all(line["metadata"]["Camera"] == "Camera" for line in lines)
    assert all(line["metadata"]["Exposure"] == 2.0 for line in lines)


# --------------------------------------------------------------------- kinds of acquisition


EVENTS = {
    "hardware sequence": {"num_time_points": 30},
    "timed": {"num_time_points": 4, "time_interval_s": 0.02},
    "planes": {"num_time_points": 2, "z_start": 0, "z_end": 4, "z_step": 1},
    "channels": {"num_time_points": 3, "channel_group": "Channel", "channels": ["DAPI", "FITC"]},
    "positions": {"num_time_points": 3, "xy_positions": [(0, 0), (5, 5), (9, 9)]},
    "position after position": {
        "num_time_points": 4,
        "xy_positions": [(0, 0), (5, 5)],
        "order": "ptzc",
    },
    "labelled positions": {
        "num_time_points": 2,
        "xy_positions": [(0, 0), (5, 5)],
        "position_labels": ["A1-Site_0", "B1-Site_0"],
    },
    "everything": {
        "num_time_points": 2,
        "z_start": 0,
        "z_end": 1,
        "z_step": 1,
        "channel_group": "Channel",
        "channels": ["DAPI", "Cy5"],
        "xy_positions": [(0, 0), (3, 3)],
    },
    "one image": {},
}


@pytest.mark.parametrize("name", EVENTS)
def test_every_frame_of_every_kind_of_acquisition(microscope, tmp_path, name):
    events = multi_d_acquisition_events(**EVENTS[name]) if EVENTS[name] else [{"axes": {"img": 0}}]
    with LiveDenoiser(Smoothing(context_frames=1), tmp_path / "run") as live:
        delivered = acquire(live.image_process_fn, events)
    assert sorted(delivered, key=str) == sorted(axes_of(events), key=str)
    assert_recorded(tmp_path / "run", delivered)
    report = report_of(tmp_path / "run")
    assert report["frames_denoised"] == report["frames_recorded"] == len(events)
    assert written_frames(tmp_path / "run" / "denoised.ome.zarr").sum() == len(events)


def test_channels_are_named_and_shown_alike_in_both_stores(microscope, tmp_path):
    events = multi_d_acquisition_events(**EVENTS["channels"])
    with LiveDenoiser(Smoothing(seconds=0.05), tmp_path / "run") as live:
        acquire(live.image_process_fn, events)
    raw, denoised = (
        open_stack(tmp_path / "run" / name) for name in ("raw.ome.zarr", "denoised.ome.zarr")
    )
    assert raw.channel_names == denoised.channel_names == ("DAPI", "FITC")
    seen = np.percentile(raw.channel(0).frame(0), [0.1, 99.9])
    np.testing.assert_allclose(raw.display_ranges[0], seen)
    assert raw.display_ranges == denoised.display_ranges


def test_a_hardware_sequence_is_one(microscope, tmp_path):
    """The camera numbers the images of a sequence; single exposures carry no number."""
    with LiveDenoiser(output=tmp_path / "run") as live:
        acquire(live.image_process_fn, frames=30)
    lines = [line for _, _, line in read_frame_log(tmp_path / "run" / "frames.jsonl")]
    assert [int(line["metadata"]["ImageNumber"]) for line in lines] == list(range(30))


def test_trust_figures_are_those_of_their_channel(tmp_path, make_bundle):
    models = {"dim": make_bundle("dim"), "bright": make_bundle("bright")}
    camera = np.random.default_rng(0)
    with LiveDenoiser(models, tmp_path / "run", provider="cpu") as live:
        for t in range(4):
            for channel, level in (("dim", 50), ("bright", 70_000)):
                image = np.minimum(camera.poisson(level, (SIDE, SIDE)), 65535).astype("uint16")
                live.image_process_fn(image, {"Axes": {"time": t, "channel": channel}})
                time.sleep(0.05)
    report = report_of(tmp_path / "run")
    assert report["trust"] is None  # of which channel?
    trust = report["trust_by_channel"]
    assert set(trust) == {"dim", "bright"}
    assert trust["dim"]["saturated_share"] == 0
    assert trust["bright"]["saturated_share"] > 0.9


def test_a_model_for_each_channel(microscope, tmp_path):
    models = {"DAPI": Smoothing(), "FITC": Smoothing()}
    events = multi_d_acquisition_events(
        num_time_points=3, channel_group="Channel", channels=["DAPI", "FITC", "Cy5"]
    )
    with LiveDenoiser(models, tmp_path / "run") as live:
        acquire(live.image_process_fn, events)
    assert models["DAPI"].calls == models["FITC"].calls == 3
    report = report_of(tmp_path / "run")
    assert (report["frames_denoised"], report["frames_without_model"]) == (6, 3)
    assert report["complete"]


def test_a_frame_without_a_model_keeps_none_in_the_pipeline(tmp_path, monkeypatch):
    """On a GPU a result comes out with a later frame; here two lanes do the same."""
    monkeypatch.setattr(
        "quietscope.acquisition.stream.channel_denoisers.FramePipeline",
        lambda lanes: FramePipeline([*lanes, *lanes]),
    )
    both_came = threading.Event()

    class Slow(Smoothing):
        def denoise(self, observations, out):
            both_came.wait(10)
            super().denoise(observations, out)

    image = np.full((SIDE, SIDE), 100, "uint16")
    with LiveDenoiser({"DAPI": Slow()}, tmp_path / "run", complete_afterwards=False) as live:
        for channel in ("DAPI", "Cy5"):
            live.image_process_fn(image, {"Axes": {"time": 0, "channel": channel}})
        end = time.monotonic() + 10
        while live.report["frames_without_model"] == 0 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        both_came.set()
        while live.report["frames_denoised"] == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert live.report["frames_denoised"] == 1


def test_events_that_a_script_adds_while_it_runs(microscope, tmp_path):
    with LiveDenoiser(output=tmp_path / "run") as live:

        def hook(image, metadata, queue):
            t = metadata["Axes"]["time"]
            queue.put({"axes": {"time": t + 1}} if t < 9 else None)
            return live.image_process_fn(image, metadata)

        acquisition = Acquisition(image_process_fn=hook)
        acquisition.acquire({"axes": {"time": 0}})
        acquisition.await_completion()
        dataset = acquisition.get_dataset()
    delivered = {(("time", t),): dataset.read_image(time=t) for t in range(10)}
    assert_recorded(tmp_path / "run", delivered)


def test_two_acquisitions_in_one_run_do_not_overwrite_each_other(microscope, tmp_path):
    with LiveDenoiser(Smoothing(context_frames=2), tmp_path / "run") as live:
        first = acquire(live.image_process_fn, frames=6)
        second = acquire(live.image_process_fn, frames=8)
    frames = list(open_stack(tmp_path / "run" / "raw.ome.zarr" / "0"))
    np.testing.assert_array_equal(frames, [first[(("time", t),)] for t in range(6)])
    frames = list(open_stack(tmp_path / "run" / "raw.ome.zarr" / "1"))
    np.testing.assert_array_equal(frames, [second[(("time", t),)] for t in range(8)])
    assert report_of(tmp_path / "run")["frames_denoised"] == 14


def test_a_region_and_a_binning_that_change_within_a_run(microscope, tmp_path):
    """Each shape has its own pair of stores; a bundle would get a session for each."""
    with LiveDenoiser(output=tmp_path / "run") as live:
        full = acquire(live.image_process_fn, frames=5)
        microscope.core.set_roi(8, 8, 32, 16)
        small = acquire(live.image_process_fn, frames=4)
        microscope.core.set_roi(0, 0, SIDE, SIDE)
        again = acquire(live.image_process_fn, frames=3)
    assert {f.shape for f in small.values()} == {(16, 32)}
    stack = open_stack(tmp_path / "run" / "raw-2.ome.zarr")
    np.testing.assert_array_equal(list(stack), [small[(("time", t),)] for t in range(4)])
    for folder, frames in (("0", full), ("1", again)):
        stack = open_stack(tmp_path / "run" / "raw.ome.zarr" / folder)
        np.testing.assert_array_equal(list(stack), [frames[k] for k in sorted(frames)])


def test_binning_and_pixel_type_change_within_one_acquisition(microscope, tmp_path):
    """The user's own hook sets the camera between two images."""
    core = microscope.core
    changes = {0: ("Binning", "1"), 4: ("Binning", "2"), 7: ("PixelType", "8bit")}
    seen = {}

    def set_camera(event):
        name, value = changes.get(event["axes"]["time"], ("Binning", core.get_property(*BINNING)))
        core.set_property("Camera", name, value)
        return event

    with LiveDenoiser(output=tmp_path / "run", mode="sink") as live:

        def hook(image, metadata):
            seen[metadata["Axes"]["time"]] = image.copy()
            return live.image_process_fn(image, metadata)

        try:
            with Acquisition(
                image_process_fn=hook, pre_hardware_hook_fn=set_camera
            ) as acquisition:
                for event in multi_d_acquisition_events(num_time_points=10):
                    acquisition.acquire(event)
        finally:
            core.set_property("Camera", "PixelType", "16bit")
            core.set_property("Camera", "Binning", "1")
            core.set_roi(0, 0, SIDE, SIDE)
    kinds = [(seen[t].shape, seen[t].dtype.name) for t in range(10)]
    assert len(set(kinds)) == 3, kinds
    found = 0
    for part, place, line in read_frame_log(tmp_path / "run" / "frames.jsonl"):
        name = "raw.ome.zarr" if part == 1 else f"raw-{part}.ome.zarr"
        stack = open_stack(tmp_path / "run" / name)
        axes = {"time": place.time, "channel": place.channel, "z": place.z}
        image = seen[line["axes"]["time"]]
        np.testing.assert_array_equal(stack.frame(stack.index(axes)), image)
        found += 1
    assert found == 10
    assert live.report["complete"]


def test_a_new_region_builds_a_new_session(microscope, tmp_path, make_bundle):
    bundle = make_bundle(context_frames=1)
    with LiveDenoiser(bundle, tmp_path / "run", provider="cpu") as live:
        acquire(live.image_process_fn, frames=5)
        microscope.core.set_roi(8, 8, 32, 16)
        acquire(live.image_process_fn, frames=4)
        microscope.core.set_roi(0, 0, SIDE, SIDE)
    report = report_of(tmp_path / "run")
    assert report["frames_denoised"] == 9
    assert report["provider"] == "CPUExecutionProvider"
    assert open_stack(tmp_path / "run" / "denoised-2.ome.zarr").frame_shape == (16, 32)


def test_a_denoiser_class_is_built_for_each_region(microscope, tmp_path):
    class Half:
        context_frames = 0

        def __init__(self, frame_shape):
            self.frame_shape = frame_shape

        def denoise(self, observations, out):
            out[:] = observations[0] / 2

        def close(self):
            pass

    with LiveDenoiser(Half, tmp_path / "run") as live:
        for shape in ((8, 8), (8, 16)):
            for t in range(3):
                image = np.full(shape, 100 + t, "uint16")
                live.image_process_fn(image, {"Axes": {"time": t}})
    for name in ("denoised.ome.zarr", "denoised-2.ome.zarr"):
        values = [float(frame.mean()) for frame in open_stack(tmp_path / "run" / name)]
        assert values == [50, 50.5, 51]


def test_eight_bits(microscope, tmp_path):
    microscope.core.set_property("Camera", "PixelType", "8bit")
    try:
        with LiveDenoiser(Smoothing(), tmp_path / "run") as live:
            delivered = acquire(live.image_process_fn, frames=6)
    finally:
        microscope.core.set_property("Camera", "PixelType", "16bit")
    assert_recorded(tmp_path / "run", delivered)
    assert open_stack(tmp_path / "run").dtype == np.uint8


def test_several_cameras_are_told_apart(microscope, tmp_path):
    """The multi-camera device of the real core gives both images the same axes."""
    core = microscope.core
    core.load_device("Second", "DemoCamera", "DCam")
    core.load_device("Both", "Utilities", "Multi Camera")
    core.initialize_device("Second")
    core.initialize_device("Both")
    core.set_property("Second", "PixelType", "16bit")
    core.set_property("Second", "BitDepth", "16")
    core.set_property("Both", "Physical Camera 1", "Camera")
    core.set_property("Both", "Physical Camera 2", "Second")
    core.set_camera_device("Second")
    core.set_roi(0, 0, SIDE, SIDE)
    core.set_camera_device("Both")
    seen = []
    try:
        with LiveDenoiser(output=tmp_path / "run", mode="sink") as live:

            def hook(image, metadata):
                seen.append((metadata["Camera"], metadata["Axes"]["time"], image.copy()))
                return live.image_process_fn(image, metadata)

            acquire(hook, frames=6)
    finally:
        core.set_camera_device("Camera")
        core.unload_device("Both")
        core.unload_device("Second")
    store = tmp_path / "run" / "raw.ome.zarr"
    found = 0
    for number, (_, place, line) in enumerate(read_frame_log(tmp_path / "run" / "frames.jsonl")):
        camera, t, image = seen[number]
        assert line["axes"] == {"time": t, "camera": camera}
        folder = store if place.position is None else store / str(place.position)
        # The engine may take two images of one camera for two cameras; none is lost for that.
        stack = open_stack(
            store / "0" if place.position is None and (store / "OME").is_dir() else folder
        )
        assert stack.channel_names[place.channel] == camera
        axes = {"time": place.time, "channel": place.channel, "z": 0}
        np.testing.assert_array_equal(stack.frame(stack.index(axes)), image)
        found += 1
    assert found == len(seen) == 12


def test_a_model_for_each_camera(tmp_path, make_bundle):
    """Also in each channel, or in one channel of one camera; the stores name what was used."""
    models = {"left": make_bundle("a"), "GFP right": make_bundle("b", radius=2)}
    with LiveDenoiser(models, tmp_path / "run", provider="cpu") as live:
        for t in range(3):
            for channel in ("GFP", "RFP"):
                for camera in ("left", "right"):
                    axes = {"time": t, "channel": channel}
                    image = np.full((8, 8), 100, "uint16")
                    live.image_process_fn(image, {"Axes": axes, "Camera": camera})
    report = live.report
    assert (report["frames_denoised"], report["frames_without_model"]) == (9, 3)
    assert report["complete"]
    about = open_stack(tmp_path / "run" / "denoised.ome.zarr").attributes["quietscope"]["models"]
    hashes = {name: bundle["model_sha256"] for name, bundle in about.items()}
    assert hashes["left"] != hashes["GFP right"]


def test_a_second_camera_that_appears_late_is_told_apart(tmp_path):
    with LiveDenoiser(output=tmp_path / "run") as live:
        for t in range(3):
            for number, camera in enumerate(("left", "right")):
                image = np.full((8, 8), 10 * t + number, "uint16")
                live.image_process_fn(image, {"Axes": {"time": t}, "Camera": camera})
    stack = open_stack(tmp_path / "run")
    assert stack.sizes == {"time": 3, "channel": 2, "z": 1}
    assert [int(f[0, 0]) for f in stack] == [0, 1, 10, 11, 20, 21]


# ------------------------------------------------------------------------------ denoising


def test_skipping_live_never_changes_the_stored_result(microscope, tmp_path):
    """A denoiser that is too slow and one that is not write the same store, with context."""
    frames = np.random.default_rng(0).poisson(100, (40, SIDE, SIDE)).astype("uint16")

    def run(name, seconds):
        denoiser = Smoothing(context_frames=2, seconds=seconds)
        with LiveDenoiser(denoiser, tmp_path / name) as live:
            for t, frame in enumerate(frames):
                live.image_process_fn(frame, {"Axes": {"time": t}})
                time.sleep(0.004)
        return live.report, np.stack(list(open_stack(tmp_path / name / "denoised.ome.zarr")))

    slow, from_slow = run("slow", 0.05)
    quick, from_quick = run("quick", 0.0)
    assert slow["frames_skipped_live"] >= 20
    assert quick["frames_skipped_live"] < slow["frames_skipped_live"]
    for report in (slow, quick):
        assert report["frames_denoised"] == report["frames_recorded"] == 40
        assert report["frames_denoised_live"] + report["frames_denoised_afterwards"] == 40
        assert report["frames_denoised_afterwards"] == report["frames_skipped_live"]
    np.testing.assert_array_equal(from_slow, from_quick)


def test_context_comes_from_the_same_channel_plane_and_position(tmp_path):
    given = {}

    class Spy(Smoothing):
        def denoise(self, observations, out):
            given[int(observations[0, 0, 0])] = [int(frame[0, 0]) for frame in observations[1:]]
            super().denoise(observations, out)

    with LiveDenoiser(Spy((8, 8), context_frames=2), tmp_path / "run") as live:
        for t in range(4):
            for c in range(2):
                for p in range(2):
                    code = 100 + 10 * t + 2 * c + p
                    axes = {"time": t, "channel": c, "position": p}
                    live.image_process_fn(np.full((8, 8), code, "uint16"), {"Axes": axes})
    assert len(given) == 16
    for code, earlier in given.items():
        t = (code - 100) // 10
        assert earlier == [code - 10 * back if back <= t else 0 for back in (1, 2)]


def test_a_bundle_is_named_in_what_it_denoised(microscope, tmp_path, make_bundle):
    bundle = make_bundle()
    with LiveDenoiser(bundle, tmp_path / "run", provider="cpu") as live:
        acquire(live.image_process_fn, frames=5)
    report = live.report
    about = open_stack(tmp_path / "run" / "denoised.ome.zarr").attributes["quietscope"]
    assert about["model_sha256"] == report["model_sha256"]
    assert len(about["noise_model_sha256"]) == 64
    assert report["trust"]["residual_explained"] > 0
    assert report["seconds_to_first_denoised_frame"] > 0


@pytest.mark.filterwarnings(  # NDTiff leaves its reader to the garbage collector
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_without_a_recording_of_ours_skipped_frames_come_from_pycromanagers(
    microscope, tmp_path, where
):
    directory = str(tmp_path / "theirs") if where == "disk" else None
    with LiveDenoiser(Smoothing(seconds=0.03), tmp_path / "run", record=False) as live:
        with Acquisition(directory, "a", image_process_fn=live.image_process_fn) as acquisition:
            acquisition.acquire(multi_d_acquisition_events(num_time_points=20))
        dataset = acquisition.get_dataset()
        live.complete_from(dataset)
    assert not (tmp_path / "run" / "raw.ome.zarr").exists()
    assert live.report["frames_skipped_live"] > 0
    assert live.report["frames_denoised"] == 20
    expected = np.empty((2, SIDE, SIDE), np.float32)
    for t, frame in enumerate(open_stack(tmp_path / "run" / "denoised.ome.zarr")):
        Smoothing().denoise(dataset.read_image(time=t)[np.newaxis], expected)
        np.testing.assert_array_equal(frame, expected[0])
    dataset.close()


# ------------------------------------------------------------------------------- refusals


def test_a_model_of_another_camera_is_refused_by_name(microscope, tmp_path, make_bundle):
    bundle = make_bundle(camera="DemoCamera-MultiMode", binning="2")
    with (
        pytest.raises(CameraMismatchError, match="binning is 1, calibrated with 2"),
        LiveDenoiser(bundle, tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_force_takes_it_and_says_so(microscope, tmp_path, make_bundle):
    bundle = make_bundle(binning="2")
    with LiveDenoiser(bundle, tmp_path / "run", force=True, provider="cpu") as live:
        acquire(live.image_process_fn, frames=3)
    assert live.report["forced"] == ["binning is 1, calibrated with 2"]
    about = open_stack(tmp_path / "run" / "denoised.ome.zarr").attributes["quietscope"]
    assert about["forced"] == ["binning is 1, calibrated with 2"]


def test_a_camera_that_is_named_counts_instead_of_the_running_one(tmp_path, make_bundle):
    bundle = make_bundle(camera="Andor")
    with pytest.raises(CameraMismatchError, match="camera is Prime, calibrated with Andor"):
        LiveDenoiser(
            bundle, tmp_path / "run", camera=CameraFingerprint(camera="Prime")
        ).__enter__()


def test_a_missing_model_is_found_before_anything_starts(tmp_path):
    with pytest.raises(BundleError, match="no model bundle"):
        LiveDenoiser(tmp_path / "nothing", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_over(microscope, tmp_path):
    with LiveDenoiser(output=tmp_path / "run") as live:
        acquire(live.image_process_fn, frames=2)
    with pytest.raises(OutputError, match="--overwrite"), LiveDenoiser(output=tmp_path / "run"):
        pass
    with LiveDenoiser(output=tmp_path / "run", overwrite=True) as live:
        acquire(live.image_process_fn, frames=3)
    assert len(open_stack(tmp_path / "run")) == 3


def test_too_small_a_disk_is_found_before_the_start(microscope, tmp_path):
    with (
        pytest.raises(OutputError, match="of disk space"),
        LiveDenoiser(output=tmp_path / "run", expected_frames=10**12),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_images_outside_the_block_are_refused(tmp_path):
    live = LiveDenoiser(output=tmp_path / "run")
    image = np.zeros((8, 8), "uint16")
    with pytest.raises(AcquisitionError, match="before the LiveDenoiser's `with` block"):
        live.image_process_fn(image, {"Axes": {"time": 0}})
    with live:
        live.image_process_fn(image, {"Axes": {"time": 0}})
    with pytest.raises(AcquisitionError, match="after the LiveDenoiser's `with` block"):
        live.image_process_fn(image, {"Axes": {"time": 1}})


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), "uint8"), np.zeros((8, 8), "float32"), np.zeros((8, 8), "int32")]
)
def test_colour_and_odd_pixels_are_refused(tmp_path, image):
    """The script learns of it at once and again at the end, and the report is not complete."""
    live = LiveDenoiser(output=tmp_path / "run")

    def deliver():
        with live:
            live.image_process_fn(np.ones((8, 8), "uint16"), {"Axes": {"time": 0}})
            with pytest.raises(AcquisitionError, match="expected a grey image"):
                live.image_process_fn(image, {"Axes": {"time": 1}})

    with pytest.raises(AcquisitionError, match="expected a grey image"):
        deliver()
    report = report_of(tmp_path / "run")
    counts = ("frames_delivered", "frames_recorded", "frames_refused")
    assert [report[count] for count in counts] == [1, 1, 1]
    assert not report["complete"]
    assert "expected a grey image" in report["errors"][0]


@pytest.mark.parametrize("options", [{"mode": "both"}, {"mode": "sink", "record": False}])
def test_contradictions_are_refused(tmp_path, options):
    with pytest.raises(AcquisitionError, match="mode"):
        LiveDenoiser(output=tmp_path / "run", **options)


# ------------------------------------------------------------------------------ accounting


def test_a_gap_in_the_cameras_numbers_is_found_and_named(tmp_path):
    numbers = [0, 1, 2, 5, 6, 0, 1, 3]
    live = LiveDenoiser(output=tmp_path / "run")

    def deliver():
        with live:
            for t, number in enumerate(numbers):
                image = np.full((8, 8), t, "uint16")
                metadata = {"Axes": {"time": t}, "Camera": "c", "ImageNumber": str(number)}
                live.image_process_fn(image, metadata)

    with pytest.raises(MissingFramesError, match=r"3 frames .* first frame 3"):
        deliver()
    report = report_of(tmp_path / "run")
    assert (report["first_missing_frame"], report["frames_missing"]) == (3, 3)
    assert report["frames_recorded"] == len(numbers)
    assert "frame 3: the camera counted 2 frames" in (tmp_path / "run" / "events.log").read_text(
        encoding="utf-8"
    )


def test_no_thread_and_no_lock_is_left_behind(microscope, tmp_path):
    before = set(threading.enumerate())
    with LiveDenoiser(Smoothing(), tmp_path / "run") as live:
        names = {t.name for t in set(threading.enumerate()) - before}
        sync = {"quietscope disk sync"}  # ends at once where the system cannot be asked
        assert names - sync == {"quietscope recorder", "quietscope denoiser"}
        acquire(live.image_process_fn, frames=3)
    assert not [t for t in threading.enumerate() if t.name.startswith("quietscope")]
    assert not is_owned(tmp_path / "run")
