"""The library, the comparison without clean images, and one round of retraining."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime, time
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from quietscope.inference.bundle import TrainingStack
from quietscope.inference.errors import BundleError, InferenceError
from quietscope.inference.evaluation.noise_splitting import counts_photons, split, squared_error
from quietscope.inference.library import Library
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.stack import stack_from_array
from quietscope.training.errors import TrainingError
from quietscope.training.options import TrainingOptions
from quietscope.training.retraining.new_runs import is_known, learned
from quietscope.training.retraining.retrain import retrain_once
from quietscope.training.retraining.slots import slots_of, stacks_of
from quietscope.training.retraining.window import Window

pytestmark = pytest.mark.usefixtures("one_thread")


QUICK = TrainingOptions(preset="fast", steps=60, batch=8, patch=32)


class Blur:
    """A denoiser whose true error can be computed."""

    context_frames = 0

    def __init__(self, frame_shape, sigma):
        self.frame_shape = frame_shape
        self.sigma = sigma

    def denoise(self, observations, out):
        out[0] = gaussian_filter(observations[0].astype(float), self.sigma)

    def close(self):
        pass


class Camera:
    """Poisson noise with a gain, an offset and read noise."""

    def __init__(self, gain, offset, read):
        self.gain, self.offset, self.read = gain, offset, read

    def variance(self, signal):
        return self.gain * np.clip(np.asarray(signal) - self.offset, 0, None) + self.read**2

    def observe(self, signal, rng):
        electrons = rng.poisson((signal - self.offset) / self.gain)
        noisy = self.gain * electrons + self.offset + self.read * rng.normal(size=signal.shape)
        return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("camera", [Camera(2.0, 100.0, 5.0), Camera(1.0, 0.0, 0.0)])
@pytest.mark.parametrize("sigma", [0.6, 1.5, 4.0])
def test_the_score_is_the_true_squared_error(camera, sigma):
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:384, :384]
    signal = camera.offset + 30 + 25 * np.sin(x / 9) * np.sin(y / 13)
    counts = counts_photons(camera, 30.0)
    assert counts == (camera.read == 0)
    blur = Blur(signal.shape, sigma)
    scores, truths = [], []
    for _ in range(4):
        observed = camera.observe(signal, rng)[None]
        part = split(observed, camera.variance(signal), rng, photon_counts=counts)
        scores.append(squared_error(blur, part))
        estimate = gaussian_filter(part.seen[0].astype(float), sigma) * part.brightness
        truths.append(((estimate - signal) ** 2).mean())
    assert np.mean(scores) == pytest.approx(np.mean(truths), rel=0.06, abs=0.3)


def record(library, name, seed, frames=20, roi=None, sabotage=None):
    rng = np.random.default_rng(seed)
    hot = rng.random((64, 80)) < 0.02
    camera = Camera(2.0, 100.0, 5.0)
    y, x = np.mgrid[:64, :80]
    other = sabotage == "other camera"
    with OmeZarrWriter(
        library / name / "raw.ome.zarr",
        frame_shape=(64, 80),
        dtype="uint16",
        attributes={"quietscope": {"camera": {"roi": roi, "camera": "B" if other else None}}},
    ) as writer:
        for t in range(frames):
            spot = 90 * np.exp(-((y - 30) ** 2 + (x - 20 - 2 * t) ** 2) / 50)
            signal = 110 + spot + 30 * (np.sin(x / 5) > 0.4)
            if sabotage in ("constant", "noise"):
                signal = np.full_like(signal, 130.0)
            frame = camera.observe(signal, rng)
            if sabotage == "constant":
                frame[:] = 130
            elif sabotage == "hot":
                frame[hot] = 60_000
            writer.write(frame, {"time": t})


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_candidate_is_promoted_only_if_it_is_better(tmp_path):
    library = tmp_path / "lab library"
    record(library, "monday", 0)
    first = retrain_once(library, options=QUICK)
    assert (first.decision, first.candidate) == ("promoted", first.current)
    assert "no model was in use" in first.reason
    assert Library(library).current() == first.current

    again = retrain_once(library, options=QUICK)
    assert again.decision == "skipped"
    assert again.candidate is None

    # One step of another network cannot be better: the model in use stays.
    record(library, "tuesday", 1)
    worse = retrain_once(library, options=TrainingOptions(preset="live", steps=1, batch=1))
    assert worse.decision == "kept"
    assert worse.candidate is not None
    assert Library(library).current() == first.current
    assert "no better than" in worse.reason  # than its own input, which no comparison redeems

    # Warm-started from the model in use and trained on: better, and used.
    better = retrain_once(library, options=TrainingOptions(preset="fast", steps=300, batch=8))
    assert better.decision == "promoted"
    assert Library(library).current() == better.candidate
    history = json.loads((library / "current.json").read_text(encoding="utf-8"))["history"]
    assert [entry["decision"] for entry in history] == ["promoted", "skipped", "kept", "promoted"]
    assert not (set(better.result()) ^ {"decision", "reason", "candidate", "current", "figures"})


@pytest.mark.parametrize("sabotage", ["constant", "hot", "noise"])
def test_a_sabotaged_night_changes_nothing(sabotage, tmp_path, make_bundle):
    """The model in use stays, and the reason names the run; nothing is trained."""
    record(tmp_path, "monday", 0)
    shelf = Library(tmp_path)
    shutil.copytree(make_bundle("first", camera="A"), shelf.models_dir / "first")
    shelf.promote(shelf.models_dir / "first", "by hand")
    record(tmp_path, "tuesday", 1, sabotage=sabotage)
    shutil.rmtree(tmp_path / "monday")
    found = retrain_once(tmp_path, options=QUICK)
    assert found.decision == "skipped"
    assert "tuesday" in found.reason
    assert shelf.current() == shelf.models_dir / "first"


def test_another_camera_is_a_slot_of_its_own(tmp_path, make_bundle):
    """What it recorded never takes the place of the first camera's model."""
    shelf = Library(tmp_path)
    shutil.copytree(make_bundle("first", camera="A"), shelf.models_dir / "first")
    shelf.promote(shelf.models_dir / "first", "by hand")
    record(tmp_path, "tuesday", 1, sabotage="other camera")
    first, other = slots_of(shelf)
    assert (first.current, other.current) == (shelf.models_dir / "first", None)
    assert (first.camera.camera, other.camera.camera) == ("A", "B")
    assert stacks_of(shelf, first) == []
    assert len(stacks_of(shelf, other)) == 1


