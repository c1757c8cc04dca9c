"""Another model takes over while a run lasts: between two frames, and none is lost."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.errors import AcquisitionError
from quietscope.acquisition.stream import active_run, model_requests
from quietscope.acquisition.stream.denoise_stage import DenoiseStage
from quietscope.acquisition.stream.model_switch import LARGEST_GRAPH_BYTES
from quietscope.acquisition.stream.thread_priority import NICENESS
from quietscope.calibration.errors import CameraMismatchError
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.inference.bundle import MODEL
from quietscope.inference.errors import BundleError, InferenceError
from quietscope.inference.library import Library
from quietscope.inference.models_commands import use_model
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.live_sessions import live_session, sessions_folder
from quietscope.storage.open_stack import open_stack
from quietscope.storage.session_requests import (
    ModelRequest,
    RunningSession,
    SessionAbout,
    announce,
    clear,
    running_sessions,
)

SHAPE = (32, 32)


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return rng.poisson(100, (60, *SHAPE)).astype(np.uint16)


def send(live, frames, times, *, pause_s=0.0, channel=None):
    for t in times:
        axes = {"time": t} if channel is None else {"time": t, "channel": channel}
        live.image_process_fn(frames[t], {"Axes": axes})
        time.sleep(pause_s)


def blurred(frame, radius):
    return uniform_filter(frame.astype(np.float32), 2 * radius + 1, mode="nearest")


def test_every_frame_is_denoised_once_by_the_model_of_its_time(tmp_path, make_bundle, frames):
    first, second = make_bundle("first"), make_bundle("second", radius=3)
    run = tmp_path / "run"
    with LiveDenoiser(first, run, provider="cpu") as live:
        send(live, frames, range(15), pause_s=0.01)
        send(live, frames, range(15, 30))  # too fast: most are skipped, and done afterwards
        assert "second" in live.use(second)
        send(live, frames, range(30, 60), pause_s=0.01)
    report = live.report
    assert report["complete"]
    assert report["frames_denoised"] == 60
    (switch,) = report["model_switches"]
    assert (switch["before"], switch["after"]) == ("first", "second")
    change = switch["from_frame"]
    assert 15 < change <= 31
    denoised = list(open_stack(run / "denoised.ome.zarr"))
    for t, (frame, found) in enumerate(zip(frames, denoised, strict=True)):
        expected = blurred(frame, 1 if t < change else 3)
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=f"frame {t}")
    about = open_stack(run / "denoised.ome.zarr").attributes["quietscope"]
    assert about["models"]["0"]["model_sha256"] == switch["before_sha256"]
    (told,) = about["model_changes"]
    assert (told["from_frame"], told["channel"]) == (change, "*")
    assert told["model"]["model_sha256"] == switch["after_sha256"] == report["model_sha256"]
    assert "second from here on" in (run / "events.log").read_text()


def test_a_model_that_went_after_the_change_costs_its_own_frames_alone(
    tmp_path, make_bundle, frames, monkeypatch
):
    first, second = make_bundle("first"), make_bundle("second", radius=3)
    really = DenoiseStage._publish

    def slowly(self, *given):
        time.sleep(0.02)
        really(self, *given)

    monkeypatch.setattr(DenoiseStage, "_publish", slowly)
    live = LiveDenoiser(first, tmp_path / "run", provider="cpu")

    def recorded():
        with live:
            send(live, frames, range(30), pause_s=0.005)  # too fast: most are skipped
            live.use(second)
            shutil.rmtree(first)
            send(live, frames, range(30, 60))

    with pytest.raises(BundleError, match="no model bundle"):
        recorded()
    (switch,) = live.report["model_switches"]
    there = open_stack(tmp_path / "run" / "denoised.ome.zarr").present_indices
    assert set(range(switch["from_frame"], 60)) <= set(there.tolist())
    assert live.report["frames_recorded"] == 60


def test_what_does_not_fit_is_refused_in_a_line_and_the_old_one_goes_on(
    tmp_path, make_bundle, frames
):
    camera = CameraFingerprint(camera="A", serial="1")
    first = make_bundle("first", camera="A")
    odd = {
        "context": (make_bundle("context", context_frames=2), InferenceError, "preceding frames"),
        "pixels": (make_bundle("pixels", pixel_type="uint8"), InferenceError, "pixels of type"),
        "camera": (make_bundle("camera", camera="B"), CameraMismatchError, "camera"),
        "none": (tmp_path / "nowhere", BundleError, "no model bundle"),
    }
    with LiveDenoiser(first, tmp_path / "run", provider="cpu", camera=camera) as live:
        send(live, frames, range(5), pause_s=0.01)
        for bundle, kind, words in odd.values():
            with pytest.raises(kind, match=words) as refused:
                live.use(bundle)
            assert "\n" not in str(refused.value)
        heavy = make_bundle("heavy")
        os.truncate(heavy / MODEL, LARGEST_GRAPH_BYTES + 1)  # refused before a byte of it is read
        with pytest.raises(InferenceError, match=r"heavy: .* 256 MiB, .*used by the next run"):
            live.use(heavy)
        with pytest.raises(InferenceError, match="no model was given for channel GFP"):
            live.use(make_bundle("other"), "GFP")
        send(live, frames, range(5, 10))
    assert live.report["frames_denoised"] == 10
    assert live.report["model_switches"] == []
    with pytest.raises(AcquisitionError, match="inside"):
        live.use(first)


def test_one_channel_of_two_changes_over(tmp_path, make_bundle, frames):
    models = {name: make_bundle(name, channel=name) for name in ("GFP", "Cy3")}
    better = make_bundle("better", channel="Cy3", radius=2)
    with LiveDenoiser(models, tmp_path / "run", provider="cpu") as live:
        send(live, frames, range(3), channel="GFP", pause_s=0.01)
        send(live, frames, range(3), channel="Cy3", pause_s=0.01)
        live.use(better)
        send(live, frames, range(3, 6), channel="GFP", pause_s=0.01)
        send(live, frames, range(3, 6), channel="Cy3", pause_s=0.01)
    assert live.report["frames_denoised"] == 12
    (switch,) = live.report["model_switches"]
    assert switch["channel"] == "Cy3"
    stack = open_stack(tmp_path / "run" / "denoised.ome.zarr")
    for t, radius in ((4, 1), (5, 1)):
        found = stack.frame(stack.index({"time": t, "channel": 0, "z": 0}))
        np.testing.assert_allclose(found, blurred(frames[t], radius), rtol=1e-5)
    found = stack.frame(stack.index({"time": 5, "channel": 1, "z": 0}))
    np.testing.assert_allclose(found, blurred(frames[5], 2), rtol=1e-5)


def test_a_running_session_is_asked_from_another_program(tmp_path, make_bundle, frames):
    shelf = Library(tmp_path / "library")
    for name, radius in (("first", 1), ("second", 2)):
        shutil.copytree(make_bundle(name, radius=radius), shelf.models_dir / name)
    shelf.promote(shelf.models_dir / "first", "by hand")
    over = threading.Event()
    with LiveDenoiser(shelf.models_dir / "first", shelf.path / "run", provider="cpu") as live:

        def camera() -> None:
            for t in range(10_000):
                send(live, [frames[t % 60]] * (t + 1), [t], pause_s=0.01)
                if over.is_set():
                    return

        images = threading.Thread(target=camera)
        images.start()
        kept = use_model("second", shelf.path, force=True)
        assert any("keeps its model" in line for line in kept.summary)
        done = use_model("second", shelf.path, force=True, running=True)
        assert not done.failed
        (asked,) = done.result["running"]
        assert asked["granted"], asked
        time.sleep(1.5)  # a session says what it is twice a second
        again = use_model("second", shelf.path, force=True, running=True)
        over.set()
        images.join()
    assert again.result["running"] == []  # it is denoised by that model already
    assert [one["after"] for one in live.report["model_switches"]] == ["second"]
    assert live.report["newer_models"] == {}
    assert live.report["frames_denoised"] == live.report["frames_delivered"]
    assert running_sessions() == []
    assert not list(sessions_folder().glob("*.json"))


def test_a_session_that_cannot_be_asked_is_said_beside_the_model_in_use(
    tmp_path, make_bundle, monkeypatch
):
    shelf = Library(tmp_path / "library")
    for name in ("first", "second"):
        shutil.copytree(make_bundle(name), shelf.models_dir / name)

    def full(self, request, *, wait_s):
        raise OutputError("the disk is full")

    monkeypatch.setattr(RunningSession, "ask", full)
    with live_session() as place:
        announce(place, SessionAbout(run="monday", models={"*": str(shelf.models_dir / "first")}))
        done = use_model("second", shelf.path, force=True, running=True)
        clear(place)
    assert shelf.current() == shelf.models_dir / "second"
    in_use, asked = done.summary
    assert "second is in use" in in_use
    assert "monday: could not be asked" in asked
    assert "the disk is full" in asked
    assert done.failed


def test_what_a_killed_session_left_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path))
    place = sessions_folder() / "1-dead"
    announce(place, SessionAbout(run="runs/monday", models={"*": "models/a"}))
    session = RunningSession(place, SessionAbout(run="runs/monday"))
    assert session.ask(ModelRequest(model="models/b"), wait_s=5) is None
    assert running_sessions() == []
    assert not list(Path(sessions_folder()).glob("*.json"))


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness on Linux only")
def test_a_model_is_loaded_at_low_priority_whoever_asks(tmp_path, make_bundle, monkeypatch):
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    seen: list[int] = []
    really = active_run.open_bundle

    def noted(path):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return really(path)

    monkeypatch.setattr(active_run, "open_bundle", noted)
    second = make_bundle("second")
    with LiveDenoiser(make_bundle("first"), tmp_path / "run", provider="cpu") as live:
        live.use(second)
    assert seen == [min(19, ours + NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours


def test_whatever_is_asked_the_run_goes_on_and_ends(tmp_path, make_bundle, frames, monkeypatch):
    monkeypatch.setattr(model_requests, "PATIENCE_S", 0.2)
    first = make_bundle("first")
    loads, over = threading.Event(), threading.Event()
    really = active_run.open_bundle

    def never(path):
        if "hangs" not in str(path):
            return really(path)
        loads.set()
        over.wait(60)
        raise OSError("gone")

    monkeypatch.setattr(active_run, "open_bundle", never)
    run = tmp_path / "run"
    with LiveDenoiser(first, run, provider="cpu") as live:
        send(live, frames, range(5), pause_s=0.01)
        (session,) = running_sessions()
        answer = session.ask(ModelRequest(model="a\nline\x1b[2J\0" + "m" * 40_000), wait_s=20)
        assert answer is not None
        assert not answer.granted
        assert answer.words.isprintable()
        assert session.ask(ModelRequest(model="hangs"), wait_s=1) is None
        assert loads.wait(10)
        send(live, frames, range(5, 10), pause_s=0.01)
    over.set()
    assert live.report["complete"]
    assert live.report["frames_denoised"] == 10
    assert all(len(line) < 3000 for line in (run / "events.log").read_text().splitlines())
    assert not list(sessions_folder().glob("*.json"))
