"""Everything that can break while the camera runs, on the real core and in real processes.

The camera is the core's own test device, which writes the number of each image into its pixels:
what is recorded is compared with what the camera counted, without our own bookkeeping in between.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from mm_test_adapters import device_adapter_path
from pycromanager import Acquisition, multi_d_acquisition_events

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.errors import AcquisitionError, MissingFramesError
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.acquisition.microscope.loaded_core import BUFFER_MB
from quietscope.acquisition.stream.run_directory import RunDirectory
from quietscope.inference.errors import FrameMismatchError, InferenceError
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.directory_lock import is_owned
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.written_frames import written_frames

SIDE = 128

CAMERA = f"""
Property,Core,Initialize,0
Device,Hub,SequenceTester,THub
Device,Numbering,SequenceTester,TCamera-0
Parent,Numbering,Hub
Property,Numbering,ImageMode,MachineReadable
Property,Numbering,ImageWidth,{SIDE}
Property,Numbering,ImageHeight,{SIDE}
Property,Core,Initialize,1
Property,Core,Camera,Numbering
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "numbering camera.cfg"
    config.write_text(CAMERA, encoding="utf-8")
    return MicroscopeSettings(mm_dir=Path(device_adapter_path()), config=config)


@pytest.fixture(scope="module")
def microscope(settings):
    with open_microscope(settings) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _quiet_engine(capfd):
    """The engine prints the tracebacks of what these tests provoke."""


def number_of(image) -> int:
    """Return the number that the camera wrote into its image (MessagePack, second element)."""
    first, *rest = image.ravel()[1:6].tolist()
    width = {0xCC: 1, 0xCD: 2, 0xCE: 4}.get(first)
    return first if width is None else int.from_bytes(bytes(rest[:width]), "big")


def recorded_numbers(run: Path) -> list[int]:
    """Return the camera's numbers of what is recorded, in the order of time."""
    store = run / "raw.ome.zarr"
    stack = open_stack(store)
    return [number_of(stack.frame(int(i))) for i in np.flatnonzero(written_frames(store).ravel())]


def assert_gapless(numbers: list[int], count: int | None = None) -> None:
    assert all(after == before + 1 for before, after in pairwise(numbers))
    assert count is None or len(numbers) == count


def acquire(hook, frames, *, each=True):
    """Acquire single images (paced by the stream) or, with `each=False`, one hardware sequence."""
    events = multi_d_acquisition_events(num_time_points=frames)
    with Acquisition(image_process_fn=hook) as acquisition:
        for event in events if each else [events]:
            acquisition.acquire(event)


def report_of(run: Path) -> dict:
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


class Copying:
    """A denoiser that gives back what it gets, and can be made to fail at a frame."""

    context_frames = 0

    def __init__(self, shape=(SIDE, SIDE), *, at=None, fault=None):
        self.frame_shape = shape
        self.at = at
        self.fault = fault
        self.calls = 0

    def denoise(self, observations, out):
        out[0] = observations[0]
        out[1] = 1
        self.calls += 1
        if self.calls == self.at:
            self.fault(out)

    def close(self):
        pass


# -------------------------------------------------------------------------- the denoiser


def raises(out):
    raise ValueError("the network exploded")


def gives_nan(out):
    out[0, 3, 3] = np.nan


@pytest.mark.parametrize(("fault", "message"), [(raises, "exploded"), (gives_nan, "NaN")])
def test_a_denoiser_that_fails_costs_no_raw_frame(microscope, tmp_path, fault, message):
    run = tmp_path / "run"
    with (
        pytest.raises((AcquisitionError, FrameMismatchError), match=message),
        LiveDenoiser(Copying(at=4, fault=fault), run, mode="sink") as live,
    ):
        acquire(live.image_process_fn, 60)
    assert_gapless(recorded_numbers(run), 60)
    report = report_of(run)
    assert report["frames_recorded"] == 60
    assert report["frames_denoised"] < 60
    assert not report["complete"]
    assert message in report["errors"][0]


