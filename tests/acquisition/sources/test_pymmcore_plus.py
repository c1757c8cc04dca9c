"""Sequences of the real pymmcore-plus into a run, and everything that can end one.

What is recorded is compared with what pymmcore-plus gave another listener at the same moment.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.errors import AcquisitionError, MissingFramesError
from quietscope.acquisition.microscope.core import close_core
from quietscope.acquisition.stream.recorder import Recorder
from quietscope.calibration.errors import CameraMismatchError
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.open_stack import open_stack

_level = logging.getLogger().level
pymmcore_plus = pytest.importorskip("pymmcore_plus", reason="needs the extra pymmcore")
# It lets every library of the process log in detail, which no other test's remarks are.
logging.getLogger().setLevel(_level)
useq = pytest.importorskip("useq")

SIDE = 64
THREADS_FAIL = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def mmc(monkeypatch):
    monkeypatch.setenv("PYMM_SIGNALS_BACKEND", "psygnal")
    close_core()
    core = pymmcore_plus.CMMCorePlus.instance()
    core.loadSystemConfiguration()
    core.setExposure(1)
    core.setROI(0, 0, SIDE, SIDE)
    yield core
    core.mda.cancel()
    core.reset()


def images(frames, **axes):
    return useq.MDASequence(time_plan={"interval": 0, "loops": frames}, **axes)


def one_by_one(frames):
    """Events that no hardware sequence joins."""
    return useq.MDASequence(time_plan={"interval": 1e-6, "loops": frames})


@contextmanager
def seen(core):
    """Yield what the core gives meanwhile, in its own thread: (index, pixels)."""
    found = []

    def note(image, event):
        found.append(({str(k.value): v for k, v in event.index.items()}, image.copy()))

    core.mda.events.frameReady.connect(note)
    yield found
    core.mda.events.frameReady.disconnect(note)


@contextmanager
def after(core, frames, action):
    """Do something to the sequence when so many images have come."""
    count = 0

    def look(*_):
        nonlocal count
        count += 1
        if count == frames:
            action()

    core.mda.events.frameReady.connect(look)
    yield
    core.mda.events.frameReady.disconnect(look)


def test_every_axis_reaches_the_store(mmc, tmp_path):
    sequence = images(
        2,
        channels=[{"config": "DAPI", "exposure": 2}, {"config": "FITC", "exposure": 3}],
        z_plan={"range": 4, "step": 2},
        stage_positions=[(0, 0, 10), {"x": 50, "y": 0, "z": 10, "name": "edge"}],
        grid_plan={"rows": 1, "columns": 2},
        axis_order="tpgcz",
    )
    with seen(mmc) as given, LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(sequence, output=live)
    stack = open_stack(tmp_path / "run" / "raw.ome.zarr")
    assert stack.sizes == {"position": 4, "time": 2, "channel": 2, "z": 3}
    assert stack.channel_names == ("DAPI", "FITC")
    assert stack.z_step_um == 2
    assert stack.pixel_size_yx_um == (1.0, 1.0)
    assert len(given) == 48
    for index, pixels in given:
        place = {"position": 2 * index["p"] + index["g"], "time": index["t"]}
        frame = stack.index({**place, "channel": index["c"], "z": index["z"]})
        np.testing.assert_array_equal(stack.frame(frame), pixels)
    report = live.report
    assert report["frames_recorded"] == 48
    assert report["camera"]["camera"] == "DemoCamera-MultiMode"
    assert report["camera"]["roi"] == [0, 0, SIDE, SIDE]
    assert report["simulated"] is True
    assert '"edge"' in (tmp_path / "run" / "frames.jsonl").read_text()
    store = (tmp_path / "run" / "raw.ome.zarr" / "zarr.json").read_text()
    assert '"exposures_ms"' in store


def test_an_image_whose_place_cannot_be_read_is_said(mmc, tmp_path):
    image, event = np.full((SIDE, SIDE), 7, np.uint16), useq.MDAEvent(index={"t": 0})
    live = LiveDenoiser(output=tmp_path / "run")

    def acquire():
        with live:
            live.frameReady(image, event, {})
            live.frameReady(image, event, {"property_values": [{"of another": "kind"}]})

    with pytest.raises(AcquisitionError, match="without what names its place") as said:
        acquire()
    assert "\n" not in str(said.value)
    assert (live.report["frames_recorded"], live.report["frames_refused"]) == (1, 1)


def test_without_a_queue_between(mmc, tmp_path):
    from pymmcore_plus.mda import mda_listeners_connected

    with LiveDenoiser(output=tmp_path / "run", mode="sink") as live:
        listening = mda_listeners_connected(live, mda_events=mmc.mda.events, asynchronous=False)
        with listening:
            mmc.mda.run(images(20))
    assert live.report["frames_recorded"] == 20
    assert live.report["hook_ms"]["p50"] > 0


UNDER_QT = """
import sys
from qtpy.QtWidgets import QApplication
application = QApplication([])
import useq
from pymmcore_plus import CMMCorePlus
from quietscope.acquisition import LiveDenoiser