def test_runs_of_one_region_belong_together(tmp_path):
    for seed, (name, x) in enumerate({"a": 0, "b": 0, "c": 80}.items()):
        record(tmp_path, name, seed, frames=8, roi=(x, 0, 80, 64))
        os.utime(tmp_path / name / "raw.ome.zarr", (seed, seed))
    shelf = Library(tmp_path)
    (slot,) = slots_of(shelf)
    assert [stack.path.parent.name for stack in stacks_of(shelf, slot)] == ["c"]
    shutil.rmtree(tmp_path / "c")
    assert [stack.path.parent.name for stack in stacks_of(shelf, slot)] == ["b", "a"]


def test_a_run_that_was_learned_from_in_part_is_not_new(tmp_path):
    shelf = Library(tmp_path)
    stack = stack_from_array(np.zeros((30, 8, 8), np.uint16), path="long")
    part = TrainingStack(
        path="long", frames=12, recorded_frames=30, frame_shape=(8, 8), sha256="0" * 64
    )
    manifest = SimpleNamespace(training=SimpleNamespace(stacks=(part,)))
    known = learned(shelf, SimpleNamespace(manifest=manifest))
    assert is_known(shelf, stack, known)
    longer = stack_from_array(np.zeros((31, 8, 8), np.uint16), path="long")
    assert not is_known(shelf, longer, known)


def test_missing_other_channels_are_named(tmp_path):
    record(tmp_path, "monday", 0)
    found = retrain_once(tmp_path, options=replace(QUICK, other_channels=("DAPI",)), channel="0")
    assert (found.decision, found.candidate) == ("skipped", None)
    assert "holds the channels DAPI" in found.reason


def test_a_library_without_runs_is_skipped(tmp_path):
    assert retrain_once(tmp_path).decision == "skipped"


def test_a_library_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InferenceError, match="no such folder"):
        retrain_once(tmp_path / "nowhere")


def test_a_broken_run_does_not_stop_the_night(tmp_path):
    (tmp_path / "broken" / "raw.ome.zarr").mkdir(parents=True)
    assert retrain_once(tmp_path).decision == "skipped"


def test_only_a_sound_bundle_is_promoted(tmp_path):
    library = Library(tmp_path)
    (tmp_path / "models" / "half").mkdir(parents=True)
    with pytest.raises(BundleError):
        library.promote(tmp_path / "models" / "half", "by hand")
    assert library.current() is None


def test_a_damaged_pointer_is_named(tmp_path):
    (tmp_path / "current.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match=r"current\.json: cannot be read"):
        Library(tmp_path).current()


def test_a_pointer_to_a_missing_model_is_named(tmp_path):
    (tmp_path / "current.json").write_text('{"model": "models/gone"}', encoding="utf-8")
    with pytest.raises(BundleError, match="models/gone, which is not there"):
        Library(tmp_path).current()


def test_a_window_may_cross_midnight():
    window = Window(time(22, 30), time(6, 0))
    assert window.seconds(datetime(2026, 3, 1, 22, 30)) == 7.5 * 3600
    assert window.seconds(datetime(2026, 3, 2, 5, 0)) == 3600


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("start", "end", "now", "hours"),
    [
        (time(22), time(6), datetime(2026, 3, 28, 22, tzinfo=BERLIN), 7),  # the spring night
        (time(22), time(6), datetime(2026, 10, 24, 22, tzinfo=BERLIN), 9),  # the autumn night
        (time(1), time(3, 30), datetime(2026, 3, 29, 1, tzinfo=BERLIN), 1.5),
        (time(22), time(6), datetime(2026, 6, 1, 22, tzinfo=BERLIN), 8),
        (time(22), time(6), datetime(2026, 6, 2, 5, tzinfo=BERLIN), 1),  # late, but in time
        (time(22), time(6), datetime(2026, 6, 2, 8, 24, tzinfo=BERLIN), 0),  # missed: 21.6 h wrong
        (time(22), time(6), datetime(2026, 6, 2, 6, tzinfo=BERLIN), 0),
    ],
)
def test_a_window_is_as_long_as_the_night_really_is(start, end, now, hours):
    assert Window(start, end).left(now) == pytest.approx(3600 * hours)


def test_clocks_that_are_set_back_show_one_night_once():
    window = Window(time(2, 30), time(6))
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    assert window.night(first) == window.night(first.replace(fold=1))
    late = Window(time(22), time(6))
    assert late.night(datetime(2026, 10, 25, 23)) == late.night(datetime(2026, 10, 26, 5))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"once": True, "at": "22:00", "until": None}, "--once"),
        ({"once": False, "at": "22:00", "until": None}, "--until"),
        ({"once": False, "at": "25:00", "until": "06:00"}, "HH:MM"),
        ({"once": False, "at": "06:00", "until": "06:00"}, "no time"),
    ],
)
def test_contradicting_times_are_refused(options, match):
    with pytest.raises(TrainingError, match=match):
        Window.chosen(**options)
