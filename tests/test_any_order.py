"""Any order of recording, crashing, resuming, denoising, overwriting and moving, on real stores.

After every step nothing that was recorded is gone or altered, and what every report says is what
the disk holds. Every frame says which one it is in all of its pixels, so an exchanged, lost or
invented one is found.

Seconds in every run of the tests; for longer, with more steps and training among them:
`python benchmarks/reliability_soak.py --minutes 60`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from scipy import ndimage

from quietscope.acquisition import LiveDenoiser
from quietscope.errors import QuietscopeError
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.directory_lock import owned
from quietscope.storage.open_stack import open_stack
from quietscope.storage.written_frames import count_written

SOAK_MINUTES = float(os.environ.get("QUIETSCOPE_SOAK_MINUTES", 0))
SOAK_RESULT = os.environ.get("QUIETSCOPE_SOAK_RESULT")
SHAPE = (16, 24)
IN_MEMORY = 100
"""Frames that a kill may cost: those that wait and those in flight."""

PICK = st.integers(0, 11)
"""One of the recordings that are there."""
NAMES = st.sampled_from(["monday", "two words", "day.2026-11-25", "Ü"])

CRASHING = """
import os, signal, sys, threading, time
import numpy as np
from quietscope.acquisition import LiveDenoiser
out, first, frames, positions, late_ms, overwrite = sys.argv[1], *map(int, sys.argv[2:])
with LiveDenoiser(None, out, mode="sink", overwrite=bool(overwrite)) as live:
    for number in range(frames):
        axes = {"time": number // positions}
        axes |= {"position": number % positions} if positions > 1 else {}
        pixels = np.full((16, 24), first + number, np.uint16)
        live.image_process_fn(pixels, {"Axes": axes})
        print(number + 1, flush=True)
    time.sleep(late_ms / 1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Averaging:
    """A denoiser of the live stream: a box filter, as the bundle's."""

    frame_shape = SHAPE
    context_frames = 0

    def denoise(self, observations, out):
        out[0] = ndimage.uniform_filter(observations[0].astype(np.float32), 3, mode="nearest")
        out[1] = 0

    def close(self):
        pass


class AnyOrder(RuleBasedStateMachine):
    """A folder of runs, and what has to be in it."""

    bundle: Path
    trains = False
    most_crashes = 2
    """Of one order: each is a program of its own, which takes a second to start."""
    done: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="quietscope any order "))
        self.recorded: dict[str, list[int]] = {}
        self.next_number = 1
        self.crashes = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def numbers(self, count: int) -> range:
        self.next_number += count
        return range(self.next_number - count, self.next_number)

    # -------------------------------------------------------------------------------- steps

    @rule(
        name=NAMES,
        frames=st.integers(0, 12),
        positions=st.integers(1, 3),
        twice=st.booleans(),
        denoise=st.booleans(),
        overwrite=st.booleans(),
        second=st.booleans(),
    )
    def record(self, name, frames, positions, twice, denoise, overwrite, second):
        numbers = self.numbers(frames * (1 + twice))
        refused = name in self.recorded and not overwrite
        try:
            with LiveDenoiser(
                Averaging() if denoise else None,
                self.folder / name,
                mode="sink",
                overwrite=overwrite,
            ) as live:
                assert not refused
                if second:
                    self.second_owner(name)
                for count, number in enumerate(numbers):
                    axes = {"time": count % max(frames, 1) // positions}
                    axes |= {"position": count % positions} if positions > 1 else {}
                    live.image_process_fn(np.full(SHAPE, number, np.uint16), {"Axes": axes})
        except OutputError:
            assert refused
            self.count("record refused")
            return
        if numbers:
            self.recorded[name] = list(numbers)
        elif name not in self.recorded:
            shutil.rmtree(self.folder / name)  # a run of no frames says so, and is no recording
        self.count("record over another" if overwrite else "record")

    @precondition(lambda self: self.crashes < self.most_crashes)
    @rule(
        name=NAMES,
        frames=st.integers(0, 30),
        positions=st.integers(1, 2),
        late_ms=st.sampled_from([0, 0, 2, 20]),
        overwrite=st.booleans(),
    )
    def crash(self, name, frames, positions, late_ms, overwrite):
        numbers = self.numbers(frames)
        self.crashes += 1
        run = self.folder / name
        given = [run, numbers.start, frames, positions, late_ms, int(overwrite)]
        program = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CRASHING, *map(str, given)],
            capture_output=True,
            text=True,
        )
        if name in self.recorded and not overwrite:
            assert "already exists" in program.stderr
            return
        assert program.returncode < 0, program.stderr
        found = self.found(run) if count_written(run / "raw.ome.zarr") else []
        assert set(found) <= set(numbers)
        assert len(found) >= frames - IN_MEMORY
        assert not program.stdout or int(program.stdout.split()[-1]) == frames
        if found:
            self.recorded[name] = found
        else:  # nothing came to the disk: whatever was there comes back with the next claim
            self.claim_anew(name)
        self.count("crash")

    def second_owner(self, name):
        """Whoever else wants to write into a run that is being recorded is refused."""
        run = self.folder / name
        others = [run, run / "denoised.ome.zarr"]
        if sys.platform != "win32":
            (self.folder / "link").symlink_to(run)
            others.append(self.folder / "link")
        for other in others:
            with pytest.raises(OutputError, match="is being written by process"), owned(other):
                pytest.fail("the block must not run")
        (self.folder / "link").unlink(missing_ok=True)

    def claim_anew(self, name):
        """Begin a run and end it without a frame, as a person who tries again and leaves."""
        if name in self.recorded:
            with (
                pytest.raises(OutputError, match="already exists"),
                LiveDenoiser(None, self.folder / name, mode="sink"),
            ):
                pytest.fail("the block must not run")
            return
        shutil.rmtree(self.folder / name, ignore_errors=True)

    @precondition(lambda self: self.recorded)
    @rule(pick=PICK, how=st.sampled_from(["resume", "overwrite", "new"]))
    def denoise(self, pick, how):
        name = self.one(pick)
        run, out = self.folder / name, self.folder / name / "denoised.ome.zarr"
        before = self.found(out) if count_written(out) else []
        options = {"resume": how == "resume", "overwrite": how == "overwrite"}
        try:
            said = denoise_stack(
                open_stack(run), self.bundle, out, provider="cpu", threads=1, force=True, **options
            )
        except QuietscopeError:
            # There already, or begun by the stream's own denoiser.
            assert out.exists()
            assert how != "overwrite"
            assert (self.found(out) if count_written(out) else []) == before
            return
        total = said["frames_denoised"] + said["frames_kept"]
        assert total == count_written(out) == len(self.recorded[name])
        self.count(f"denoise, {how}")

    @precondition(lambda self: self.recorded)
    @rule(source=PICK, onto=PICK, part=st.sampled_from(["", "raw.ome.zarr", "raw.ome.zarr/new"]))
    def denoise_over_a_recording(self, source, onto, part):
        out = self.folder / self.one(onto) / part
        if part.endswith("new"):  # a new folder inside a recording, which is the input then
            source = onto
        with pytest.raises(QuietscopeError):
            denoise_stack(
                open_stack(self.folder / self.one(source)),
                self.bundle,
                out,
                force=True,
                overwrite=True,
            )
        self.count("denoise over a recording, refused")

    @precondition(lambda self: self.recorded and self.trains)
    @rule(source=PICK, onto=PICK)
    def train_over_a_recording(self, source, onto):
        from quietscope.training.options import TrainingOptions
        from quietscope.training.train import train

        with pytest.raises(OutputError):
            train(
                [open_stack(self.folder / self.one(source))],
                self.folder / self.one(onto),
                TrainingOptions(steps=1),
                overwrite=True,
            )
        self.count("train over a recording, refused")

    @precondition(lambda self: self.recorded)
    @rule(source=PICK, onto=NAMES)
    def move(self, source, onto):
        name = self.one(source)
        if (self.folder / onto).exists():
            onto = f"{name} moved"[-40:]
        if (self.folder / onto).exists():
            return
        (self.folder / name).rename(self.folder / onto)
        self.recorded[onto] = self.recorded.pop(name)
        self.count("move")

    # --------------------------------------------------------------------- after every step

    @invariant()
    def nothing_recorded_is_gone_or_altered(self):
        for name, numbers in self.recorded.items():
            assert self.found(self.folder / name) == sorted(numbers), name

    @invariant()
    def reports_say_what_the_disk_holds(self):
        for report in self.folder.glob("*/report.json"):
            said = json.loads(report.read_text(encoding="utf-8"))
            run = report.parent
            raw = sum(count_written(store) for store in run.glob("raw*.ome.zarr"))
            denoised = sum(count_written(store) for store in run.glob("denoised*.ome.zarr"))
            assert said["frames_recorded"] == raw, run.name
            assert said["frames_denoised"] <= denoised, run.name
            if said["complete"]:
                assert said["frames_delivered"] == raw

    @invariant()
    def nothing_is_left_lying_about(self):
        if not self.crashes:  # what a kill leaves is harmless, and goes with the next claim
            assert not list(self.folder.rglob(".*"))

    def one(self, pick):
        names = sorted(self.recorded)
        return names[pick % len(names)]

    def found(self, path):
        """Return which frames a store holds, each checked to the last pixel."""
        numbers = []
        for frame in open_stack(path):
            number = float(frame[0, 0])
            np.testing.assert_allclose(frame, number, rtol=1e-5)
            numbers.append(round(number))
        return sorted(numbers)

    def count(self, what):
        self.done[what] += 1