mmc = CMMCorePlus.instance()
mmc.loadSystemConfiguration()
mmc.setROI(0, 0, 64, 64)
plan = useq.MDASequence(time_plan={"interval": 1e-6, "loops": 50})
with LiveDenoiser(output=sys.argv[1]) as live:
    mmc.run_mda(plan, output=live)
print(type(mmc.mda.events).__name__, live.report["frames_recorded"])
"""


def test_where_qt_is_and_its_event_loop_waits(tmp_path):
    """In napari-micromanager, say: the queue would go by way of the thread that waits."""
    pytest.importorskip("qtpy", reason="pymmcore-plus needs it for signals of Qt")
    done = subprocess.run(
        [sys.executable, "-c", UNDER_QT, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.stdout.split() == ["QMDASignaler", "50"], done.stdout + done.stderr


def test_listeners_that_fail_keep_no_image_away(mmc, tmp_path):
    def fail(*_):
        raise ValueError("somebody else's")

    mmc.mda.events.frameReady.connect(fail)
    with LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(images(3), output=live)
    mmc.mda.events.frameReady.disconnect(fail)
    assert live.report["frames_recorded"] == 3


def test_another_core_by_its_name_or_over_the_queue(mmc, tmp_path):
    other = pymmcore_plus.CMMCorePlus()
    other.loadSystemConfiguration()
    other.setROI(0, 0, 32, 32)
    for name, asked in (("named", other), ("over the queue", None)):
        with LiveDenoiser(output=tmp_path / name, microscope=asked) as live:
            other.run_mda(images(20), output=live)
        assert live.report["frames_recorded"] == 20


def test_a_sequence_of_unknown_length(mmc, tmp_path):
    def events():
        for _ in range(5):
            yield useq.MDAEvent()

    with LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(events(), output=live)
    assert live.report["frames_recorded"] == 5
    assert open_stack(tmp_path / "run" / "raw.ome.zarr").sizes["time"] == 5


def test_autofocus_takes_no_image(mmc, tmp_path):
    sequence = images(
        2,
        stage_positions=[(0, 0, 0), (10, 0, 0)],
        autofocus_plan={"autofocus_motor_offset": 1, "axes": ("p",)},
        axis_order="tpcz",
    )
    with LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(sequence, output=live)
    assert live.report["frames_recorded"] == 4
    assert live.report["errors"] == []


def test_two_cameras_are_two_channels(mmc, tmp_path):
    mmc.loadDevice("Second", "DemoCamera", "DCam")
    mmc.initializeDevice("Second")
    mmc.setProperty("Second", "PixelType", "16bit")
    mmc.loadDevice("Both", "Utilities", "Multi Camera")
    mmc.initializeDevice("Both")
    mmc.setProperty("Both", "Physical Camera 1", "Camera")
    mmc.setProperty("Both", "Physical Camera 2", "Second")
    mmc.setCameraDevice("Both")
    mmc.clearROI()
    mmc.setExposure(1)
    with LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(one_by_one(3), output=live)
    assert live.report["frames_recorded"] == 6
    stack = open_stack(tmp_path / "run" / "raw.ome.zarr")
    assert stack.sizes == {"time": 3, "channel": 2, "z": 1}
    assert set(stack.channel_names) == {"Camera", "Second"}


def test_a_region_that_moves_begins_another_part(mmc, tmp_path):
    """Between two sequences, and by an event within one."""
    moved = [useq.MDAEvent(), useq.MDAEvent(roi=(32, 16, SIDE, SIDE)), useq.MDAEvent()]
    with LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(images(3), output=live).join()
        mmc.setROI(16, 0, SIDE, SIDE)
        mmc.run_mda(images(2), output=live).join()
        mmc.run_mda(moved, output=live)
    assert live.report["frames_recorded"] == 8
    frames = {
        name: len(open_stack(tmp_path / "run" / f"{name}.ome.zarr"))
        for name in ("raw", "raw-2", "raw-3")
    }
    assert frames == {"raw": 3, "raw-2": 3, "raw-3": 2}


def test_what_a_sequence_sets_at_the_camera_is_known_for_the_frame(mmc, tmp_path):
    events = [
        useq.MDAEvent(),
        useq.MDAEvent(properties=[("Camera", "Photon Conversion Factor", 1)]),
        useq.MDAEvent(properties=[("Camera", "Gain", 3)]),
    ]
    with LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(events, output=live)
    log = (tmp_path / "run" / "events.log").read_text()
    assert live.report["frames_recorded"] == 3
    assert log.count("recording 64×64") == 2, "1 is 1.0000, but gain 3 is another camera"
    assert "gain setting is Gain=3" in log


def test_a_model_of_another_camera_is_refused_before_anything_runs(mmc, tmp_path, make_bundle):
    other = make_bundle(camera="Another")
    with pytest.raises(CameraMismatchError), LiveDenoiser(other, tmp_path / "run"):
        pass


def test_a_cancelled_sequence_is_no_error(mmc, tmp_path):
    with after(mmc, 5, mmc.mda.cancel), LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(one_by_one(1000), output=live)
    assert live.report["frames_recorded"] == 5
    assert "was cancelled" in (tmp_path / "run" / "events.log").read_text()


@THREADS_FAIL
def test_an_error_of_the_engine_is_raised_with_its_reason(mmc, tmp_path):
    events = [useq.MDAEvent(), useq.MDAEvent(), useq.MDAEvent(properties=[("Wheel", "State", 1)])]

    class Breaking(pymmcore_plus.mda.MDAEngine):
        def setup_event(self, event):
            if event.properties:
                raise RuntimeError("the filter wheel is stuck")
            super().setup_event(event)

    before = mmc.mda.set_engine(Breaking(mmc))
    try:
        with (
            pytest.raises(AcquisitionError, match="the filter wheel is stuck"),
            LiveDenoiser(output=tmp_path / "run") as live,
        ):
            mmc.run_mda(events, output=live)
    finally:
        mmc.mda.set_engine(before)
    assert live.report["frames_recorded"] == 2


def test_images_that_the_engine_leaves_out_are_missed(mmc, tmp_path):
    class Skipping(pymmcore_plus.mda.MDAEngine):
        def setup_event(self, event):
            if event.index["t"] == 2:
                raise pymmcore_plus.mda.SkipEvent
            super().setup_event(event)

    before = mmc.mda.set_engine(Skipping(mmc, use_hardware_sequencing=False))
    try:
        with (
            pytest.raises(MissingFramesError, match="4 of 5 planned frames"),
            LiveDenoiser(output=tmp_path / "run") as live,
        ):
            mmc.run_mda(images(5), output=live)
    finally:
        mmc.mda.set_engine(before)
    assert live.report["frames_recorded"] == 4


def test_a_full_disk_cancels_the_sequence(mmc, tmp_path):
    with (
        pytest.raises(OutputError, match="nearly full"),
        LiveDenoiser(output=tmp_path / "run", reserve_bytes=2**60) as live,
    ):
        mmc.run_mda(one_by_one(100_000), output=live)
    assert live.report["frames_recorded"] == 0


@THREADS_FAIL
def test_another_output_that_fails_is_named(mmc, tmp_path):
    class Failing:
        def frameReady(self, image):
            raise ValueError("no space in the other one")

    with (
        pytest.raises(AcquisitionError, match="another output of the sequence failed"),
        LiveDenoiser(output=tmp_path / "run") as live,
    ):
        mmc.run_mda(one_by_one(4), output=[live, Failing()])
    assert live.report["frames_recorded"] == 4


def test_an_error_in_the_block_stops_the_sequence(mmc, tmp_path):
    began = time.monotonic()
    for_ten_minutes = useq.MDASequence(time_plan={"interval": 60, "loops": 10})
    with (  # noqa: PT012 - the sequence runs already
        pytest.raises(ZeroDivisionError),
        LiveDenoiser(output=tmp_path / "run") as live,
    ):
        mmc.run_mda(for_ten_minutes, output=live)
        raise ZeroDivisionError
    assert time.monotonic() - began < 20
    assert not mmc.mda.is_running()


def test_a_sequence_that_had_not_begun_when_the_block_failed_is_stopped(
    mmc, tmp_path, monkeypatch
):
    """pymmcore-plus forgets a cancellation that comes before its thread runs."""
    runner = type(mmc.mda)
    run = runner.run

    def late(self, events, **options):
        time.sleep(0.5)
        run(self, events, **options)

    monkeypatch.setattr(runner, "run", late)
    test_an_error_in_the_block_stops_the_sequence(mmc, tmp_path)


@THREADS_FAIL
def test_a_sequence_after_the_block_is_cancelled(mmc, tmp_path):
    with LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(images(2), output=live)
    thread = mmc.run_mda(one_by_one(100_000), output=live)
    thread.join(10)
    assert not thread.is_alive()
    assert live.report["frames_recorded"] == 2


def test_a_slow_disk_holds_the_acquisition_and_not_the_memory(mmc, tmp_path, monkeypatch):
    """The queue between pymmcore-plus and its outputs has no end of its own."""
    handle = Recorder._handle

    def slowly(self, frame):
        time.sleep(0.01)
        handle(self, frame)

    monkeypatch.setattr(Recorder, "_handle", slowly)
    waiting = []

    def count():
        queues = [t for t in threading.enumerate() if type(t).__name__ == "MDARelayThread"]
        waiting.extend(queue.remaining() for queue in queues)

    with LiveDenoiser(output=tmp_path / "run", mode="sink") as live:
        mmc.mda.events.frameReady.connect(count)
        mmc.run_mda(one_by_one(60), output=live).join()
        mmc.mda.events.frameReady.disconnect(count)
    assert live.report["frames_recorded"] == 60
    assert max(waiting) <= 5, "what has been taken waits for nobody"


def test_two_blocks_on_one_core_leave_each_other_alone(mmc, tmp_path):
    """An error in one block cancelled the sequence of the other, whose report said complete."""

    def fail_within():
        with LiveDenoiser(output=tmp_path / "other"):
            raise ZeroDivisionError

    with LiveDenoiser(output=tmp_path / "run") as live:
        mmc.run_mda(one_by_one(20), output=live)
        with pytest.raises(ZeroDivisionError):
            fail_within()
    assert live.report["frames_recorded"] == live.report["frames_planned"] == 20
    assert live.report["complete"]


@THREADS_FAIL
def test_a_sequence_whose_images_stop_coming_is_not_complete(mmc, tmp_path):
    live = LiveDenoiser(output=tmp_path / "run")

    def acquire():
        with live, after(mmc, 3, mmc.unloadAllDevices):
            mmc.run_mda(one_by_one(20), output=live).join()

    with pytest.raises((MissingFramesError, AcquisitionError)):
        acquire()
    report = live.report
    assert report["frames_planned"] == 20
    assert 3 <= report["frames_recorded"] < 20
    assert not report["complete"]
