"""Ctrl-C at every moment, as often as it is pressed: nothing runs on, nothing keeps a program."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.engine import open_engine, stop_engine
from quietscope.acquisition.errors import AcquisitionError
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.acquisition.stream.accounting import FrameNumbers
from quietscope.acquisition.stream.active_run import PRESSES
from quietscope.acquisition.stream.model_requests import ModelRequests
from quietscope.acquisition.stream.recorder import Recorder
from quietscope.storage.open_stack import open_stack

IMAGE = np.full((16, 16), 7, np.uint16)


@pytest.fixture(scope="module")
def microscope():
    with open_microscope(MicroscopeSettings(exposure_ms=1, roi=(0, 0, 16, 16))) as opened:
        yield opened


@pytest.fixture
def begun():
    """Return what threads a test has begun that are still at work."""
    before = set(threading.enumerate())
    return lambda: [thread for thread in threading.enumerate() if thread not in before]


def wait_until(done, seconds=10):
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        time.sleep(0.005)
    return done()


def press(*_):
    raise KeyboardInterrupt


def test_an_engine_keeps_no_program_and_stops_when_told(microscope, begun):
    engine = open_engine(image_process_fn=lambda image, tags: None, show_display=False)
    own = [t for t in begun() if not t.name.startswith("Acq")]  # of a pool, that ends by itself
    assert own
    assert all(thread.daemon for thread in own)
    stop_engine(engine)
    engine.await_completion()
    assert not engine._event_thread.is_alive()


def test_ctrl_c_while_the_engine_is_made(microscope, monkeypatch):
    made = []

    class Pressed(Future):
        def result(self, timeout=None):
            if not made:
                made.append(self)
                press()
            return super().result(timeout)

    monkeypatch.setattr("quietscope.acquisition.engine.Future", Pressed)
    with pytest.raises(KeyboardInterrupt):
        open_engine(image_process_fn=lambda image, tags: None, show_display=False)
    engine = made[0].result(10)
    assert wait_until(lambda: not engine._event_thread.is_alive())


def test_ctrl_c_while_a_run_begins(tmp_path, monkeypatch, begun):
    with monkeypatch.context() as at_the_last_step:
        at_the_last_step.setattr(ModelRequests, "start", press)
        with pytest.raises(KeyboardInterrupt):
            LiveDenoiser(output=tmp_path / "run").__enter__()
    assert not [thread for thread in begun() if thread.name.startswith("quietscope")]
    with LiveDenoiser(output=tmp_path / "run", overwrite=True) as live:
        live.image_process_fn(IMAGE, {})
    assert live.report["frames_recorded"] == 1


@pytest.mark.parametrize("presses", [1, PRESSES - 1])
def test_ctrl_c_while_the_last_frames_are_recorded(tmp_path, monkeypatch, presses):
    """The report counted while the recorder still wrote, and its stores stayed open."""
    close, pressed = Recorder.close, []

    def close_at_last(recorder):
        if len(pressed) < presses:
            pressed.append(1)
            press()
        close(recorder)

    monkeypatch.setattr(Recorder, "close", close_at_last)
    with LiveDenoiser(output=tmp_path / "run") as live:
        for time_point in range(20):
            live.image_process_fn(IMAGE, {"Axes": {"time": time_point}})
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["frames_recorded"] == len(open_stack(tmp_path / "run")) == 20
    assert report["complete"]


class Wordless:
    """An object of a script, or a device adapter, that answers nothing."""

    def __getattr__(self, name):
        raise RuntimeError("no answer")

    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("image", "axes"),
    [(IMAGE[:0], {"time": 1}), (IMAGE, {"time": 1, "channel": Wordless()}), (None, {"time": 1})],
    ids=["empty", "wordless", "none"],
)
def test_what_is_no_image_is_refused_and_counted(tmp_path, image, axes):
    def acquire():
        with live:
            live.image_process_fn(IMAGE, {"Axes": {"time": 0}})
            live.image_process_fn(image, {"Axes": axes})

    live = LiveDenoiser(output=tmp_path / "run")
    with pytest.raises(AcquisitionError) as said:
        acquire()
    assert "\n" not in str(said.value)
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert (report["frames_recorded"], report["frames_refused"]) == (1, 1)
    assert report["errors"]


@pytest.mark.parametrize("absurd", [-5, 10**30, 2**48])
def test_a_number_that_no_camera_counts_is_no_gap(absurd):
    numbers = FrameNumbers()
    found = [numbers.missing_before({"ImageNumber": n}) for n in (0, absurd, 1, 3)]
    assert found == [0, 0, 0, 1]
