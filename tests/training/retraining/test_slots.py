"""What is trained for whom, on which runs, and why nothing is where nothing is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from quietscope.inference.bundle import TrainingStack, open_bundle, read_manifest
from quietscope.inference.library import Library
from quietscope.storage.directory_lock import owned
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.stack import stack_from_array
from quietscope.training.data.side_inputs import one_channel
from quietscope.training.errors import TrainingError, UnsuitedError
from quietscope.training.options import TrainingOptions
from quietscope.training.retraining import begun, run_choice
from quietscope.training.retraining.candidate import _for_noise
from quietscope.training.retraining.decision import weightiest
from quietscope.training.retraining.drift import drift_in
from quietscope.training.retraining.looked_at import LookedAt, SlotMemory, remember
from quietscope.training.retraining.new_runs import look
from quietscope.training.retraining.request import Request
from quietscope.training.retraining.retrain import (
    go_on_with_begun,
    one_round,
    only_one,
    retrain_slots,
)
from quietscope.training.retraining.run_names import known_name, run_name
from quietscope.training.retraining.slots import slots_of, stacks_of
from quietscope.training.retraining.window import WindowEndedError

SHAPE = (48, 56)


def scene(brightness=1.0, width=3.0, seed=5):
    rough = gaussian_filter(np.random.default_rng(seed).random(SHAPE), width)
    rough = (rough - rough.min()) / np.ptp(rough)
    return brightness * (40 + 400 * rough)


def frames(signal, count=16, seed=0):
    return np.random.default_rng(seed).poisson(signal, (count, *SHAPE)).astype(np.uint16)


def record(library, name, *, camera="A", channels=None, pixels=None, verdict=None):
    about = {"quietscope": {"camera": {"camera": camera}}}
    pixels = frames(scene()) if pixels is None else pixels
    names = [None] if channels is None else channels
    with OmeZarrWriter(
        library / name / "raw.ome.zarr",
        frame_shape=SHAPE,
        dtype="uint16",
        attributes=about,
    ) as writer:
        for time, frame in enumerate(pixels):
            for channel in names:
                writer.write(frame, {"time": time} | ({"channel": channel} if channel else {}))
    if verdict is not None:
        report = {"verdict": verdict, "verdict_by_channel": {"": verdict}}
        (library / name / "report.json").write_text(json.dumps(report), encoding="utf-8")


@pytest.fixture
def in_use(tmp_path, make_bundle):
    """Put a model in use that has learned from some runs."""

    def put(name="first", *, learned=(), channel=None, camera="A", radius=1):
        shelf = Library(tmp_path / "lib")
        place = shelf.models_dir / name
        made = make_bundle(name, channel=channel, camera=camera, radius=radius)
        shutil.copytree(made, place)
        if learned:
            manifest = read_manifest(place)
            stacks = tuple(
                TrainingStack(
                    path=str(own.path),
                    frames=len(own),
                    recorded_frames=len(own),
                    frame_shape=own.frame_shape,
                    sha256="0" * 64,
                )
                for own in learned
            )
            record_of = manifest.training.model_copy(update={"stacks": stacks})
            text = manifest.model_copy(update={"training": record_of}).model_dump_json()
            (place / "manifest.json").write_text(text, encoding="utf-8")
        shelf.promote(place, "by hand")
        return shelf

    return put


# --------------------------------------------------------------------------------- slots


def test_each_channel_and_each_camera_is_a_slot(tmp_path):
    record(tmp_path, "monday", channels=["DAPI", "GFP"])
    record(tmp_path, "tuesday", channels=["GFP"], camera="B")
    record(tmp_path, "wednesday")
    found = {(slot.channel, slot.camera.camera) for slot in slots_of(Library(tmp_path))}
    assert found == {("DAPI", "A"), ("GFP", "A"), (None, "B"), (None, "A")}
    named = slots_of(Library(tmp_path), "DAPI")
    assert [(slot.channel, slot.camera.camera) for slot in named] == [("DAPI", "A")]


def test_a_model_in_use_keeps_its_slot_without_a_run(tmp_path, in_use):
    shelf = in_use(channel="GFP")
    record(shelf.path, "monday", channels=["DAPI", "GFP"])
    gfp, dapi = slots_of(shelf)
    assert (gfp.channel, gfp.current) == ("GFP", shelf.models_dir / "first")
    assert (dapi.channel, dapi.current) == ("DAPI", None)
    assert len(stacks_of(shelf, gfp)) == len(stacks_of(shelf, dapi)) == 1


def test_a_run_of_another_named_channel_teaches_it_nothing(tmp_path, in_use):
    shelf = in_use(channel="GFP")
    record(shelf.path, "monday", channels=["DAPI"])
    assert stacks_of(shelf, slots_of(shelf)[0]) == []


# -------------------------------------------------------------------------- why nothing is done


def looked(shelf, **how):
    slot = slots_of(shelf)[0]
    return one_round(shelf, slot, Request(seconds=1.0, **how))


def test_nothing_new_is_said_at_once(tmp_path, in_use):
    record(tmp_path / "lib", "monday")
    shelf = Library(tmp_path / "lib")
    (stack,) = stacks_of(shelf, slots_of(shelf)[0])
    in_use(learned=[one_channel(stack, None)])
    found = looked(shelf)
    assert (found.decision, found.candidate) == ("skipped", None)
    assert "no run was recorded since the last training" in found.reason


def test_a_night_with_nothing_to_learn_loads_no_torch(tmp_path, in_use):
    record(tmp_path / "lib", "monday")
    shelf = Library(tmp_path / "lib")
    (stack,) = stacks_of(shelf, slots_of(shelf)[0])
    in_use(learned=[one_channel(stack, None)])
    code = (
        "import sys, time\n"
        "from quietscope.training.retraining.night_process import main\n"
        "sys.argv[1:] = [sys.argv[1], '--until', str(time.time() + 600)]\n"
        "status = main()\n"
        "print('torch' in sys.modules, status)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(shelf.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    told, end = done.stdout.splitlines()
    assert json.loads(told)["decision"] == "skipped"
    assert end == "False 0"


def test_a_library_that_was_moved_has_learned_what_it_had(tmp_path, in_use):
    record(tmp_path / "lib", "monday")
    record(tmp_path / "lib", "week 9/tuesday", pixels=frames(scene(), seed=1))
    record(tmp_path / "lib", "wednesday", pixels=np.full((12, *SHAPE), 100, np.uint16))
    shelf = Library(tmp_path / "lib")
    stacks = [one_channel(whole, None) for whole in stacks_of(shelf, slots_of(shelf)[0])]
    in_use(learned=[own for own in stacks if "wednesday" not in str(own.path)])
    key = slots_of(shelf)[0].key
    places = {str(own.path): len(own) for own in stacks}  # as earlier versions wrote them
    refused = {str(shelf.path / "wednesday" / "raw.ome.zarr"): {"frames": 12, "why": "one grey"}}
    (shelf.models_dir / "looked_at.json").write_text(
        json.dumps({"slots": {key: {"trained_on": places, "refused": refused}}}), "utf-8"
    )
    moved = Library(tmp_path / "another drive" / "lab")
    moved.path.parent.mkdir()
    shutil.move(shelf.path, moved.path)
    assert "no run was recorded since the last training" in looked(moved).reason
    memory = LookedAt.of(moved).slot(key)
    assert "week 9/tuesday/raw.ome.zarr" in memory.trained_on
    assert set(memory.refused) == {"wednesday/raw.ome.zarr"}


def test_names_of_runs_are_those_of_any_system(tmp_path):
    record(tmp_path, "week 9/tuesday")
    shelf, name = Library(tmp_path), "week 9/tuesday/raw.ome.zarr"
    on_windows = r"D:\lab\week 9\tuesday\raw.ome.zarr"
    places = (tmp_path / name, f"/gone/lab/{name}", on_windows, on_windows.replace("\\", "/"))
    for place in places:
        assert run_name(shelf, place) == name
        assert known_name(shelf, str(place)) == name
    assert known_name(shelf, name) == name
    assert run_name(shelf, "/gone/lab/friday/raw.ome.zarr") == "/gone/lab/friday/raw.ome.zarr"


@pytest.mark.parametrize("before", ["lattice", "refined"])
@pytest.mark.parametrize("width", [0.0, 0.8])
def test_a_model_for_independent_noise_is_left_where_new_runs_share_it(in_use, width, before):
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.standard_normal((12, *SHAPE)), (0, width, width))
    pixels = np.clip(scene() + 12 * noise / noise.std(), 0, None).astype(np.uint16)
    current = open_bundle(in_use().current())
    told = []
    options = _for_noise(
        TrainingOptions(algorithm=before),
        current,
        [stack_from_array(pixels)],
        None,
        Request(on_remark=told.append),
    )
    assert options.algorithm == ("r2r" if width else before)
    assert bool(told) == bool(width)


def refined_in_use(in_use):
    shelf = in_use()
    manifest = read_manifest(shelf.models_dir / "first").model_copy(
        update={"algorithm": "refined", "preset": "live", "noise_model": "bootstrapped"}
    )
    (shelf.models_dir / "first" / "manifest.json").write_text(manifest.model_dump_json(), "utf-8")
    return shelf


@pytest.mark.usefixtures("one_thread")
def test_a_refined_model_in_use_is_refined_further(in_use):
    shelf = refined_in_use(in_use)
    record(shelf.path, "monday")
    trained = []

    def killed(run, save):
        trained.append(run.options.algorithm)
        raise WindowEndedError("the night is over")

    with pytest.raises(WindowEndedError):
        one_round(shelf, slots_of(shelf)[0], Request(steps=2, between_steps=killed))
    assert trained == ["refined"]


@pytest.mark.usefixtures("one_thread")
def test_where_new_noise_cannot_be_split_a_night_falls_back_and_goes_on(tmp_path, in_use):
    """The method of the model in use was nobody's demand, and no reason to fail every night."""
    shelf = refined_in_use(in_use)
    rng = np.random.default_rng(7)
    # Each photon has a height of its own: a photomultiplier's.
    photons = rng.poisson(scene(0.01), (12, *SHAPE))
    amplified = 100 + 10 * rng.standard_gamma(np.maximum(photons, 1e-3)) * (photons > 0)
    pixels = np.rint(amplified + rng.normal(0, 4, amplified.shape)).astype(np.uint16)
    record(shelf.path, "monday", pixels=pixels)
    said, trained = [], []

    def killed(run, save):
        trained.append((run.options.algorithm, run.step))
        if run.step == 1:
            save()
            raise WindowEndedError("the night is over")

    request = Request(steps=2, between_steps=killed, on_remark=said.append)
    with pytest.raises(WindowEndedError):
        one_round(shelf, slots_of(shelf)[0], request)
    assert any("cannot be split" in line for line in said), said
    with pytest.raises(WindowEndedError):
        go_on_with_begun(shelf, request)
    assert trained == [("lattice", 0), ("lattice", 1), ("lattice", 1)]
    demanded = TrainingOptions(algorithm="refined", steps=1)
    with pytest.raises(UnsuitedError):
        one_round(shelf, slots_of(shelf)[0], Request(options=demanded))


