"""Many frames in a row: every result belongs to its frame, however late copies are made."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from quietscope.inference.errors import InferenceError
from quietscope.inference.runtime.buffers import CudaBuffers
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.pipeline import (
    LANES,
    BlockingLane,
    FramePipeline,
    Streams,
    copying_lanes,
)
from quietscope.inference.runtime.tiling import TiledDenoiser

SHAPE = (24, 40)


class LateRuntime:
    """Streams that do real copies, each as late as it may be: when somebody waits for it.

    `eager` names a stream whose work is done as soon as nothing holds it back: with one stream
    ahead and the others behind, an order that is not asked for does not come about by chance.
    """

    def __init__(self, eager: int | None = None) -> None:
        self.queues: list[deque[tuple[str, Callable[[], None] | int]]] = []
        self.come: dict[int, int] = {}
        self.recorded: dict[int, int] = {}
        self.eager = eager
        self.done: list[str] = []
        self.locked: list[int] = []
        self.released = 0
        self.calls = 0

    def stream(self) -> int:
        self.queues.append(deque())
        return len(self.queues) - 1

    def event(self) -> int:
        self.recorded[len(self.recorded)] = 0
        self.come[len(self.come)] = 0
        return len(self.recorded) - 1

    def copy(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)

    def copy_later(self, target: int, source: int, size: int, stream: int) -> None:
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))

    def enqueue(self, stream: int, work: Callable[[], object]) -> None:
        self.calls += 1
        self.queues[stream].append(("do", work))
        self._run_eager()

    def record(self, event: int, stream: int) -> None:
        self.recorded[event] += 1
        self.queues[stream].append(("record", event))
        self._run_eager()

    def let_wait(self, stream: int, event: int) -> None:
        # An event stands for what was recorded when the wait was asked for.
        self.queues[stream].append(("wait", (event, self.recorded[event])))
        self._run_eager()

    def wait(self, event: int) -> None:
        wanted = self.recorded[event]
        while self.come[event] < wanted:
            holder = next(
                stream
                for stream, queue in enumerate(self.queues)
                if ("record", event) in [(kind, what) for kind, what in queue]
            )
            self._advance(holder)

    def release(self, streams: list[int], events: list[int]) -> None:
        self.released += len(streams) + len(events)

    def lock(self, array: np.ndarray) -> bool:
        self.locked.append(array.ctypes.data)
        return True

    def unlock(self, array: np.ndarray) -> None:
        self.locked.remove(array.ctypes.data)

    def _run_eager(self) -> None:
        if self.eager is not None:
            while self.queues[self.eager] and self._step(self.eager):
                pass

    def _advance(self, stream: int) -> None:
        """Do the next thing of a stream, and first whatever that waits for."""
        kind, what = self.queues[stream][0]
        if kind == "wait" and self.come[what[0]] < what[1]:
            holder = next(
                other for other, queue in enumerate(self.queues) if ("record", what[0]) in queue
            )
            self._advance(holder)
            return
        self._step(stream)

    def _step(self, stream: int) -> bool:
        kind, what = self.queues[stream][0]
        if kind == "wait" and self.come[what[0]] < what[1]:
            return False
        self.queues[stream].popleft()
        if kind == "do":
            what()
            self.done.append(["upload", "compute", "download"][stream])
        elif kind == "record":
            self.come[what] += 1
        return True


def frames(count, context_frames=0):
    random = np.random.default_rng(5)
    return random.integers(0, 60000, (count, 1 + context_frames, *SHAPE)).astype(np.uint16)


def expected(denoiser, seen):
    results = np.empty((len(seen), 2, *SHAPE), np.float32)
    for frame, out in zip(seen, results, strict=True):
        denoiser.denoise(frame, out)
    return results


def through(pipeline, seen):
    results = {}
    reused = np.empty_like(seen[0])
    for key, frame in enumerate(seen):
        reused[:] = frame
        for done, estimate in pipeline.put(key, reused):
            results[done] = estimate.copy()
        reused[:] = 0  # the caller's memory is the caller's again
    for done, estimate in pipeline.drain():
        results[done] = estimate.copy()
    return results


@pytest.fixture
def session_lanes(make_bundle):
    """Lanes as on a GPU, with memory of this process in the place of the GPU's."""
    opened = []

    def make(runtime, context_frames=0):
        import onnxruntime as ort

        denoiser = OnnxDenoiser(
            make_bundle(context_frames=context_frames), SHAPE, provider="cpu", threads=1
        )
        opened.append(denoiser)
        arrays = [
            np.zeros((1, 1 + context_frames, *SHAPE), np.uint16),
            np.zeros((1, 1, *SHAPE), np.float32),
            np.zeros((1, 1, *SHAPE), np.float32),
        ]
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays]
        session = denoiser._ready.running.session
        binding = session.io_binding()
        for name, value in zip(("denoised", "uncertainty"), values[1:], strict=True):
            binding.bind_ortvalue_output(name, value)
        binding.bind_ortvalue_input("observations", values[0])
        streams = Streams(runtime)
        lanes = copying_lanes(
            streams,
            lambda: runtime.enqueue(streams.compute, lambda: session.run_with_iobinding(binding)),
            observations=arrays[0][0],
            bound=values,
            memory="cpu",
        )
        return denoiser, lanes, arrays

    yield make
    for denoiser in opened:
        denoiser.close()


@pytest.mark.parametrize("eager", [None, 0, 1, 2])
@pytest.mark.parametrize("context_frames", [0, 2])
def test_every_frame_gets_its_own_result_however_late_the_copies(
    session_lanes, eager, context_frames
):
    runtime = LateRuntime(eager)
    denoiser, lanes, _ = session_lanes(runtime, context_frames)
    seen = frames(11, context_frames)
    results = through(FramePipeline(lanes), seen)
    assert list(results) == list(range(len(seen)))
    np.testing.assert_array_equal(list(results.values()), expected(denoiser, seen))