@pytest.mark.parametrize("to_the_end", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_denoiser_that_hangs_for_half_a_minute(microscope, tmp_path, to_the_end):
    """The camera does not wait, raw is on the disk meanwhile; the frames are denoised later.

    The short form lets the denoiser go as soon as raw was seen to be complete.
    """
    run = tmp_path / "run"
    go_on = threading.Event()

    def hangs(out):
        go_on.wait(30)

    began = time.monotonic()
    with LiveDenoiser(Copying(at=2, fault=hangs), run, mode="sink") as live:
        acquire(live.image_process_fn, 100)
        wait_for(lambda: live.report["frames_recorded"] == 100, seconds=20)
        assert live.report["frames_denoised"] == 1
        assert_gapless(recorded_numbers(run), 100)  # read from the disk while it hangs
        if not to_the_end:
            go_on.set()
    assert time.monotonic() - began >= 30 * to_the_end
    assert_gapless(recorded_numbers(run), 100)
    report = report_of(run)
    assert report["complete"]
    assert report["frames_skipped_live"] >= 90
    assert report["frames_denoised"] == 100
    denoised = open_stack(run / "denoised.ome.zarr")
    np.testing.assert_array_equal(list(denoised), list(open_stack(run)))


def test_a_denoiser_that_never_comes_back_is_given_up(microscope, tmp_path, monkeypatch):
    """Leaving the block ends all the same; what is there is closed and reported."""
    monkeypatch.setattr("quietscope.acquisition.stream.active_run.HANG_S", 0.5)
    run = tmp_path / "run"
    at_last = threading.Event()

    def whole_run():
        with LiveDenoiser(Copying(at=3, fault=lambda out: at_last.wait()), run) as live:
            acquire(live.image_process_fn, 40)

    try:
        with pytest.raises(AcquisitionError, match=r"at one frame .* `quietscope denoise`"):
            whole_run()
        assert_gapless(recorded_numbers(run), 40)
        report = report_of(run)
        assert (report["frames_recorded"], report["frames_denoised"]) == (40, 2)
        assert not report["complete"]
        assert written_frames(run / "denoised.ome.zarr").sum() == 2
        assert not is_owned(run)
    finally:
        at_last.set()
        wait_for(lambda: not [t for t in threading.enumerate() if "denoiser" in t.name])


def test_a_program_with_a_hanging_denoiser_can_end(tmp_path):
    """The hanging thread keeps nobody from leaving."""
    program = start(
        """
        import sys, time
        import numpy as np
        from quietscope.acquisition import LiveDenoiser
        from quietscope.acquisition.stream import active_run

        class Hanging:
            frame_shape, context_frames = (8, 8), 0
            def denoise(self, observations, out):
                time.sleep(3600)
            def close(self):
                pass

        active_run.HANG_S = 0.2
        with LiveDenoiser(Hanging(), sys.argv[1]) as stream:
            for t in range(5):
                stream.image_process_fn(np.zeros((8, 8), "uint16"), {"Axes": {"time": t}})
        """,
        tmp_path / "run",
    )
    _, complained = program.communicate(timeout=60)
    assert "at one frame" in complained
    assert report_of(tmp_path / "run")["frames_recorded"] == 5


def test_ten_times_slower_than_the_camera(microscope, tmp_path):
    class Slow(Copying):
        def denoise(self, observations, out):
            time.sleep(0.02)
            super().denoise(observations, out)

    run = tmp_path / "run"
    with LiveDenoiser(Slow(), run, mode="sink") as live:

        def hook(image, metadata):
            time.sleep(0.002)
            return live.image_process_fn(image, metadata)

        acquire(hook, 80)
    assert_gapless(recorded_numbers(run), 80)
    report = report_of(run)
    assert report["frames_skipped_live"] > 50
    assert report["frames_denoised"] == 80
    # The view stays young: at most the frames that wait, and the one in work, lie between.
    # All 80 in a queue would take 1.6 s.
    assert report["latency_ms"]["p95"] < 800


def test_a_model_that_is_replaced_in_mid_run(tmp_path, make_bundle):
    """What runs goes on; what would have to be loaded anew is refused, and raw is complete."""
    bundle = make_bundle(pixel_type="uint16")
    run = tmp_path / "run"
    images = [np.full((32, 32), 100 + t, "uint16") for t in range(20)]

    def deliver(live, images, start):
        for t, image in enumerate(images, start):
            live.image_process_fn(image, {"Axes": {"time": t}})
            time.sleep(0.01)

    def whole_run():
        with LiveDenoiser(bundle, run, provider="cpu") as live:
            deliver(live, images[:10], 0)
            wait_for(lambda: live.report["frames_denoised_live"] > 0)
            (bundle / "model.onnx").write_bytes(b"something else")
            deliver(live, images[10:], 10)
            deliver(live, [np.zeros((16, 16), "uint16")] * 5, 0)

    with pytest.raises(InferenceError, match=r"model\.onnx was changed"):
        whole_run()
    np.testing.assert_array_equal(list(open_stack(run)), images)
    assert len(open_stack(run / "raw-2.ome.zarr")) == 5
    assert report_of(run)["frames_recorded"] == 25
    assert report_of(run)["frames_denoised_live"] > 0


# ------------------------------------------------------------------------------ the disk


def test_a_disk_that_gets_full_ends_the_acquisition_with_everything_kept(microscope, tmp_path):
    run = tmp_path / "run"
    free = shutil.disk_usage(tmp_path).free
    hog = tmp_path / "somebody elses data"

    def whole_run():
        with LiveDenoiser(output=run, mode="sink", reserve_bytes=free - 64 * 2**20) as live:

            def hook(image, metadata):
                if metadata["Axes"]["time"] == 50:
                    hog.write_bytes(os.urandom(2**20) * 256)
                time.sleep(0.002)
                return live.image_process_fn(image, metadata)

            acquire(hook, 5000)

    with pytest.raises(OutputError, match="disk is nearly full"):
        whole_run()
    numbers = recorded_numbers(run)
    assert 50 <= len(numbers) < 5000
    assert_gapless(numbers)
    assert report_of(run)["frames_recorded"] == len(numbers)
    assert "nearly full" in (run / "events.log").read_text(encoding="utf-8")


def tiny_disk(tmp_path, megabytes):
    """Mount a real disk of that size; only an administrator of Linux can."""
    folder = tmp_path / "tiny disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command).returncode:
        pytest.skip("a disk of its own can only be mounted by root on Linux")
    return folder


def noise(t):
    return np.random.default_rng(t).integers(0, 2**16, (256, 256)).astype("uint16")


def deliver_noise(live, frames):
    for t in range(frames):
        live.image_process_fn(noise(t), {"Axes": {"time": t}})


def test_a_full_disk_for_raw(tmp_path):
    disk = tiny_disk(tmp_path, 8)
    try:
        with (
            pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"),
            LiveDenoiser(output=disk / "run", mode="sink", reserve_bytes=0) as live,
        ):
            deliver_noise(live, 200)
        written = written_frames(disk / "run" / "raw.ome.zarr").ravel()
        stack = open_stack(disk / "run")
        assert written.sum() >= 40
        assert live.report["frames_recorded"] == written.sum()
        assert not live.report["complete"]
        for t in np.flatnonzero(written):
            np.testing.assert_array_equal(stack.frame(int(t)), noise(int(t)))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_for_the_denoised_store_costs_no_raw_frame(tmp_path):
    disk = tiny_disk(tmp_path, 4)
    run = tmp_path / "run"
    linked = LiveDenoiser(Copying((256, 256)), run, mode="sink")
    linked._directory.denoised = lambda part=1: disk / f"denoised-{part}.ome.zarr"
    try:
        with pytest.raises(OutputError, match="No space left on device"), linked as live:
            deliver_noise(live, 100)
        np.testing.assert_array_equal(list(open_stack(run)), [noise(t) for t in range(100)])
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert report_of(run)["frames_recorded"] == 100


LIMITED = """
    import resource, sys
    import numpy as np
    from quietscope.acquisition import LiveDenoiser

    run, full = sys.argv[1:3]
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    noise = np.random.default_rng(0).integers(0, 2**16, (256, 256)).astype("uint16")

    class Denoiser:
        frame_shape, context_frames = (256, 256), 0
        def denoise(self, observations, out):
            out[:] = noise if full == "denoised" and observations.any() else 1
        def close(self):
            pass

    with LiveDenoiser(Denoiser(), run, mode="sink", reserve_bytes=0) as live:
        for t in range(30):
            flat = np.full((256, 256), t // 10, "uint16")
            image = noise if full == "raw" and t >= 10 else flat
            live.image_process_fn(image, {"Axes": {"time": t}})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files there")
@pytest.mark.parametrize("full", ["raw", "denoised"])
def test_a_disk_that_takes_no_more(tmp_path, full):
    """For every user: the system refuses files beyond a size, which only noise reaches."""
    run = tmp_path / "run"
    program = start(LIMITED, run, full)
    _, complained = program.communicate(timeout=90)
    assert "File too large" in complained
    assert "OutputError" in complained
    report = report_of(run)
    written = written_frames(run / "raw.ome.zarr").ravel()
    assert report["frames_recorded"] == written.sum() == (10 if full == "raw" else 30)
    assert not report["complete"]
    stack = open_stack(run)
    for t in np.flatnonzero(written):
        assert (stack.frame(int(t)) == t // 10).all()
    assert not is_owned(run)


@pytest.fixture
def read_only(tmp_path):
    """A folder in which nobody may write, an administrator included."""
    folder = tmp_path / "read-only"
    if sys.platform != "win32" and os.geteuid() != 0:
        folder.mkdir(mode=0o500)
        yield folder
        folder.chmod(0o700)
        return
    folder = tiny_disk(tmp_path, 1)
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_directory_is_found_before_the_camera_starts(read_only):
    with (
        pytest.raises(OutputError, match="a folder that you may write to") as caught,
        LiveDenoiser(output=read_only / "run"),
    ):
        pass
    assert str(read_only) in str(caught.value)
    assert list(read_only.iterdir()) == []


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "a file").write_text("", encoding="utf-8")
    with (
        pytest.raises(OutputError, match=r"a folder that you may write to|no folder on the way"),
        LiveDenoiser(output=tmp_path / "a file" / "run"),
    ):
        pass


def test_a_disk_that_turns_read_only_in_mid_run(tmp_path, monkeypatch):
    """One line that names the cause; counts of what is really there; nothing hides it."""
    run = tmp_path / "run"
    live = LiveDenoiser(output=run, mode="sink")

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(run))

    def whole_run():
        with live:
            deliver_noise(live, 20)
            wait_for(lambda: live.report["frames_recorded"] == 20)
            for name in ("FrameLog.append", "write_json", "DirectoryLock.release"):
                monkeypatch.setattr(f"quietscope.acquisition.stream.run_directory.{name}", refuse)
            for t in range(20, 100):
                live.image_process_fn(noise(t), {"Axes": {"time": t}})

    with pytest.raises(OutputError, match=r"cannot be written \(Read-only file system\)"):
        whole_run()
    there = int(written_frames(run / "raw.ome.zarr").sum())
    assert live.report["frames_recorded"] == there >= 20
    assert not live.report["complete"]
    assert "Read-only file system" in live.report["errors"][0]


# ------------------------------------------------------------------- the camera's buffer


def test_an_overflow_is_an_error_with_the_first_missing_frame(microscope, tmp_path):
    """The camera is faster than anything; a small buffer and a slow script make it overflow."""
    run = tmp_path / "run"
    core = microscope.core

    def whole_run():
        with LiveDenoiser(output=run, mode="sink") as live:

            def hook(image, metadata):
                time.sleep(0.005)
                return live.image_process_fn(image, metadata)

            acquire(hook, 20_000, each=False)

    core.set_circular_buffer_memory_footprint(32)
    try:
        with pytest.raises(MissingFramesError, match="frames that the camera took never came"):
            whole_run()
    finally:
        core.set_circular_buffer_memory_footprint(BUFFER_MB)
    numbers = recorded_numbers(run)
    report = report_of(run)
    # On a busy machine the core may empty its buffer before the engine sees that it was full:
    # then the last frames come from behind the gap.
    gaps = [after for before, after in pairwise(numbers) if after != before + 1]
    assert len(gaps) <= 1
    assert all(before < after for before, after in pairwise(numbers))
    assert 0 < len(numbers) < 20_000
    assert report["first_missing_frame"] == report["frames_recorded"] == len(numbers)


@pytest.mark.parametrize(
    ("before", "at_the_first_frame", "missing"),
    [(True, True, 0), (True, False, 1), (False, None, 1)],
)
def test_an_overflow_of_before_is_not_blamed_on_the_run(
    tmp_path, monkeypatch, before, at_the_first_frame, missing
):
    said = [flag for flag in (before, at_the_first_frame, True) if flag is not None]
    core = SimpleNamespace(get_camera_device=str, is_buffer_overflowed=lambda: said.pop(0))
    monkeypatch.setattr("quietscope.acquisition.live.running_core", lambda: core)
    with LiveDenoiser(output=tmp_path / "run", raise_on_gap=False) as live:
        for t in range(3):
            live.image_process_fn(noise(t), {"Axes": {"time": t}})
    assert live.report["frames_missing"] == missing
    assert not said


# -------------------------------------------------------------------------- the user


def test_an_exception_in_the_users_own_hook(microscope, tmp_path):
    run = tmp_path / "run"
    failed = threading.Event()

    def whole_run():
        with LiveDenoiser(output=run) as live:

            def hook(image, metadata):
                if metadata["Axes"]["time"] == 30:
                    failed.set()
                    raise RuntimeError("my own mistake")
                return live.image_process_fn(image, metadata)

            with Acquisition(image_process_fn=hook) as acquisition:
                for event in multi_d_acquisition_events(num_time_points=200):
                    acquisition.acquire(event)
                # pycro-manager's abort empties its queue of events: were the end mark among them,
                # it would wait for ever.
                assert failed.wait(60)
                time.sleep(1)

    with pytest.raises(RuntimeError, match="my own mistake"):
        whole_run()
    assert failed.is_set()
    numbers = recorded_numbers(run)
    assert_gapless(numbers[:30], 30)  # the image on which the hook failed never came to us
    report = report_of(run)
    assert len(numbers) == report["frames_delivered"] == report["frames_recorded"]
    assert not report["complete"]
    assert "my own mistake" in report["errors"][-1]


def deliver_and_raise(live, numbers, error):
    """Images with the camera's numbers; then the user's own exception."""
    with live:
        for t, number in enumerate(numbers):
            tags = {"Axes": {"time": t}, "Camera": "c", "ImageNumber": str(number)}
            live.image_process_fn(np.full((8, 8), t, "uint16"), tags)
        raise error


def test_the_users_exception_is_not_masked_by_a_gap(tmp_path):
    """Java calls the hook again after it raised: the image on which it did is missing then."""
    mine = RuntimeError("my own mistake")
    with pytest.raises(RuntimeError) as caught:
        deliver_and_raise(LiveDenoiser(output=tmp_path / "run"), [0, 1, 3, 4], mine)
    assert caught.value is mine
    report = report_of(tmp_path / "run")
    assert report["first_missing_frame"] == 2
    assert report["errors"] == ["ended by RuntimeError: my own mistake"]
    assert not report["complete"]


def test_the_users_exception_is_not_masked_by_a_failed_denoiser(tmp_path):
    mine = RuntimeError("my own mistake")
    live = LiveDenoiser(Copying((8, 8), at=1, fault=raises), tmp_path / "run")
    with pytest.raises(RuntimeError) as caught:
        deliver_and_raise(live, [0, 1], mine)
    assert caught.value is mine
    assert "exploded" in report_of(tmp_path / "run")["errors"][0]


def test_nothing_came(tmp_path):
    with pytest.raises(RuntimeError, match="my own mistake"):
        deliver_and_raise(LiveDenoiser(output=tmp_path / "a"), [], RuntimeError("my own mistake"))
    assert not report_of(tmp_path / "a")["complete"]
    with LiveDenoiser(output=tmp_path / "b"):
        pass
    assert not report_of(tmp_path / "b")["complete"]


def test_fewer_frames_than_planned(tmp_path):
    live = LiveDenoiser(output=tmp_path / "run", expected_frames=10)

    def deliver():
        with live:
            for t in range(7):
                live.image_process_fn(np.full((8, 8), t, "uint16"), {"Axes": {"time": t}})

    with pytest.raises(MissingFramesError, match="7 of 10 planned frames came"):
        deliver()
    report = report_of(tmp_path / "run")
    assert (report["frames_recorded"], report["frames_planned"]) == (7, 10)
    assert not report["complete"]


def test_as_a_sink_few_frames_are_in_memory(tmp_path, monkeypatch):
    """A disk that takes nothing: the hook waits before more than were said are in memory."""
    go_on, accepted = threading.Event(), []
    writes = OmeZarrWriter.write
    monkeypatch.setattr(OmeZarrWriter, "write", lambda *a, **k: (go_on.wait(), writes(*a, **k))[1])
    with LiveDenoiser(output=tmp_path / "run", mode="sink") as live:

        def deliver():
            for t in range(50):
                live.image_process_fn(np.full((8, 8), t, "uint16"), {"Axes": {"time": t}})
                accepted.append(t)

        script = threading.Thread(target=deliver)
        script.start()
        time.sleep(0.5)
        assert 0 < len(accepted) <= live.report["most_frames_in_memory"] <= 16
        go_on.set()
        script.join()
    assert live.report["frames_recorded"] == 50
    log = (tmp_path / "run" / "events.log").read_text(encoding="utf-8")
    assert f"at most {live.report['most_frames_in_memory']} are in memory" in log


def test_an_acquisition_that_the_user_aborts(microscope, tmp_path):
    run = tmp_path / "run"
    with LiveDenoiser(Copying(), run) as live:
        acquisition = Acquisition(image_process_fn=live.image_process_fn)
        for event in multi_d_acquisition_events(num_time_points=2000):
            acquisition.acquire(event)
        while live.report["frames_recorded"] < 20:
            time.sleep(0.005)
        acquisition.abort()
        acquisition.mark_finished()
        acquisition.await_completion()
    numbers = recorded_numbers(run)
    assert 20 <= len(numbers) < 2000
    assert_gapless(numbers, report_of(run)["frames_delivered"])
    assert report_of(run)["complete"]


def test_the_preview_blocked_and_then_killed(microscope, tmp_path, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    run = tmp_path / "run"
    before = set(psutil.Process().children())
    with LiveDenoiser(Copying(), run, mode="sink", preview=True) as live:
        acquire(live.image_process_fn, 20)
        wait_for(lambda: set(psutil.Process().children()) - before)
        [window] = set(psutil.Process().children()) - before
        window.suspend()
        acquire(live.image_process_fn, 100)
        window.kill()
        acquire(live.image_process_fn, 20)
    report = report_of(run)
    assert report["frames_recorded"] == report["frames_denoised"] == 140
    assert report["complete"]
    assert report["hook_ms"]["p95"] < 100


# -------------------------------------------------------------------- whole programs


def start(program: str, *arguments: object) -> subprocess.Popen:
    """Run a script in a process of its own, as a user would."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def logged(run: Path) -> int:
    log = run / "frames.jsonl"
    return log.read_text(encoding="utf-8").count("\n") if log.exists() else 0


PROGRAM = """
    import sys, time
    from pathlib import Path
    from pycromanager import Acquisition, multi_d_acquisition_events
    from quietscope.acquisition import LiveDenoiser
    from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope

    config, run, model = sys.argv[1:4]
    from mm_test_adapters import device_adapter_path
    settings = MicroscopeSettings(mm_dir=Path(device_adapter_path()), config=Path(config))
    with open_microscope(settings) as microscope:
        with LiveDenoiser(model or None, run, mode="sink", provider="cpu") as live:
            def hook(image, metadata):
                time.sleep(0.002)
                return live.image_process_fn(image, metadata)
            with Acquisition(image_process_fn=hook) as acquisition:
                acquisition.acquire(multi_d_acquisition_events(num_time_points=20_000))
"""


def test_kill_in_mid_run_and_denoise_afterwards(settings, tmp_path, make_bundle):
    from quietscope.inference.offline.denoise_stack import denoise_stack

    run, bundle = tmp_path / "run", make_bundle(pixel_type="uint8", context_frames=1)
    program = start(PROGRAM, settings.config, run, bundle)
    wait_for(lambda: logged(run) > 200 or program.poll() is not None)
    program.kill()
    _, said = program.communicate()
    assert logged(run) > 200, said

    numbers = recorded_numbers(run)
    assert_gapless(numbers)
    assert len(numbers) >= logged(run) - 100  # what was in flight or waited is all that can go
    partly = int(written_frames(run / "denoised.ome.zarr").sum())
    assert partly > 0
    out = run / "denoised.ome.zarr"
    counts = denoise_stack(open_stack(run), bundle, out, resume=True, provider="cpu")
    assert counts["frames_kept"] == partly
    assert counts["frames_denoised"] + partly == len(numbers)
    np.testing.assert_array_equal(
        written_frames(out).ravel()[: len(numbers)], np.ones(len(numbers), bool)
    )
    # A program that is gone holds no lock.
    again = RunDirectory(run)
    again.claim(overwrite=True)
    again.release()


ENDLESS = ["--frames", "100000", "--exposure-ms", "2", "--roi", "0,0,64,64"]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches the whole console there")
@pytest.mark.parametrize("command", ["record", pytest.param("live", marks=pytest.mark.long)])
def test_ctrl_c_ends_a_command_cleanly(tmp_path, make_bundle, command):
    run = tmp_path / "run"
    extra = ["--model", str(make_bundle()), "--no-preview"] if command == "live" else []
    program = subprocess.Popen(
        [sys.executable, "-m", "quietscope.cli", command, "--out", str(run), *extra, *ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        wait_for(lambda: logged(run) > 100 or program.poll() is not None)
        program.send_signal(signal.SIGINT)
        _, complained = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 1, complained
    assert "stopped by the user" in complained
    assert "Traceback" not in complained
    assert not is_owned(run)
    report = report_of(run)
    assert report["frames_recorded"] == report["frames_delivered"] == logged(run) > 100
    assert written_frames(run / "raw.ome.zarr").sum() == report["frames_recorded"]


def test_a_second_program_is_refused(settings, tmp_path):
    run = tmp_path / "run"
    first = start(PROGRAM, settings.config, run, "")
    try:
        wait_for(lambda: logged(run) > 10 or first.poll() is not None)
        message = f"is being written by process {first.pid}"
        for options in ({}, {"overwrite": True}):
            with pytest.raises(OutputError, match=message), LiveDenoiser(output=run, **options):
                pass
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()


def test_two_programs_that_start_together(tmp_path):
    """Of many that claim the same directory at the same time exactly one gets it."""
    claimed, refused = [], []
    barrier = threading.Barrier(8)

    def claim():
        run = RunDirectory(tmp_path / "run")
        barrier.wait()
        try:
            run.claim()
            claimed.append(run)
        except OutputError as error:
            refused.append(error)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(claimed), len(refused)) == (1, 7)
    claimed[0].release()


# -------------------------------------------------------------------------- the long run


@pytest.mark.long
@pytest.mark.slow
def test_memory_stays_flat(microscope, tmp_path):
    """Four thousand frames into the run as much memory is in use as after eight hundred."""
    seen = {}
    process = psutil.Process()
    run = tmp_path / "run"
    with LiveDenoiser(Copying(), run, mode="sink", complete_afterwards=False) as live:

        def hook(image, metadata):
            t = metadata["Axes"]["time"]
            if t % 800 == 0:
                seen[t] = process.memory_info().rss
            return live.image_process_fn(image, metadata)

        acquire(hook, 4801, each=False)
    assert_gapless(recorded_numbers(run), 4801)
    one_copy_of_all = 4000 * SIDE * SIDE
    assert seen[4800] - seen[800] < one_copy_of_all / 4