@pytest.fixture
def any_order(make_bundle):
    """The machine, with a model of its own."""
    return type("AnyOrder", (AnyOrder,), {"bundle": make_bundle(), "done": Counter()})


def budget(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        derandomize=not SOAK_MINUTES,
    )


@pytest.mark.slow
def test_any_order(any_order):
    run_state_machine_as_test(any_order, settings=budget(examples=3, steps=10))
    assert sum(any_order.done.values()) > 8, any_order.done


@pytest.mark.skipif(not SOAK_MINUTES, reason="by hand: benchmarks/reliability_soak.py")
@pytest.mark.timeout(0)
def test_any_order_for_long(any_order):
    any_order.trains, any_order.most_crashes = True, 10
    began, orders = time.monotonic(), 0
    while time.monotonic() - began < 60 * SOAK_MINUTES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_state_machine_as_test(any_order, settings=budget(examples=5, steps=40))
        orders += 5
        if SOAK_RESULT:
            result = {
                "minutes": (time.monotonic() - began) / 60,
                "orders": orders,
                "steps": dict(any_order.done.most_common()),
                "steps_in_all": sum(any_order.done.values()),
                "recordings_lost_or_altered": 0,
                "reports_wrong": 0,
            }
            Path(SOAK_RESULT).write_text(json.dumps(result), encoding="utf-8")