def test_runs_of_a_promising_candidate_are_new_to_the_next_night(tmp_path, in_use):
    library = tmp_path / "lib"
    record(library, "monday")
    shelf = Library(library)
    (stack,) = stacks_of(shelf, slots_of(shelf)[0])
    in_use(learned=[one_channel(stack, None)])
    record(library, "tuesday")
    slot, current = slots_of(shelf)[0], open_bundle(shelf.current())
    name = run_name(shelf, one_channel(stacks_of(shelf, slot)[0], None).path)

    def found():
        return look(shelf, slot, current, TrainingOptions(), Request(since_last=True))

    seen = SlotMemory(trained_on={name: 16})
    remember(shelf, slot.key, seen)
    assert "no run was recorded since" in found().reason
    remember(shelf, slot.key, seen.model_copy(update={"promising": "20260301-220000"}))
    assert (found().reason, len(found().stacks)) == (None, 2)


def test_a_few_new_frames_wait_unless_the_picture_has_drifted(tmp_path, in_use):
    library = tmp_path / "lib"
    record(library, "monday", pixels=frames(scene(), count=200))
    shelf = Library(library)
    (stack,) = stacks_of(shelf, slots_of(shelf)[0])
    in_use(learned=[one_channel(stack, None)])
    record(library, "tuesday", pixels=frames(scene(), count=9))
    assert "only 9 new frames" in looked(shelf).reason
    good = {"word": "good", "headline": "as it should be"}
    (library / "tuesday" / "report.json").write_text(json.dumps({"verdict": good}), "utf-8")
    assert "only 9 new frames" in looked(shelf).reason
    bad = {"word": "bad", "headline": "structure is removed"}
    (library / "tuesday" / "report.json").write_text(
        json.dumps({"verdict": good, "verdict_by_channel": {"": bad}}), "utf-8"
    )
    new = stacks_of(shelf, slots_of(shelf)[0])[:1]
    assert "structure is removed" in drift_in(new, None)
    slot, current = slots_of(shelf)[0], open_bundle(shelf.current())
    found = look(shelf, slot, current, TrainingOptions(), Request())
    assert (found.reason, len(found.stacks)) == (None, 2)


