"""Recordings longer than memory: bounded, all of it used, the same again from seed and step."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import zarr

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError, stack_from_array
from quietscope.training.data.pixel_statistics import PixelStatistics
from quietscope.training.data.recordings import load_recordings
from quietscope.training.data.side_inputs import OtherChannel, SideInputs
from quietscope.training.errors import TrainingDataError
from quietscope.training.options import TrainingOptions
from quietscope.training.train import fit

MIB = 2**20
SHAPE = (64, 64)  # 8 KiB a frame in uint16: 128 frames per MiB


pytestmark = pytest.mark.usefixtures("one_thread")


def numbered(frames, shape=SHAPE):
    """Every pixel holds its frame's number."""
    return np.broadcast_to(
        np.arange(frames, dtype=np.uint16)[:, None, None], (frames, *shape)
    ).copy()


def loaded(stacks, *, context_frames=0, memory_mib=1, **more):
    return load_recordings(
        stacks, context_frames=context_frames, patch=32, memory_mib=memory_mib, **more
    )


def drawn_over_a_run(recordings, steps, *, patches=24):
    """What a run of so many steps draws, (steps · patches, 1 + T): the number of each frame."""
    drawn = []
    for step in range(steps):
        recordings.sampler.move(step * patches, step / steps, wait=True)
        patch = recordings.sampler.draw(patches, np.random.default_rng(step))
        assert np.nanmax(np.ptp(patch, axis=(2, 3))) == 0
        drawn.append(patch[:, :, 0, 0])
    return np.concatenate(drawn)


# ------------------------------------------------------------------------- what is in memory


def test_a_run_uses_every_frame_of_a_recording_that_exceeds_the_memory_and_no_held_out_one():
    recordings = loaded([stack_from_array(numbered(600))])
    assert sum(part.pixels.nbytes for part in recordings.resident) < MIB
    drawn = drawn_over_a_run(recordings, 300)
    assert set(drawn[:, 0].astype(int)) == set(range(540))


def test_memory_stays_what_it_was_while_the_window_moves():
    recordings = loaded([stack_from_array(numbered(600))], context_frames=2)
    at_first = recordings.resident_frames
    for step in range(0, 300, 7):
        recordings.sampler.move(step, step / 300, wait=True)
        assert sum(part.pixels.nbytes for part in recordings.resident) <= MIB
        assert 0.7 * at_first <= recordings.resident_frames <= at_first


def test_context_is_the_frame_before_or_missing_at_the_beginning():
    recordings = loaded([stack_from_array(numbered(600))], context_frames=2)
    newest, before, earlier = drawn_over_a_run(recordings, 200).T
    assert set(newest.astype(int)) == set(range(540))
    np.testing.assert_array_equal(before[newest > 0], newest[newest > 0] - 1)
    np.testing.assert_array_equal(earlier[newest > 1], newest[newest > 1] - 2)
    assert np.isnan(before[newest == 0]).all()


def test_context_is_of_the_same_plane_where_planes_alternate():
    pixels = numbered(600).reshape(120, 5, *SHAPE)
    recordings = loaded([stack_from_array(pixels, axes=("time", "z"))], context_frames=1)
    newest, before = drawn_over_a_run(recordings, 200).T
    assert set(newest.astype(int)) == set(range(540))
    np.testing.assert_array_equal(before[newest >= 5], newest[newest >= 5] - 5)


def test_every_stack_has_its_share():
    stacks = [stack_from_array(numbered(frames)) for frames in (300, 100)]
    recordings = loaded(stacks)
    seen = set()
    for step in range(100):
        recordings.sampler.move(step, step / 100, wait=True)
        seen |= {
            (part.chunk.stack, int(index))
            for part in recordings.resident
            for index in part.chunk.indices
        }
    assert len([index for stack, index in seen if stack is stacks[0]]) == 270
    assert len([index for stack, index in seen if stack is stacks[1]]) == 90


def test_patches_of_another_method_are_as_large_as_the_frames_allow():
    recordings = loaded([stack_from_array(numbered(8))])
    assert recordings.patch < min(SHAPE)
    larger = recordings.with_patch(96)
    assert larger.patch == min(SHAPE) // 16 * 16
    larger.sampler.move(0, 0.0, wait=True)
    assert larger.sampler.draw(2, np.random.default_rng(0)).shape[-1] == larger.patch


def test_a_dim_recording_has_its_share_beside_one_under_ten_times_the_light():
    structure = np.random.default_rng(0).random((40, *SHAPE))
    dim, bright = (
        (level + 0.5 * level * structure).astype(np.uint16) for level in (1_000, 10_000)
    )
    recordings = loaded([stack_from_array(dim), stack_from_array(bright)])
    recordings.sampler.move(0, 0.0, wait=True)
    drawn = recordings.sampler.draw(1000, np.random.default_rng(0))
    assert 0.45 < (drawn.mean(axis=(1, 2, 3)) < 5_000).mean() < 0.55


