"""Which model is in use for what: changed in one step, taken back, and never a surprise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.inference.commands import denoise
from quietscope.inference.errors import BundleError, InferenceError
from quietscope.inference.library import CURRENT, Library, models_in_use
from quietscope.inference.model_choice import EVERY_CHANNEL, open_models
from quietscope.inference.models_commands import (
    list_models,
    prune_models,
    rename_model,
    roll_back,
    show_model,
    use_model,
)
from quietscope.storage.ome_zarr_writer import OmeZarrWriter

ONE, OTHER = CameraFingerprint(camera="Cam A"), CameraFingerprint(camera="Cam B")


@pytest.fixture
def add(make_bundle, tmp_path):
    """Return a function that puts a bundle into the library's models."""

    def add_bundle(name, channel=None, camera=ONE):
        bundle = make_bundle(f"built-{name}", channel=channel, camera=camera.camera)
        place = tmp_path / "models" / name
        place.parent.mkdir(exist_ok=True)
        bundle.rename(place)
        return place

    return add_bundle


def in_use(library):
    return {(one.channel, one.camera.camera): one.model for one in library.in_use()}


def test_each_channel_of_each_camera_has_its_own(add, tmp_path):
    library = Library(tmp_path)
    for name, channel, camera in (
        ("a", "GFP", ONE), ("b", "RFP", ONE), ("c", "GFP", OTHER), ("d", "GFP", ONE)
    ):  # fmt: skip
        library.promote(add(name, channel, camera), "better")
    assert in_use(library) == {
        ("GFP", "Cam A"): "models/d", ("RFP", "Cam A"): "models/b", ("GFP", "Cam B"): "models/c"
    }  # fmt: skip
    serving = library.serving(ONE, ["GFP", "DAPI"])
    assert serving == {"GFP": tmp_path / "models" / "d"}
    assert library.current() == tmp_path / "models" / "d"


def test_a_model_for_every_channel_serves_those_without_their_own(add, tmp_path):
    library = Library(tmp_path)
    library.promote(add("all"), "first")
    library.promote(add("gfp", "GFP"), "better there")
    found = library.serving(ONE)
    assert {name: place.name for name, place in found.items()} == {
        EVERY_CHANNEL: "all", "GFP": "gfp"
    }  # fmt: skip
    assert library.serving(OTHER) == {}


def test_rolling_back_goes_back_step_by_step(add, tmp_path):
    library = Library(tmp_path)
    for name in ("1", "2", "3"):
        library.promote(add(name, "GFP"), "better")
    library.promote(add("other", "RFP"), "another channel")
    assert library.rollback("GFP").path.name == "2"
    assert library.rollback("GFP").path.name == "1"
    assert in_use(library)["RFP", "Cam A"] == "models/other"
    with pytest.raises(InferenceError, match="no model was in use before models/1"):
        library.rollback("GFP")
    with pytest.raises(InferenceError, match="several models are in use"):
        library.rollback()
    library.promote(add("4", "GFP"), "better")
    assert library.rollback("GFP").path.name == "1"  # 2 and 3 were taken out of use


def test_what_was_written_before_is_read(add, tmp_path):
    add("old", "GFP")
    entry = {
        "time": "2026-01-01T00:00:00+00:00", "decision": "promoted", "model": "models/old",
        "candidate": "models/old", "reason": "first", "figures": {},
    }  # fmt: skip
    old = {"schema_version": 1, "model": "models/old", "history": [entry]}
    (tmp_path / CURRENT).write_text(json.dumps(old), encoding="utf-8")
    library = Library(tmp_path)
    assert in_use(library) == {("GFP", "Cam A"): "models/old"}
    library.promote(add("new", "RFP"), "another channel")
    assert set(in_use(library).values()) == {"models/old", "models/new"}
    assert [one.reason for one in library.history()] == ["first", "another channel"]


def test_what_is_renamed_stays_in_use_and_is_never_pruned(add, tmp_path):
    library = Library(tmp_path)
    library.promote(add("20260101-0200"), "first")
    add("20260102-0200")
    add("20260103-0200")
    add("20260104-020000-2")
    rename_model("20260101-0200", "monday", tmp_path)
    rename_model("20260102-0200", "keep this", tmp_path)
    rename_model("20260103-0200", "488nm good", tmp_path)
    assert library.current() == tmp_path / "models" / "monday"
    said = prune_models(tmp_path)
    assert (tmp_path / "models" / "20260104-020000-2").is_dir()
    assert said.result["bytes"] > 0
    assert "--yes" in said.summary[-1]
    prune_models(tmp_path, yes=True)
    kept = {"monday", "keep this", "488nm good"}
    assert {bundle.name for bundle in library.models()} == kept
    assert {place.name for place in library.models_dir.iterdir()} == kept
    for name in ("../out", ".hidden", "monday"):
        with pytest.raises(InferenceError):
            rename_model("keep this", name, tmp_path)


