"""A run keeps its models, and says when a newer one has come into use."""

from __future__ import annotations

import shutil
import time

from quietscope.acquisition.stream.newer_models import NewerModels
from quietscope.inference.bundle import open_bundle
from quietscope.inference.library import Library


def test_a_newer_model_is_told_once(tmp_path, make_bundle):
    shelf = Library(tmp_path / "lib")
    for name in ("first", "second", "gfp"):
        made = make_bundle(name, channel="GFP" if name == "gfp" else None)
        shutil.copytree(made, shelf.models_dir / name)
    shelf.promote(shelf.models_dir / "first", "by hand")
    said: list[str] = []
    bundle = open_bundle(shelf.models_dir / "first")
    watch = NewerModels(lambda: {"*": bundle}, said.append, look_every_s=0.02)
    watch.start()
    shelf.promote(shelf.models_dir / "gfp", "another channel's")
    time.sleep(0.1)
    assert said == []
    shelf.promote(shelf.models_dir / "second", "better")
    ends = time.monotonic() + 5
    while not said and time.monotonic() < ends:
        time.sleep(0.01)
    watch.close()
    assert watch.found == {"*": str(shelf.models_dir / "second")}
    assert len(said) == 1
    assert "this run keeps first" in said[0]


def test_a_newer_model_that_is_rolled_back_is_offered_no_longer(tmp_path, make_bundle):
    shelf = Library(tmp_path / "lib")
    for name in ("first", "second"):
        shutil.copytree(make_bundle(name), shelf.models_dir / name)
    shelf.promote(shelf.models_dir / "first", "by hand")
    bundle = open_bundle(shelf.models_dir / "first")
    watch = NewerModels(lambda: {"*": bundle}, lambda line: None, look_every_s=0.02)
    watch.start()
    for name, expected in (("second", shelf.models_dir / "second"), ("first", None)):
        shelf.promote(shelf.models_dir / name, "by hand")
        ends = time.monotonic() + 5
        while watch.waiting() != expected and time.monotonic() < ends:
            time.sleep(0.01)
        assert watch.waiting() == expected
    watch.close()
    assert watch.found == {}


def test_an_older_model_that_was_chosen_by_hand_is_no_news(tmp_path, make_bundle):
    shelf = Library(tmp_path / "lib")
    for name in ("first", "second"):
        shutil.copytree(make_bundle(name), shelf.models_dir / name)
        shelf.promote(shelf.models_dir / name, "by hand")
    watch = NewerModels(lambda: {"*": open_bundle(shelf.models_dir / "first")}, print)
    watch.start()
    watch.close()
    assert watch.found == {}


def test_a_model_outside_of_every_library_is_not_watched(make_bundle):
    watch = NewerModels(lambda: {"*": open_bundle(make_bundle())}, print)
    watch.start()
    watch.close()
    assert watch.found == {}