def test_what_was_refused_is_not_looked_at_twice(tmp_path, monkeypatch):
    record(tmp_path, "monday", pixels=np.full((12, *SHAPE), 100, np.uint16))
    shelf = Library(tmp_path)
    first = looked(shelf)
    assert "monday" in first.reason
    assert "one grey" in first.reason
    (memory,) = LookedAt.of(shelf).slots.values()
    assert len(memory.refused) == 1
    monkeypatch.setattr("quietscope.training.retraining.run_audit.why_unfit", None)
    assert looked(shelf).reason == first.reason
    (shelf.models_dir / "looked_at.json").write_text("{", encoding="utf-8")
    assert LookedAt.of(shelf).slots == {}


def test_the_weightiest_decision_stands_for_all(tmp_path):
    skipped = looked(Library(_with_run(tmp_path)))
    kept, promoted = (replace(skipped, decision=name) for name in ("kept", "promoted"))
    assert weightiest([skipped, kept, promoted, kept]) is promoted
    assert weightiest([skipped, kept]) is kept


def _with_run(library):
    record(library, "monday", pixels=np.full((12, *SHAPE), 100, np.uint16))
    return library


# -------------------------------------------------------------------------- which runs teach


def test_runs_are_chosen_for_what_they_cover():
    """A week of one dim specimen does not crowd out the one bright evening, nor last month's."""
    dim = [stack_from_array(frames(scene(), seed=n), path=f"dim {n}") for n in range(10)]
    bright = stack_from_array(frames(scene(30.0)), path="bright")
    fine = stack_from_array(frames(scene(1.0, width=1.0)), path="fine")
    old = [stack_from_array(frames(scene(5.0), seed=n), path=f"old {n}") for n in range(5)]
    new = [*dim, bright, fine]
    chosen = run_choice.chosen([(s, s) for s in new], [(s, s) for s in old])
    names = [str(stack.path) for stack in chosen]
    assert names[0] == "dim 0", "the newest comes first"
    assert {"bright", "fine"} <= set(names)
    assert sum(name.startswith("old") for name in names) == run_choice.MOST_OLD
    assert len(names) == run_choice.MOST_NEW + run_choice.MOST_OLD