def test_what_is_in_memory_follows_from_seed_and_step_alone():
    def at(step, seed=0, worker=0, before=()):
        recordings = loaded([stack_from_array(numbered(600))], seed=seed, worker=worker)
        for earlier in (*before, step):
            recordings.sampler.move(earlier, earlier / 200, wait=True)
        return [part.pixels[0, 0, 0] for part in recordings.resident]

    assert at(120) == at(120, before=range(120))
    assert at(120) != at(60)
    assert at(120) != at(120, seed=1)
    assert at(120) != at(120, worker=1)


def test_nobody_waits_for_a_slow_disk_when_the_budget_is_time():
    import threading

    let_go = threading.Event()
    pixels = numbered(600)
    slow = stack_from_array(pixels)
    passed = []

    def read(position):
        passed.append(position)
        if len(passed) > 600:  # the first pass is over
            let_go.wait(30)
        return pixels[position]

    recordings = loaded([dataclasses.replace(slow, read=read)])
    before = recordings.resident
    recordings.sampler.move(100, 0.5, wait=False)
    assert recordings.resident == before
    let_go.set()
    while recordings.resident == before:
        recordings.sampler.move(100, 0.5, wait=False)
    assert recordings.resident[:-1] == before[1:]


def test_frames_that_do_not_fit_at_all_are_refused_with_what_would():
    stack = stack_from_array(np.zeros((20, 1024, 1024), np.uint16))
    with pytest.raises(TrainingDataError, match="give at least --memory-mib 28") as caught:
        loaded([stack], context_frames=6, memory_mib=16)
    assert "\n" not in str(caught.value)


def test_a_chunk_that_cannot_be_read_any_more_ends_the_run_with_one_line():
    pixels = numbered(600)
    passed = []

    def read(position):
        passed.append(position)
        if len(passed) > 700:
            raise OSError("the share is gone")
        return pixels[position]

    recordings = loaded([dataclasses.replace(stack_from_array(pixels), read=read)])
    with pytest.raises(StackError, match="the share is gone") as caught:
        drawn_over_a_run(recordings, 300)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------- the one pass


@pytest.mark.parametrize(("count", "context"), [(24, 0), (24, 2), (600, 0), (600, 2)])
def test_absent_frames_teach_nothing(count, context):
    present = np.arange(count) % 3 > 0
    pixels = np.where(present[:, None, None], numbered(count), 60_000)
    recordings = loaded([stack_from_array(pixels, present=present)], context_frames=context)
    assert recordings.frames == recordings.frames_read == present.sum()
    assert recordings.high_adu == count - 1
    there = np.flatnonzero(present)
    held_out = {int(sample.observations[0, 0, 0]) for sample in recordings.held_out}
    assert held_out <= set(there[-len(there) // 10 :].tolist())
    drawn = drawn_over_a_run(recordings, 200)
    assert set(np.unique(drawn[:, 0]).astype(int)) == set(there.tolist()) - set(
        there[-round(len(there) / 10) :].tolist()
    )
    for earlier in range(1, 1 + context):
        found = drawn[:, earlier]
        seen = ~np.isnan(found) & (found > 0)
        assert ((drawn[:, 0] - found)[seen] == earlier).all()


def test_figures_of_the_pixels_are_those_of_the_whole_recording():
    pixels = np.random.default_rng(0).normal(30_000, 20, (400, *SHAPE)).astype(np.uint16)
    recordings = loaded([stack_from_array(pixels)])
    assert recordings.resident_frames < 200
    assert recordings.frames_read == recordings.frames == 400
    assert (recordings.low_adu, recordings.high_adu) == (pixels.min(), pixels.max())
    assert recordings.centre_adu == pytest.approx(pixels.mean(), rel=1e-12)
    assert recordings.scale_adu == pytest.approx(pixels.std(), rel=1e-9)
    (record,) = recordings.provenance()
    assert record.frames == 400
    assert record.sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_every_frame_is_read_once_before_training():
    pixels = numbered(600)
    reads = []

    def read(position):
        reads.append(position[0])
        return pixels[position]

    recordings = loaded([dataclasses.replace(stack_from_array(pixels), read=read)])
    assert reads[:600] == list(range(600))
    assert sorted(int(crop.observations[0, 0, 0]) for crop in recordings.held_out) == sorted(
        set(range(540, 600)) & {int(crop.observations[0, 0, 0]) for crop in recordings.held_out}
    )


def test_statistics_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 50 + 9 * n, SHAPE).astype(np.uint16) for n in range(6)]
    parts = [PixelStatistics(), PixelStatistics()]
    for number, frame in enumerate(frames):
        parts[number % 2].add(frame)
    pooled = parts[0].pooled_with(parts[1])
    whole = np.stack(frames)
    assert pooled.at_high == (whole == whole.max()).sum()
    assert pooled.mean_adu == pytest.approx(whole.mean())
    assert pooled.variance_adu2 == pytest.approx(whole.var())
    assert (pooled.frames, pooled.pixels) == (6, whole.size)