def test_a_frame_is_uploaded_before_the_one_before_was_computed(session_lanes):
    """An eager upload stream never waits for the other two: that is what overlaps."""
    runtime = LateRuntime(eager=0)
    _, lanes, _ = session_lanes(runtime)
    pipeline = FramePipeline(lanes)
    for key, frame in enumerate(frames(LANES - 1)):
        assert pipeline.put(key, frame) == []
    assert runtime.done == ["upload"] * (LANES - 1)


def test_a_result_is_handed_out_while_later_frames_are_still_to_be_computed(session_lanes):
    runtime = LateRuntime()
    _, lanes, _ = session_lanes(runtime)
    pipeline = FramePipeline(lanes)
    for key, frame in enumerate(frames(LANES)):
        finished = pipeline.put(key, frame)
    assert [key for key, _ in finished] == [0]
    assert pipeline.under_way == LANES - 1
    per_frame = {"compute": 4, "download": 1}  # in, the run, two planes out
    for kind, count in per_frame.items():
        assert runtime.done.count(kind) == count


def test_frames_that_nobody_follows_are_drained(session_lanes):
    runtime = LateRuntime()
    denoiser, lanes, _ = session_lanes(runtime)
    pipeline, seen = FramePipeline(lanes), frames(1)
    assert pipeline.put("only", seen[0]) == []
    ((key, estimate),) = pipeline.drain()
    assert key == "only"
    np.testing.assert_array_equal(estimate, expected(denoiser, seen)[0])
    assert pipeline.under_way == 0
    assert list(pipeline.drain()) == []


def test_nothing_is_taken_per_frame_and_everything_is_given_back(session_lanes):
    runtime = LateRuntime()
    _, lanes, _ = session_lanes(runtime)
    taken = len(runtime.recorded), len(runtime.queues), list(runtime.locked)
    pipeline = FramePipeline(lanes)
    addresses = set()
    for key, frame in enumerate(frames(12)):
        addresses |= {estimate.ctypes.data for _, estimate in pipeline.put(key, frame)}
    assert (len(runtime.recorded), len(runtime.queues), runtime.locked) == taken
    assert len(addresses) == LANES
    pipeline.close()
    pipeline.close()
    assert not runtime.locked
    assert runtime.released == len(runtime.recorded)


def test_a_lane_that_fails_leaves_no_other_locked(session_lanes, monkeypatch):
    runtime = LateRuntime()
    _, lanes, _ = session_lanes(runtime)
    wait, failing = runtime.wait, lanes[1]._downloaded

    def lost(event):
        if event == failing:
            raise InferenceError("the GPU is lost")
        wait(event)

    monkeypatch.setattr(runtime, "wait", lost)
    with pytest.raises(InferenceError, match="the GPU is lost"):
        FramePipeline(lanes).close()
    assert not runtime.locked
    assert runtime.released == len(runtime.recorded)


def test_what_goes_in_waits_in_the_stream_of_the_session(monkeypatch):
    """A copy outside of that stream may be under way when the session begins."""
    import onnxruntime as ort

    ordinary = ort.OrtValue.ortvalue_from_shape_and_type
    monkeypatch.setattr(
        ort.OrtValue, "ortvalue_from_shape_and_type", lambda shape, kind, _: ordinary(shape, kind)
    )
    runtime = LateRuntime()
    streams = [runtime.stream() for _ in range(3)]
    buffers = CudaBuffers((1, 1, *SHAPE), np.dtype(np.uint16), runtime, streams[1])
    buffers.observations[0] = frames(1)[0]
    buffers.upload()
    binding = SimpleNamespace(bind_ortvalue_input=lambda name, value: None)
    buffers.bind_maps(np.ones((1, 3, *SHAPE), np.float32), binding)
    assert [len(queue) for queue in runtime.queues] == [0, 2, 0]
    while runtime.queues[1]:
        runtime._step(1)
    np.testing.assert_array_equal(buffers.device[0].numpy()[0], frames(1)[0])
    np.testing.assert_array_equal(buffers._device_maps.numpy(), 1)


@pytest.mark.parametrize("kind", ["whole", "tiles"])
def test_where_there_are_no_copies_a_frame_is_finished_at_once(make_bundle, kind):
    opened = (
        OnnxDenoiser(make_bundle(), SHAPE, provider="cpu", threads=1)
        if kind == "whole"
        else TiledDenoiser(make_bundle(), SHAPE, tile=20, provider="cpu", threads=1)
    )
    seen = frames(3)
    with opened as denoiser:
        wanted = expected(denoiser, seen)
        pipeline = denoiser.pipeline()
        for key, frame in enumerate(seen):
            ((done, estimate),) = pipeline.put(key, frame)
            assert done == key
            np.testing.assert_array_equal(estimate, wanted[key])
        assert list(pipeline.drain()) == []
        pipeline.close()
        assert isinstance(pipeline._free[0], BlockingLane)


@pytest.mark.gpu
def test_a_pipeline_on_the_gpu_gives_what_single_frames_give(make_bundle):
    seen = frames(50)
    with OnnxDenoiser(make_bundle(), SHAPE, provider="cuda") as denoiser:
        wanted = expected(denoiser, seen)
        pipeline = denoiser.pipeline()
        assert not isinstance(pipeline._free[0], BlockingLane)
        results = through(pipeline, seen)
        pipeline.close()
        np.testing.assert_allclose(list(results.values()), wanted, rtol=1e-5)
        np.testing.assert_allclose(expected(denoiser, seen), wanted, rtol=1e-5)