def test_where_little_is_new_more_of_the_old_is_learned_again():
    new = stack_from_array(frames(scene()), path="new")
    old = [stack_from_array(frames(scene(n + 1.0)), path=f"old {n}") for n in range(10)]
    chosen = run_choice.chosen([(new, new)], [(s, s) for s in old])
    assert len(chosen) == run_choice.MOST_NEW + run_choice.MOST_OLD
    assert chosen[0] is new


# ------------------------------------------------------------------- what was begun and not judged


def test_what_is_begun_is_noted_and_can_be_gone_on_with(tmp_path, make_bundle):
    shelf = Library(tmp_path)
    shelf.models_dir.mkdir()
    candidate = shelf.models_dir / "20260301-220000"
    options = TrainingOptions(preset="fast", seconds=60.0, other_channels=("DAPI",))
    run = tmp_path / "monday" / "raw.ome.zarr"
    begun.note(shelf, candidate, [run], "GFP", options)
    ((found, what),) = begun.unjudged(shelf)
    assert found == candidate
    assert what.runs == ("monday/raw.ome.zarr",), "a library may be moved to another disk"
    assert what.training_options(candidate) == options
    candidate.with_name(f"{candidate.name}.unfinished.pt").touch()
    assert what.training_options(candidate).resume
    assert not begun.is_trained(candidate)
    shutil.copytree(make_bundle(), candidate)
    assert begun.is_trained(candidate)
    begun.forget(candidate)
    assert begun.unjudged(shelf) == []
    (shelf.models_dir / "x.begun.json").write_text("{", encoding="utf-8")
    assert begun.unjudged(shelf) == []
    assert open_bundle(candidate)


def test_a_note_that_another_program_holds_costs_no_training(tmp_path, in_use, monkeypatch):
    shelf = in_use()
    checkpoint = shelf.models_dir / "tonight.unfinished.pt"
    checkpoint.write_bytes(b"hours")
    run = shelf.path / "monday" / "raw.ome.zarr"
    begun.note(shelf, shelf.models_dir / "tonight", [run], None, TrainingOptions())

    def held(path):
        raise PermissionError(13, "used by another process")

    with monkeypatch.context() as patched:
        patched.setattr(begun, "read_text", held)
        assert begun.unjudged(shelf) == []
    assert checkpoint.is_file()
    assert len(begun.unjudged(shelf)) == 1