def test_saturation_is_found_beyond_what_fits_into_memory():
    pixels = numbered(600)
    pixels[200:] = 65535
    with pytest.raises(TrainingDataError, match="67% of the pixels are saturated at 65535"):
        loaded([stack_from_array(pixels)])


def test_nan_is_found_beyond_what_fits_into_memory():
    pixels = numbered(600).astype(np.float32)
    pixels[333, 5, 6] = np.nan
    with pytest.raises(StackError, match="frame 333 holds NaN"):
        loaded([stack_from_array(pixels)])


def test_of_a_recording_that_takes_too_long_to_read_evenly_spread_chunks_are_used():
    pixels = numbered(600)

    def read(position):
        time.sleep(2e-3)
        return pixels[position]

    stack = dataclasses.replace(stack_from_array(pixels), read=read)
    recordings = loaded([stack], seconds=2.0)  # half a second for what takes 1.2
    assert 100 < recordings.frames_read < 500
    assert recordings.provenance()[0].frames == recordings.frames_read
    drawn = drawn_over_a_run(recordings, 40)[:, 0]
    assert drawn.min() < 60
    assert 480 < drawn.max() < 540


def test_of_a_other_channel_only_the_frames_that_are_seen_are_read():
    seen = {"own": set(), "other": set()}

    def slow(name):
        pixels = numbered(600)

        def read(position):
            time.sleep(1e-3)
            seen[name].add(position[0])
            return pixels[position]

        return dataclasses.replace(stack_from_array(pixels, path=name), read=read)

    side_inputs = SideInputs((OtherChannel(slow("other"), number=1, own=0),))
    recordings = loaded([slow("own")], memory_mib=2, seconds=1.5, side_inputs=[side_inputs])
    assert recordings.frames_read < 500
    assert {index + 1 for index in seen["other"]} <= seen["own"]


# ------------------------------------------------------------------------- whole runs


def long_recording(path, frames, shape=SHAPE, seed=0):
    """A Zarr stack of photon noise on stripes; noise is rolled, not drawn anew: it is quicker."""
    rng = np.random.default_rng(seed)
    x = np.arange(shape[1])
    noise = rng.poisson(200 + 60 * np.sin(x / 5), (16, *shape)).astype(np.uint16)
    array = zarr.create_array(
        str(path), shape=(frames, *shape), chunks=(1, *shape), dtype="uint16", compressors=None
    )
    for start in range(0, frames, 16):
        part = np.roll(noise, start, axis=1)[: frames - start]
        array[start : start + len(part)] = part
    return open_stack(path)


QUICK = TrainingOptions(preset="fast", steps=120, batch=8, patch=32, memory_mib=16)


class Killed(Exception):
    pass


@pytest.mark.long
def test_a_killed_run_over_a_long_recording_resumes_to_the_same_model(tmp_path):
    recording = long_recording(tmp_path / "long.zarr", 700, (128, 128))  # 22 MiB
    options = dataclasses.replace(QUICK, context_frames=1)

    def kill(progress):
        if progress.step >= 80:
            raise Killed

    noise_model = bootstrap_noise_model([recording])
    checkpoint = tmp_path / "unfinished.pt"

    def run(options, **how):
        recordings = load_recordings(
            [recording], context_frames=1, patch=options.patch, memory_mib=options.memory_mib
        )
        assert recordings.resident_frames < recordings.frames == 700
        estimator, _ = fit(recordings, noise_model, options, started=time.monotonic(), **how)
        return estimator.network.state_dict()

    whole = run(options)
    with pytest.raises(Killed):
        run(options, on_progress=kill, checkpoint=checkpoint)
    assert checkpoint.is_file()
    resumed = run(dataclasses.replace(options, resume=True), checkpoint=checkpoint)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_peak_memory_does_not_grow_with_the_recording(tmp_path):
    def run(name, frames):
        long_recording(tmp_path / f"{name}.zarr", frames, (512, 512))  # half a MiB each
        command = [
            sys.executable, "-m", "quietscope.cli", "train", str(tmp_path / f"{name}.zarr"),
            "--out", str(tmp_path / name), "--preset", "fast", "--steps", "60", "--batch", "4",
            "--patch", "32", "--memory-mib", "32", "--accept", "--json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    short, long = run("short", 60), run("long", 400)  # 30 and 200 MiB
    assert short["resident_frames"] == 54
    assert long["frames"] == 400
    assert long["resident_frames"] < 64
    assert long["peak_rss_mb"] < short["peak_rss_mb"] + 60
    report = (tmp_path / "long" / "report.html").read_text(encoding="utf-8")
    assert "frames in memory at a time" in report
