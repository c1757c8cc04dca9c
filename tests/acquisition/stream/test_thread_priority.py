"""Who runs first while a stream runs: short turns, and a denoiser that steps back."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.stream.frame_pool import COPIED_IN_ONE_TURN_BYTES, FramePool
from quietscope.acquisition.stream.thread_priority import (
    NICENESS,
    SWITCH_INTERVAL_S,
    short_switch_interval,
)
from quietscope.storage.written_frames import written_frames

SHAPE = (32, 32)


def image(time: int) -> tuple[np.ndarray, dict]:
    return np.full(SHAPE, 100 + time, np.uint16), {"Axes": {"time": time}, "Camera": "Camera"}


class Observing:
    """A denoiser that notes what its thread may do."""

    context_frames = 0
    frame_shape = SHAPE

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail
        self.interval_s: list[float] = []
        self.niceness: list[int] = []
        self.policies: dict[str, int] = {}

    def denoise(self, observations, out):
        self.interval_s.append(sys.getswitchinterval())
        if sys.platform == "linux":
            self.niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            self.policies = {
                thread.name: os.sched_getscheduler(thread.native_id or 0)
                for thread in threading.enumerate()
            }
        if self.fail:
            raise RuntimeError("broken")
        out[0], out[1] = observations[0], 1.0

    def close(self):
        pass


def test_the_switch_interval_is_short_only_while_a_stream_runs(tmp_path):
    before = sys.getswitchinterval()
    denoiser = Observing()
    with LiveDenoiser(denoiser, tmp_path / "run", complete_afterwards=False) as live:
        live.image_process_fn(*image(0))
        while not denoiser.interval_s:
            threading.Event().wait(0.01)
    assert denoiser.interval_s == pytest.approx([SWITCH_INTERVAL_S])
    assert sys.getswitchinterval() == before


def test_turns_are_set_back_after_a_failure(tmp_path):
    before = sys.getswitchinterval()
    with (
        pytest.raises(Exception, match="broken"),
        LiveDenoiser(Observing(fail=True), tmp_path / "run") as live,
    ):
        live.image_process_fn(*image(0))
    assert sys.getswitchinterval() == before
    assert written_frames(tmp_path / "run" / "raw.ome.zarr").sum() == 1


def test_the_last_of_several_streams_sets_the_turns_back():
    before = sys.getswitchinterval()
    first, second = short_switch_interval(), short_switch_interval()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == before


@pytest.fixture
def interval():
    before = sys.getswitchinterval()
    yield before
    sys.setswitchinterval(before)


@pytest.mark.parametrize("chosen_s", [0.0002, 0.02])
def test_turns_that_a_script_chooses_meanwhile_are_kept(chosen_s, interval):
    with short_switch_interval():
        sys.setswitchinterval(chosen_s)
        chosen = sys.getswitchinterval()
    assert sys.getswitchinterval() == chosen != interval


def test_shorter_turns_are_left_alone(interval):
    sys.setswitchinterval(0.0001)
    chosen = sys.getswitchinterval()
    with short_switch_interval():
        assert sys.getswitchinterval() == chosen
    assert sys.getswitchinterval() == chosen


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness on Linux only")
def test_the_denoiser_steps_back_for_camera_and_hook(tmp_path):
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    denoiser = Observing()
    with LiveDenoiser(denoiser, tmp_path / "run") as live:
        live.image_process_fn(*image(0))
        while not denoiser.niceness:
            threading.Event().wait(0.01)
    assert denoiser.niceness == [min(19, ours + NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours


def may_choose_its_policy() -> bool:
    """Whether a thread here starts with the usual policy, and may take another."""
    allowed = []

    def choose():
        with suppress(OSError):
            allowed.append(os.sched_getscheduler(0) == os.SCHED_OTHER)
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            allowed.append(True)

    thread = threading.Thread(target=choose)
    thread.start()
    thread.join()
    return allowed == [True, True]


@pytest.mark.skipif(
    sys.platform != "linux" or not may_choose_its_policy(),
    reason="threads have a policy on Linux only, and some containers forbid to choose it",
)
def test_the_recorder_never_takes_the_core_of_the_hook_that_wakes_it(tmp_path):
    denoiser = Observing()
    with LiveDenoiser(denoiser, tmp_path / "run") as live:
        live.image_process_fn(*image(0))
        while not denoiser.policies:
            threading.Event().wait(0.01)
    ours = os.sched_getscheduler(0)
    assert denoiser.policies["quietscope recorder"] == os.SCHED_BATCH
    assert denoiser.policies["quietscope denoiser"] == os.SCHED_BATCH
    assert denoiser.policies["MainThread"] == ours != os.SCHED_BATCH


@pytest.mark.parametrize("size", [COPIED_IN_ONE_TURN_BYTES, 2 * COPIED_IN_ONE_TURN_BYTES])
@pytest.mark.parametrize("turned", [False, True])
def test_copies_are_the_same_however_long_they_take(size, turned):
    pixels = np.random.default_rng(0).integers(0, 65536, (512, size // 1024), np.uint16)
    pixels = pixels.T if turned else pixels
    copied = FramePool().copy(pixels)
    np.testing.assert_array_equal(copied, pixels)
    assert not np.shares_memory(copied, pixels)
    assert not copied.flags.writeable