def test_a_candidate_that_was_trained_and_not_judged_is_judged_first(
    tmp_path, in_use, make_bundle
):
    """The night before was killed in between."""
    shelf = in_use("soft", radius=6)
    record(shelf.path, "monday", pixels=frames(scene(), count=20))
    candidate = shelf.models_dir / "20260301-220000"
    shutil.copytree(make_bundle("sharp", radius=1, camera="A"), candidate)
    manifest = read_manifest(candidate).model_copy(update={"accepted": True})
    (candidate / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    run = shelf.path / "monday" / "raw.ome.zarr"
    begun.note(shelf, candidate, [run], None, TrainingOptions(preset="fast", seconds=60.0))
    (decision,) = go_on_with_begun(shelf, Request())
    assert (decision.decision, decision.before) == ("promoted", shelf.models_dir / "soft")
    assert shelf.current() == candidate
    assert begun.unjudged(shelf) == []
    # Killed once more, after it came into use: it is not judged by itself.
    begun.note(shelf, candidate, [run], None, TrainingOptions(preset="fast", seconds=60.0))
    assert go_on_with_begun(shelf, Request()) == []
    assert begun.unjudged(shelf) == []
    # Options of another version cost what was begun, and no night.
    other = {"channel": None, "runs": [str(run)], "options": {"of_tomorrow": 1}}
    (shelf.models_dir / "y.begun.json").write_text(json.dumps(other), encoding="utf-8")
    said = []
    assert go_on_with_begun(shelf, Request(on_remark=said.append)) == []
    assert "another version" in said[0]
    assert begun.unjudged(shelf) == []


def test_what_was_begun_on_runs_that_have_gone_is_forgotten(tmp_path):
    shelf = Library(tmp_path)
    shelf.models_dir.mkdir()
    gone = tmp_path / "gone" / "raw.ome.zarr"
    begun.note(shelf, shelf.models_dir / "x", [gone], None, TrainingOptions(seconds=60.0))
    assert go_on_with_begun(shelf, Request()) == []
    assert begun.unjudged(shelf) == []


def test_what_was_begun_on_runs_that_are_out_of_reach_waits(tmp_path):
    """A drive that is not there tonight is no reason to lose what was trained."""
    shelf = Library(tmp_path / "lab")
    record(shelf.path, "monday")
    shelf.models_dir.mkdir()
    drive = tmp_path / "drive"
    for name, place in {"elsewhere": drive, "mounted": shelf.path / "week 9"}.items():
        run = place / "monday" / "raw.ome.zarr"
        begun.note(shelf, shelf.models_dir / name, [run], None, TrainingOptions(seconds=60.0))
    damaged = shelf.path / "monday" / "raw.ome.zarr"
    begun.note(shelf, shelf.models_dir / "there", [damaged], None, TrainingOptions(seconds=60.0))
    (damaged / "zarr.json").write_text("{", encoding="utf-8")
    (shelf.path / "week 9").mkdir()  # what a drive is mounted at is empty without it
    said = []
    assert go_on_with_begun(shelf, Request(on_remark=said.append)) == []
    assert {candidate.name for candidate, _ in begun.unjudged(shelf)} == {
        "elsewhere",
        "mounted",
        "there",
    }
    assert all("waits for the next night" in line for line in said)
    (shelf.path / "week 9" / "tuesday").mkdir()  # it is there, and monday was deleted
    go_on_with_begun(shelf, Request())
    assert "mounted" not in {candidate.name for candidate, _ in begun.unjudged(shelf)}


def test_two_trainings_of_one_library_say_so(tmp_path):
    shelf = Library(_with_run(tmp_path))
    with only_one(shelf), pytest.raises(TrainingError, match="being trained already") as caught:
        retrain_slots(shelf, Request())
    assert "--out" not in str(caught.value)


def test_what_killed_trainings_left_half_written_goes_and_nothing_else(tmp_path, make_bundle):
    shelf = Library(tmp_path)
    shutil.copytree(make_bundle(), shelf.models_dir / "good")
    for name in ("dead", "busy"):
        (shelf.models_dir / f".{name}.0123abcd.partial").mkdir()
    (shelf.models_dir / ".dead.unfinished.pt.0123abcd.partial").touch()
    (shelf.models_dir / "mine.partial").touch()
    with owned(shelf.models_dir / "busy"):
        begun.sweep(shelf)
        left = {path.name for path in shelf.models_dir.iterdir()}
    assert left == {"good", ".busy.0123abcd.partial", ".busy.lock", "mine.partial"}
