"""A Micro-Manager that somebody else runs: its live mode, its acquisitions, its end.

`micro_manager_server` stands in for it: the real core in a process of its own, behind the protocol
of pycro-manager's bridge over real sockets. Everything on this side is what a microscope runs.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ndstorage.ndtiff_dataset import NDTiffDataset
from ndstorage.ndtiff_index import NDTiffIndexEntry
from pycromanager import Acquisition, multi_d_acquisition_events
from pyjavaz.bridge import server_terminated
from scipy import ndimage
from typer.testing import CliRunner

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.commands import COMMANDS
from quietscope.acquisition.errors import AcquisitionError, MicroscopeError
from quietscope.acquisition.microscope.bridge import server_version
from quietscope.acquisition.microscope.core import MicroscopeSettings, close_core, open_microscope
from quietscope.acquisition.sources.follow_camera import follow, is_running
from quietscope.acquisition.sources.follow_dataset import (
    SavedAcquisitions,
    await_dataset,
    follow_dataset,
)
from quietscope.acquisition.sources.saved_images import GrowingIndex
from quietscope.acquisition.stream.run_directory import read_frame_log
from quietscope.calibration.errors import CameraMismatchError
from quietscope.cli import app
from quietscope.doctor.attached import QUESTIONS
from quietscope.storage.directory_lock import is_owned
from quietscope.storage.live_sessions import who_is_live
from quietscope.storage.open_stack import open_stack
from quietscope.storage.written_frames import written_frames

pytestmark = [
    # NDTiff and the bridge leave their files and sockets to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning",
        "ignore:Exception ignored in. <function Socket:pytest.PytestUnraisableExceptionWarning",
        "ignore:Exception ignored in. <function _JavaO:pytest.PytestUnraisableExceptionWarning",
    ),
]

SERVER = Path(__file__).with_name("micro_manager_server.py")


class MicroManager:
    """A Micro-Manager in a process of its own, and what a person does at its window."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def switch(self, what: str, on: bool) -> None:
        """Turn `live` mode on or off, or say that the window is `acquiring`."""
        if on:
            (self.folder / what).touch()
        else:
            (self.folder / what).unlink(missing_ok=True)

    def end(self) -> None:
        gc.collect()  # what the bridge still holds is given back while there is a server
        server_terminated(self.port)
        self._process.communicate()

    def crash(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def micro_manager(tmp_path_factory):
    close_core()  # one in this process comes before the bridge
    started = MicroManager(tmp_path_factory.mktemp("their Micro-Manager"))
    yield started
    started.end()


@pytest.fixture
def attached(micro_manager):
    settings = MicroscopeSettings(
        attach=True, port=micro_manager.port, exposure_ms=5, roi=(8, 16, 64, 48)
    )
    with open_microscope(settings) as microscope:
        microscope.set_property("Mode", "Noise")  # no two images are alike
        yield microscope


@pytest.fixture
def live_mode(micro_manager, attached):
    micro_manager.switch("live", True)
    wait_for(lambda: is_running(attached))
    yield attached
    micro_manager.switch("live", False)
    wait_for(lambda: not is_running(attached))


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def quietscope(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Smoothing:
    frame_shape = (48, 64)
    context_frames = 0

    def denoise(self, observations, out):
        ndimage.gaussian_filter(observations[0].astype(np.float32), 1, output=out[0])
        out[1] = 1

    def close(self):
        pass


# ------------------------------------------------------------------------------- the camera


def test_the_camera_says_over_the_bridge_what_it_says_at_home(attached):
    over_the_bridge = attached.fingerprint()
    assert attached.roi == (8, 16, 64, 48)
    assert attached.frame_shape == (48, 64)
    assert (attached.saturation_adu, attached.pixel_size_um) == (65535, 1)
    assert (over_the_bridge.camera, over_the_bridge.pixel_type) == (
        "DemoCamera-MultiMode",
        "uint16",
    )


def test_live_mode_is_shown_denoised_and_goes_on(live_mode, tmp_path):
    with LiveDenoiser(Smoothing(), tmp_path / "run", mode="sink", microscope=live_mode) as live:
        follow(live_mode, live, 15)
    assert is_running(live_mode)
    frames = np.stack(list(open_stack(tmp_path / "run")))
    assert frames.shape == (15, 48, 64)
    assert len({frame.tobytes() for frame in frames}) == 15
    assert 90 < frames.mean() < 2000  # the camera's offset is 99 ADU
    assert live.report["frames_denoised"] == 15
    assert live.report["camera"]["camera"] == "DemoCamera-MultiMode"


def test_following_survives_a_change_of_exposure_and_ends_with_live_mode(
    micro_manager, live_mode, tmp_path
):
    def at_the_window():
        wait_for(lambda: live.report["frames_recorded"] >= 5)
        micro_manager.switch("live", False)  # Micro-Manager restarts it for a new exposure
        time.sleep(0.3)
        micro_manager.switch("live", True)
        wait_for(lambda: live.report["frames_recorded"] >= 20)
        micro_manager.switch("live", False)

    person = threading.Thread(target=at_the_window)
    with LiveDenoiser(output=tmp_path / "run", mode="sink", microscope=live_mode) as live:
        person.start()
        follow(live_mode, live, None)
    person.join()
    assert live.report["frames_recorded"] >= 20


def test_a_live_mode_of_this_process_is_followed_too(tmp_path):
    with open_microscope(MicroscopeSettings(exposure_ms=5, roi=(0, 0, 64, 64))) as microscope:
        microscope.set_property("Mode", "Noise")
        microscope.core.start_continuous_sequence_acquisition(0)
        try:
            with LiveDenoiser(output=tmp_path / "run", mode="sink") as live:
                follow(microscope, live, 15)
            assert is_running(microscope)
        finally:
            microscope.core.stop_sequence_acquisition()
    frames = np.stack(list(open_stack(tmp_path / "run")))
    assert len({frame.tobytes() for frame in frames}) == 15


# --------------------------------------------------------------- acquisitions over the bridge


def test_record_through_micro_managers_engine(micro_manager, tmp_path):
    run = tmp_path / "run"
    done = quietscope(
        *("record", "--attach", "--port", micro_manager.port, "--out", run, "--frames", 5),
        *("--exposure-ms", 2, "--roi", "8,16,64,48", "--channel", "DAPI", "--channel", "FITC"),
        "--json",
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["frames_delivered"] == report["frames_recorded"] == 10
    stack = open_stack(run)
    assert stack.channel_names == ("DAPI", "FITC")
    assert stack.frame_shape == (48, 64)
    assert report["camera"]["roi"] == [8, 16, 64, 48]
    lines = [line for _, _, line in read_frame_log(run / "frames.jsonl")]
    assert all(line["metadata"]["Exposure"] == 2 for line in lines)


def test_too_small_a_disk_is_found_before_the_camera_starts(micro_manager, tmp_path):
    """The size of a frame is asked of the camera over the bridge."""
    done = quietscope(
        *("record", "--attach", "--port", micro_manager.port, "--out", tmp_path / "run"),
        *("--frames", 10**10),
    )
    assert done.exit_code == 1
    assert "of disk space" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("entry", ["image_process_fn", "image_saved_fn"])
def test_a_script_of_the_users_own(attached, micro_manager, tmp_path, entry):
    """As a tap, images go back to Micro-Manager, which saves them; both have the same."""
    given = {}

    def keep(image, metadata):
        given[metadata["Axes"]["time"]] = image.copy()
        if entry == "image_process_fn":
            return live.image_process_fn(image, metadata)
        return image, metadata

    with (
        LiveDenoiser(Smoothing(), tmp_path / "run", microscope=attached) as live,
        Acquisition(
            str(tmp_path / "theirs"),
            "cells",
            image_process_fn=keep,
            image_saved_fn=live.image_saved_fn if entry == "image_saved_fn" else None,
            port=micro_manager.port,
            show_display=False,
        ) as acquisition,
    ):
        acquisition.acquire(multi_d_acquisition_events(num_time_points=12))
    theirs = NDTiffDataset(str(next((tmp_path / "theirs").iterdir())))
    recorded = list(open_stack(tmp_path / "run"))
    np.testing.assert_array_equal(recorded, [given[t] for t in range(12)])
    np.testing.assert_array_equal(recorded, [theirs.read_image(time=t) for t in range(12)])
    assert live.report["frames_denoised"] == 12
    theirs.close()


# --------------------------------------------------- acquisitions that others run and save


class TheirAcquisition:
    """Saves images as Micro-Manager's Multi-D window does in the format NDTiff.

    Channels are numbers and have their names in the summary. The index is there before the first
    image, long and filled with zeros, into which the entries are written one by one.
    """

    def __init__(self, folder: Path, name="cells", channels=("DAPI", "FITC")):
        self.images = {}
        self._channels = channels
        folder.mkdir(parents=True, exist_ok=True)
        summary = {"ChNames": list(channels), "Positions": 1}
        self._dataset = NDTiffDataset(
            str(folder), summary_metadata=summary, name=name, writable=True
        )
        self.path = Path(self._dataset.path)
        (self.path / "NDTiff.index").write_bytes(bytes(100_000))

    def save(self, count=1):
        for _ in range(count):
            time_point, channel = divmod(len(self.images), len(self._channels))
            axes = {"time": time_point, "channel": channel, "z": 0, "position": 0}
            image = np.random.default_rng(len(self.images)).integers(0, 4096, (48, 64))
            self.images[time_point, self._channels[channel]] = image.astype("uint16")
            metadata = {"Exposure-ms": 7.5, "Camera": "Camera", "Binning": "1"}
            self._dataset.put_image(axes, image.astype("uint16"), metadata)
            self._lengthen_index()

    def _lengthen_index(self):
        index = self._dataset._index_file
        index.flush()
        if index.tell() < (length := self.path / "NDTiff.index").stat().st_size:
            return
        with length.open("rb+") as file:
            file.truncate(index.tell() + 100_000)

    def finish(self):
        with (self.path / "NDTiff.index").open("rb+") as file:
            file.truncate(self._dataset._index_file.tell())
        self._dataset.finish()


def assert_same(run: Path, theirs: TheirAcquisition) -> None:
    stack = open_stack(run)
    assert stack.channel_names == ("DAPI", "FITC")
    assert written_frames(run / "raw.ome.zarr").sum() == len(theirs.images)
    for (t, channel), image in theirs.images.items():
        axes = {"time": t, "channel": stack.channel_names.index(channel), "z": 0}
        np.testing.assert_array_equal(stack.frame(stack.index(axes)), image)


def test_every_image_is_followed_as_it_is_saved(tmp_path):
    acquisitions = SavedAcquisitions(tmp_path / "data")
    assert acquisitions.begun() is None
    theirs = TheirAcquisition(tmp_path / "data")
    assert await_dataset(acquisitions) == theirs.path  # before its first image
    came = []

    def their_program():
        for count in (1, 2, 5, 40):  # one by one, each waited for, then in bursts
            before = len(theirs.images)
            theirs.save(count)
            wait_for(lambda before=before: len(came) > before)
        theirs.save()
        theirs.finish()

    writing = threading.Thread(target=their_program)
    with LiveDenoiser(Smoothing(), tmp_path / "run", mode="sink") as live:
        writing.start()
        followed = follow_dataset(theirs.path, live, on_frames=came.append)
    writing.join()
    assert followed == 49
    assert came == list(range(1, 50))
    assert_same(tmp_path / "run", theirs)
    assert live.report["frames_denoised"] == 49
    lines = [line for _, _, line in read_frame_log(tmp_path / "run" / "frames.jsonl")]
    assert lines[0]["axes"] == {"time": 0, "channel": "DAPI", "z": 0}
    assert lines[0]["metadata"]["Exposure-ms"] == 7.5


def test_a_dataset_that_was_finished_before_is_left_alone(tmp_path):
    old = TheirAcquisition(tmp_path, "old")
    old.save(3)
    old.finish()
    acquisitions = SavedAcquisitions(tmp_path)
    assert acquisitions.begun() is None
    new = TheirAcquisition(tmp_path, "new")
    new.save()
    assert acquisitions.begun() == new.path
    new.finish()


def test_a_dataset_that_a_crash_left_behind_rests_until_it_grows(tmp_path):
    left = TheirAcquisition(tmp_path, "left")
    left.save(3)
    os.utime(left.path / "NDTiff.index", (1e9, 1e9))
    acquisitions = SavedAcquisitions(tmp_path)
    assert acquisitions.begun() is None
    left.save()  # a slow time lapse after all
    assert acquisitions.begun() == left.path
    left.finish()


@pytest.mark.skipif(sys.platform == "win32", reason="the file has a hole of 4 GiB")
def test_a_dataset_is_finished_when_its_files_are_cut(tmp_path):
    """Not in its second half, when the last image lies beyond 2 GiB of the 4 GiB kept for it."""
    images, beyond = tmp_path / "NDTiffStack.tif", 3 * 2**30
    entry = NDTiffIndexEntry([("time", 0)], 1, beyond, 64, 48, beyond + 6144, 2, images.name)
    (tmp_path / "NDTiff.index").write_bytes(entry.as_byte_buffer().getvalue())
    with images.open("wb") as file:
        file.truncate(4 * 2**30)
    index = GrowingIndex(tmp_path)
    assert [axes for axes, _ in index.new_entries()] == [{"time": 0}]
    assert not index.finished()
    with images.open("rb+") as file:
        file.truncate(beyond + 7000)
    assert index.finished()


def test_a_program_that_dies_while_it_saves(tmp_path, monkeypatch):
    """Its files are never finished; Micro-Manager's word that nothing runs any more ends it."""
    monkeypatch.setattr("quietscope.acquisition.sources.follow_dataset.GRACE_S", 0.5)
    theirs = TheirAcquisition(tmp_path / "data")
    theirs.save(6)
    with LiveDenoiser(output=tmp_path / "run", mode="sink") as live:
        assert follow_dataset(theirs.path, live, is_running=lambda: False) == 6
    assert_same(tmp_path / "run", theirs)
    theirs.finish()


def test_an_acquisition_that_ends_before_its_first_image(tmp_path, monkeypatch):
    monkeypatch.setattr("quietscope.acquisition.sources.follow_dataset.GRACE_S", 0.2)
    with pytest.raises(AcquisitionError, match="ended before an image was saved"):
        await_dataset(SavedAcquisitions(tmp_path / "data"), is_running=lambda: False)


def test_an_acquisition_of_pycromanager_is_followed_from_another_program(tmp_path):
    """Images come in the end at the latest: pycro-manager's own engine writes its index late."""
    run, data = tmp_path / "run", tmp_path / "their data"
    data.mkdir()
    command = [sys.executable, "-m", "quietscope.cli", "record", "--saved-in", data, "--out", run]
    following = subprocess.Popen(
        [str(word) for word in [*command, "--json"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    wait_for(lambda: (run / "events.log").exists() or following.poll() is not None)
    given = []

    def keep(image, metadata):
        given.append(image.copy())
        return image, metadata

    with open_microscope(MicroscopeSettings(exposure_ms=2, roi=(0, 0, 64, 64))) as microscope:
        microscope.set_property("Mode", "Noise")
        with Acquisition(str(data), "cells", image_process_fn=keep) as acquisition:
            acquisition.acquire(multi_d_acquisition_events(num_time_points=150))
    said, complained = following.communicate(timeout=60)
    assert following.returncode == 0, complained
    report = json.loads(said)
    assert report["frames_recorded"] == 150
    assert Path(report["followed"]).parent == data
    np.testing.assert_array_equal(list(open_stack(run)), given)


def started(command: list[object], folder: Path) -> subprocess.Popen[str]:
    """Start a quietscope command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "quietscope.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def test_live_follows_what_micro_managers_window_acquires(micro_manager, make_bundle, tmp_path):
    """`live --attach --follow`, started before the acquisition; live mode is off."""
    run = tmp_path / "run"
    command = ["live", "--attach", "--follow", "--port", micro_manager.port, "--out", run]
    command += ["--model", make_bundle(), "--no-preview", "--json"]
    following = started(command, tmp_path)
    try:
        micro_manager.switch("acquiring", True)
        theirs = TheirAcquisition(micro_manager.folder / "data")
        theirs.save(4)
        wait_for(lambda: (run / "raw.ome.zarr" / "zarr.json").exists() or following.poll())
        theirs.save(8)
        theirs.finish()
    finally:
        micro_manager.switch("acquiring", False)
    said, complained = following.communicate(timeout=60)
    assert following.returncode == 0, complained
    report = json.loads(said)
    assert report["frames_recorded"] == report["frames_denoised"] == 12
    assert report["camera"]["camera"] == "DemoCamera-MultiMode"
    assert_same(run, theirs)


def test_an_acquisition_that_cannot_be_followed_is_named(tmp_path):
    theirs = MicroManager(tmp_path / "theirs", "--save-mode", "MULTIPAGE_TIFF")
    theirs.switch("acquiring", True)
    try:
        done = quietscope("record", "--attach", "--port", theirs.port, "--out", tmp_path / "run")
        assert done.exit_code == 1
        assert "saved as MULTIPAGE_TIFF" in done.stderr
        assert "'NDTiff'" in " ".join(done.stderr.split())
    finally:
        theirs.end()


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("command", ["record", "live"])
def test_attaching_to_nothing_says_what_to_do(command, tmp_path):
    options = {"model": [str(tmp_path)]} if command == "live" else {}
    with pytest.raises(MicroscopeError, match="Run server on port"):
        COMMANDS[command](out=tmp_path / "run", attach=True, port=1, **options)


@pytest.mark.parametrize("says", [b"", b"220 smtp ready\r\n"])
def test_another_program_on_the_port_is_no_micro_manager(monkeypatch, says):
    monkeypatch.setattr("quietscope.acquisition.microscope.bridge.ANSWER_MS", 300)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def talk():
            for _ in range(2):
                client, _ = other.accept()
                with client:
                    client.sendall(says)
                    over.wait(10)

        over = threading.Event()
        talking = threading.Thread(target=talk)
        talking.start()
        with pytest.raises(MicroscopeError, match=r"a program listens there but says nothing"):
            server_version(other.getsockname()[1])
        over.set()
        talking.join()


def test_objects_of_java_leave_nothing_behind(attached):
    """pyjavaz registers a function for each of them, which would stay until the program ends."""
    registered = atexit._ncallbacks()
    for _ in range(20):
        attached.core.get_roi()
    assert atexit._ncallbacks() == registered


def test_following_never_acquires_itself(micro_manager, monkeypatch, tmp_path):
    """Live mode may stand still just after it was seen: it begins anew for a new exposure."""
    monkeypatch.setattr("quietscope.acquisition.commands._followed", lambda *_, **__: None)
    monkeypatch.setattr("quietscope.acquisition.commands._run_own", None)
    followed = []
    monkeypatch.setattr(
        "quietscope.acquisition.sources.follow_camera.follow", lambda *_, **__: followed.append(1)
    )
    COMMANDS["record"](out=tmp_path / "run", follow=True, attach=True, port=micro_manager.port)
    assert followed == [1]


def test_follow_needs_a_micro_manager(tmp_path):
    done = quietscope("record", "--follow", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "--attach" in done.stderr


@pytest.mark.parametrize("whose", ["live mode", "acquisition"])
def test_a_micro_manager_that_crashes_costs_nothing_that_was_recorded(tmp_path, whose):
    theirs = MicroManager(tmp_path / "theirs")
    theirs.switch("live", whose == "live mode")
    run = tmp_path / "run"
    command = ["record", "--attach", "--port", theirs.port, "--out", run]
    command += ["--follow"] if whose == "live mode" else ["--frames", 10_000]
    following = started(command, tmp_path)
    log = run / "frames.jsonl"
    try:
        wait_for(
            lambda: (
                following.poll() is not None
                or (log.exists() and log.read_text(encoding="utf-8").count("\n") > 10)
            ),
            seconds=60,
        )
        theirs.crash()
        _, complained = following.communicate(timeout=60)
    finally:
        theirs.crash()
        following.kill()
        following.communicate()
    server_terminated(theirs.port)
    assert following.returncode == 1
    assert "has ended; what was recorded until then is kept" in " ".join(complained.split())
    assert "Traceback" not in complained
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["frames_recorded"] == written_frames(run / "raw.ome.zarr").sum() > 10
    assert not is_owned(run)


def own_acquisition(live, port, bursts, *, hook=None):
    """What a user's script does that knows of nothing but pycro-manager's port.

    `bursts` are lists of events; several in a list are one hardware sequence.
    """
    with (
        live,
        Acquisition(
            str(live._directory.path.parent / "theirs"),
            "cells",
            port=port,
            image_process_fn=hook or live.image_process_fn,
            show_display=False,
        ) as acquisition,
    ):
        for events in bursts:
            acquisition.acquire(events)


def times(*numbers):
    return [{"axes": {"time": number}} for number in numbers]


def test_a_burst_and_then_single_snaps_are_one_stream(
    attached, micro_manager, make_bundle, tmp_path
):
    """Java names the camera on images of sequences only; the model is found for all of them."""
    live = LiveDenoiser(make_bundle(context_frames=1), tmp_path / "run", provider="cpu")
    own_acquisition(live, micro_manager.port, [times(0, 1, 2, 3), *(times(t) for t in (4, 5))])
    stack = open_stack(tmp_path / "run")
    assert stack.sizes == {"time": 6, "channel": 1, "z": 1}
    lines = [line["metadata"] for _, _, line in read_frame_log(tmp_path / "run" / "frames.jsonl")]
    assert ["Camera" in tags for tags in lines] == [True] * 4 + [False] * 2
    assert live.report["frames_denoised"] == 6
    assert live.report["complete"]


def test_the_tags_say_which_camera_it_is(attached, micro_manager, tmp_path):
    live = LiveDenoiser(output=tmp_path / "run")
    own_acquisition(live, micro_manager.port, [times(0), times(1)])
    about = open_stack(tmp_path / "run").attributes["quietscope"]
    assert about["camera"] == attached.fingerprint().model_dump(mode="json")
    assert about["exposure_ms"] == 5
    assert open_stack(tmp_path / "run").pixel_size_um == 1
    assert live.report["camera"] == about["camera"]


def test_a_model_of_another_camera_is_refused_by_the_tags(
    attached, micro_manager, make_bundle, tmp_path
):
    model = make_bundle(camera="Zyla")
    live = LiveDenoiser(model, tmp_path / "run", provider="cpu")
    with pytest.raises(CameraMismatchError, match="camera is DemoCamera-MultiMode"):
        own_acquisition(live, micro_manager.port, [times(t) for t in range(3)])
    assert live.report["frames_recorded"] == 3
    assert live.report["frames_denoised"] == 0


def test_a_hook_that_raises_on_java(attached, micro_manager, tmp_path):
    """Java goes on calling it with the images after that: not a slow disk's fault."""
    live, came = LiveDenoiser(output=tmp_path / "run"), []

    def hook(image, metadata):
        came.append(metadata["Axes"]["time"])
        if came[-1] == 2:
            raise ZeroDivisionError("my own mistake")
        return live.image_process_fn(image, metadata)

    with pytest.raises(ZeroDivisionError, match="my own mistake"):
        own_acquisition(live, micro_manager.port, [times(*range(6))], hook=hook)
    assert not live.report["complete"]
    assert "my own mistake" in live.report["errors"][-1]


SCRIPT = """
import sys
from pycromanager import Acquisition, multi_d_acquisition_events
from quietscope.acquisition import LiveDenoiser

with LiveDenoiser(output=sys.argv[1]) as live:
    with Acquisition(
        sys.argv[1] + " theirs",
        "cells",
        port=int(sys.argv[2]),
        image_process_fn=live.image_process_fn,
        show_display=False,
    ) as acquisition:
        acquisition.acquire(multi_d_acquisition_events(num_time_points=20_000))
"""


def test_a_users_script_ends_with_micro_manager(tmp_path):
    """pycro-manager alone would wait for ever, and once more when the program ends."""
    theirs, run = MicroManager(tmp_path / "theirs"), tmp_path / "run"
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(run), str(theirs.port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    log = run / "frames.jsonl"
    try:
        wait_for(
            lambda: (
                script.poll() is not None
                or (log.exists() and log.read_text(encoding="utf-8").count("\n") > 10)
            ),
            seconds=60,
        )
        theirs.crash()
        _, complained = script.communicate(timeout=60)
    finally:
        theirs.crash()
        script.kill()
        script.communicate()
    server_terminated(theirs.port)
    assert script.returncode == 1
    last = complained.strip().splitlines()[-1]
    assert "AcquisitionError" in last
    assert "Micro-Manager has ended" in last
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["frames_recorded"] == written_frames(run / "raw.ome.zarr").sum() > 10
    assert not report["complete"]
    assert report["errors"]


# ------------------------------------------------------------------------------- doctor


def findings_of(done) -> dict:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_doctor_goes_the_whole_way(micro_manager):
    done = quietscope(
        "doctor", "--attach", "--port", micro_manager.port, "--test-acquisition", "--json"
    )
    assert done.exit_code == 0, done.output
    found = findings_of(done)
    assert tuple(found) == QUESTIONS
    assert all(check["passed"] for check in found.values())
    assert "5.1.0" in found["server"]["value"]
    assert "2.0.3" in found["versions"]["value"]
    assert "512×512 uint16" in found["camera"]["value"]
    assert "snapped" in found["image"]["value"]
    assert found["transfer"]["figures"]["mb_per_s"] > 1
    assert found["hook"]["figures"]["frames_recorded"] == 10


def test_doctor_reads_live_mode_and_leaves_it_on(micro_manager, live_mode):
    done = quietscope("doctor", "--attach", "--port", micro_manager.port, "--json")
    found = findings_of(done)
    assert "goes on" in found["image"]["value"]
    assert found["image"]["passed"]
    assert "not tried" in found["hook"]["value"]
    assert is_running(live_mode)
    figures = found["transfer"]["figures"]
    # 5 ms of exposure; the demo camera needs some time for its picture.
    assert 5 < figures["camera_images_per_s"] < 250


@pytest.mark.parametrize(
    ("images_per_s", "camera_hz", "entry"),
    [
        (100, 40, "image_process_fn"),
        (100, 60, "image_process_fn, mode='sink'"),
        (100, 200, "image_saved_fn"),
    ],
)
def test_doctor_chooses_the_entry_that_keeps_up(images_per_s, camera_hz, entry):
    from quietscope.doctor.attached import _entry

    chosen, advice = _entry(images_per_s, camera_hz)
    assert chosen == entry
    assert entry.split(",")[0] in advice


def test_doctor_names_what_the_camera_cannot(micro_manager, attached):
    attached.set_property("PixelType", "32bitRGB")
    done = quietscope("doctor", "--attach", "--port", micro_manager.port, "--json")
    attached.set_property("PixelType", "16bit")
    found = findings_of(done)
    assert list(found) == ["server", "versions", "camera"]
    assert "expected 8- or 16-bit grey" in found["camera"]["value"]
    assert not found["camera"]["passed"]


def test_doctor_says_what_to_switch_on():
    done = quietscope("doctor", "--attach", "--port", 1)
    assert done.exit_code == 1
    assert "1 of 1 checks failed: server" in done.stdout
    assert "FAIL server" in done.stdout
    assert "Tools > Options" in done.stdout
    failed = quietscope("doctor", "--attach", "--port", 1, "--json")
    assert json.loads(failed.stdout)["passed"] is False


def test_a_server_of_another_version_is_refused_by_every_command(tmp_path):
    old = MicroManager(tmp_path / "old", "--version", "4.2.0")
    there = ("--attach", "--port", old.port)
    try:
        doctor = quietscope("doctor", *there, "--json")
        record = quietscope("record", *there, "--out", tmp_path / "run")
    finally:
        old.end()
    found = findings_of(doctor)
    assert list(found) == ["server"]
    for said in (found["server"]["advice"], " ".join(record.stderr.split())):
        assert "server has version 4.2.0" in said
        assert "was made for 5.1.0: pycro-manager is newer, so update Micro-Manager" in said
    assert doctor.exit_code == record.exit_code == 1
    assert not (tmp_path / "run").exists()


def test_a_micro_manager_that_has_no_core(tmp_path):
    coreless = MicroManager(tmp_path / "coreless", "--no-core")
    try:
        done = quietscope("record", "--attach", "--port", coreless.port, "--out", tmp_path / "run")
    finally:
        coreless.end()
    assert done.exit_code == 1
    assert "gives no core" in " ".join(done.stderr.split())
    assert "load its hardware configuration" in " ".join(done.stderr.split())


def test_doctor_says_what_is_not_saved(tmp_path):
    unsaved = MicroManager(tmp_path / "unsaved", "--save-mode", "NONE")
    try:
        done = quietscope("doctor", "--attach", "--port", unsaved.port, "--json")
    finally:
        unsaved.end()
    found = findings_of(done)
    assert "not saved" in found["multi-d"]["value"]
    assert "'NDTiff'" in found["multi-d"]["advice"]


# ------------------------------------------------------- whoever acquires is not disturbed


@pytest.mark.parametrize(
    "command",
    [
        ("record", "--exposure-ms", 3),
        ("record", "--channel", "DAPI"),
        ("record", "--z", "0,1,1"),
        ("calibrate",),
    ],
    ids=lambda command: " ".join(map(str, command)),
)
def test_another_programs_images_are_not_changed(micro_manager, live_mode, tmp_path, command):
    before = live_mode.exposure_ms
    there = ("--attach", "--port", micro_manager.port)
    done = quietscope(*command, *there, "--out", tmp_path / "out.npz")
    assert done.exit_code == 1
    assert "somebody is acquiring with it" in " ".join(done.stderr.split())
    assert is_running(live_mode)
    assert live_mode.exposure_ms == before
    assert not (tmp_path / "out.npz").exists()


def test_planes_around_the_focus_of_a_running_micro_manager(micro_manager, tmp_path):
    there = ("--attach", "--port", micro_manager.port)
    with open_microscope(MicroscopeSettings(attach=True, port=micro_manager.port)) as microscope:
        microscope.core.set_position("Z", 25.0)
        channel = microscope.core.get_property("Dichroic", "Label")
    done = quietscope(
        *("record", *there, "--out", tmp_path / "run", "--frames", 1, "--z", "0,2,1"),
        *("--channel", "Cy5", "--roi", "0,0,64,48"),
    )
    assert done.exit_code == 0, done.output
    assert "3 planes from 25 to 27 µm" in " ".join(done.stderr.split())
    with open_microscope(MicroscopeSettings(attach=True, port=micro_manager.port)) as microscope:
        assert microscope.focus_um == pytest.approx(25.0)
        assert microscope.core.get_property("Dichroic", "Label") == channel
        assert microscope.frame_shape == (512, 512)
        microscope.core.set_position("Z", 0.0)


@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl-C as a signal")
def test_ctrl_c_brings_everything_back(micro_manager, tmp_path):
    settings = MicroscopeSettings(attach=True, port=micro_manager.port)
    with open_microscope(settings) as microscope:
        microscope.core.set_position("Z", 25.0)
        before = (microscope.exposure_ms, microscope.roi, microscope.focus_um)
        stop_at = tmp_path / "run" / "frames.jsonl"
        recording = subprocess.Popen(
            [sys.executable, "-m", "quietscope.cli", "record", "--attach", "--frames", "2000",
             "--port", str(micro_manager.port), "--out", str(tmp_path / "run"), "--z", "-1,1,0.5",
             "--exposure-ms", "7", "--roi", "8,8,64,48"],
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        wait_for(lambda: stop_at.exists() and stop_at.stat().st_size > 0)
        recording.send_signal(signal.SIGINT)
        try:
            _, said = recording.communicate(timeout=60)
        finally:
            recording.kill()
        assert recording.returncode == 1, said
        assert "stopped by the user" in said
        assert (microscope.exposure_ms, microscope.roi, microscope.focus_um) == before
        microscope.core.set_position("Z", 0.0)


@pytest.mark.long
def test_its_own_imaging_is_seen_as_a_live_session(tmp_path, monkeypatch):
    """So that training gives way to people who do not use quietscope at the moment."""
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state"))
    theirs = MicroManager(tmp_path / "theirs")
    program = [sys.executable, "-m", "quietscope.acquisition.microscope.watch", str(theirs.port)]
    watching = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    try:
        for what in ("live", "acquiring"):
            theirs.switch(what, True)
            wait_for(who_is_live)
            theirs.switch(what, False)
            wait_for(lambda: who_is_live() is None)
        theirs.switch("live", True)
        wait_for(who_is_live)
        theirs.crash()
        assert watching.wait(20) == 1
        assert who_is_live() is None
    finally:
        watching.kill()
        watching.wait()
        theirs.crash()