def test_what_came_into_use_before_the_pruning_began_is_kept(add, tmp_path, monkeypatch):
    library, candidate = Library(tmp_path), add("20260101-0200")
    looked = Library.unused

    def promoted_meanwhile(self):
        found = looked(self)
        monkeypatch.setattr(Library, "unused", looked)
        library.promote(candidate, "put in use by hand")
        return found

    monkeypatch.setattr(Library, "unused", promoted_meanwhile)
    prune_models(tmp_path, yes=True)
    assert library.current() == candidate


@pytest.mark.parametrize(
    "place", ["s3://me:secret@lab/library", "https://lab.org/library?key=secret"]
)
def test_an_object_store_is_no_library_and_says_why(place):
    with pytest.raises(InferenceError, match="folder on a disk, or on a share") as caught:
        Library(Path(place)).runs()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InferenceError, match="no such folder"):
        Library(Path("C:/nowhere/library")).runs()


def test_a_bundle_on_its_way_is_no_model_yet(add, tmp_path):
    add("one")
    add(".two.0123abcd.partial")
    assert [bundle.name for bundle in Library(tmp_path).models()] == ["one"]


def test_a_model_of_another_camera_is_put_in_use_by_force_alone(add, tmp_path):
    with OmeZarrWriter(
        tmp_path / "run" / "raw.ome.zarr",
        frame_shape=(8, 8),
        dtype="uint16",
        attributes={"quietscope": {"camera": {"camera": "Cam A"}}},
    ) as writer:
        writer.write(np.zeros((8, 8), np.uint16), {"time": 0})
    add("own"), add("foreign", camera=OTHER)
    assert use_model("own", tmp_path).result["model"] == "models/own"
    with pytest.raises(InferenceError, match=r"camera is Cam A, calibrated with Cam B.*--force"):
        use_model("foreign", tmp_path)
    assert in_use(Library(tmp_path)) == {(None, "Cam A"): "models/own"}
    use_model("foreign", tmp_path, force=True)
    assert len(in_use(Library(tmp_path))) == 2


def test_a_model_no_better_than_a_blur_is_put_in_use_by_acceptance_alone(add, tmp_path):
    library = Library(tmp_path)
    useless = add("useless")
    manifest = json.loads((useless / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"better_than_trivial": False, "accepted": False}
    (useless / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match="no better than its input or a blur"):
        library.promote(useless, "better")
    assert library.current() is None
    (said,) = open_models(useless).worth()
    assert "no better than its input or a blur" in said
    use_model("useless", tmp_path, force=True, accept=True)
    assert library.current() == useless


def test_the_list_says_what_is_in_use_and_what_is_damaged(add, tmp_path):
    assert "no model in" in list_models(tmp_path).summary[0]
    use_model(str(add("good", "GFP")), tmp_path, force=True)
    (add("broken") / "manifest.json").write_text("{", encoding="utf-8")
    rows = {row["model"]: row for row in list_models(tmp_path).result["models"]}
    assert rows["models/good"]["in_use"]
    assert rows["models/good"]["channel"] == "GFP"
    assert "damaged" in rows["models/broken"]
    assert show_model("good", tmp_path).result["history"][0]["decision"] == "promoted"
    with pytest.raises(InferenceError, match="no model of that name; the library holds broken"):
        show_model("nothing", tmp_path)
    assert roll_back.__doc__


def test_denoise_takes_the_model_in_use_and_says_so(add, tmp_path):
    frames = np.random.default_rng(0).integers(0, 4096, (2, 24, 24), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", frames, photometric="minisblack")
    with pytest.raises(InferenceError, match="no --model was given"):
        models_in_use(CameraFingerprint(), None, library=None, near=[tmp_path])
    use_model(str(add("good")), tmp_path)
    outcome = denoise(str(tmp_path / "stack.tif"), tmp_path / "out.ome.zarr", provider="cpu")
    assert outcome.result["frames_denoised"] == 2
    assert any("model in use" in line and "good" in line for line in outcome.summary)


def test_two_programs_that_decide_at_once_lose_no_decision(add, tmp_path):
    for name in ("1", "2"):
        add(name, channel=name)
    program = (
        "import sys; from pathlib import Path\n"
        "from quietscope.inference.library import Library\n"
        "library = Library(Path(sys.argv[1]))\n"
        "for turn in range(20):\n"
        "    library.promote(library.path / 'models' / sys.argv[2], f'turn {turn}')\n"
    )
    programs = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name])
        for name in ("1", "2")
    ]
    assert [one.wait(60) for one in programs] == [0, 0]
    library = Library(tmp_path)
    assert len(library.history()) == 40
    assert in_use(library) == {("1", "Cam A"): "models/1", ("2", "Cam A"): "models/2"}
    assert not list(Path(tmp_path).glob("*.partial"))
