"""Results are whole or absent, and never take the place of something else unasked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quietscope.storage import atomic_output as outputs
from quietscope.storage.atomic_output import (
    OutputError,
    jsonable,
    new_directory,
    new_file,
    require_absent,
    require_space,
    write_json,
)
from quietscope.storage.output_kinds import Kind


def write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def fill_and_fail(opened, name=""):
    """Write something half and fail, as a crash in the middle of a block does."""
    with opened as staging:
        write(staging / name, "half")
        raise ZeroDivisionError


def old_bundle(target):
    write(target / "manifest.json", "old")
    write(target / "model.onnx")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------ directories


def test_a_directory_appears_when_it_is_finished(tmp_path):
    target = tmp_path / "a b" / "model"
    with new_directory(target, Kind.BUNDLE) as staging:
        write(staging / "part")
        assert not target.exists()
        assert staging.parent == target.parent
    assert names(target) == ["part"]
    assert names(target.parent) == ["model"]


def test_a_failure_leaves_nothing(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(ZeroDivisionError):
        fill_and_fail(new_directory(target, Kind.BUNDLE), "part")
    assert names(tmp_path) == []


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "model"
    old_bundle(target)
    with pytest.raises(ZeroDivisionError):
        fill_and_fail(new_directory(target, Kind.BUNDLE, overwrite=True), "manifest.json")
    assert (target / "manifest.json").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["model"]


def test_overwriting_replaces_the_whole(tmp_path):
    target = tmp_path / "model"
    old_bundle(target)
    write(target / "only in the old one")
    with new_directory(target, Kind.BUNDLE, overwrite=True) as staging:
        write(staging / "manifest.json", "new")
    assert names(target) == ["manifest.json"]
    assert names(tmp_path) == ["model"]


def test_what_is_there_is_refused_before_any_work(tmp_path):
    old_bundle(tmp_path / "model")
    with (
        pytest.raises(OutputError, match=r"already exists.*--overwrite"),
        new_directory(tmp_path / "model", Kind.BUNDLE),
    ):
        pytest.fail("the block must not run")
    (tmp_path / "empty").mkdir()
    with new_directory(tmp_path / "empty", Kind.BUNDLE):
        pass


def test_overwrite_does_not_cost_somebody_s_data(tmp_path):
    """A mistyped --out may point at a folder that holds years of work."""
    thesis = write(tmp_path / "home" / "thesis.docx", "years of work")
    with pytest.raises(OutputError, match="is not a model bundle that quietscope wrote"):
        require_absent(tmp_path / "home", overwrite=True, kind=Kind.BUNDLE)
    assert thesis.read_text(encoding="utf-8") == "years of work"


@pytest.mark.skipif(os.name == "nt", reason="a kill leaves open handles on Windows")
def test_a_killed_program_leaves_the_old_one_in_place(tmp_path):
    target = tmp_path / "model"
    old_bundle(target)
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from quietscope.storage.atomic_output import new_directory
        from quietscope.storage.output_kinds import Kind
        with new_directory(Path({str(target)!r}), Kind.BUNDLE, overwrite=True) as staging:
            (staging / "manifest.json").write_text("half", encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (target / "manifest.json").read_text(encoding="utf-8") == "old"


def test_a_target_that_cannot_be_replaced_keeps_the_old_one(tmp_path, monkeypatch):
    """On Windows, another program that holds a file open forbids the last step."""
    target = tmp_path / "model"
    old_bundle(target)
    replace = Path.replace

    def held_open(self, other):
        if Path(other) == target and "partial" in self.name and (self / "new").exists():
            raise PermissionError(13, "Permission denied")
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", held_open)
    with (
        pytest.raises(OutputError, match="close the program"),
        new_directory(target, Kind.BUNDLE, overwrite=True) as staging,
    ):
        write(staging / "new")
    assert (target / "manifest.json").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["model"]


def test_what_a_scanner_holds_for_a_moment_is_replaced_after_it(tmp_path, monkeypatch):
    """As on Windows, where what is open cannot be renamed."""
    refusals = [PermissionError(13, "Permission denied")] * 3
    replace = Path.replace

    def held(self, other):
        if refusals:
            raise refusals.pop()
        return replace(self, other)

    monkeypatch.setattr(outputs, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(Path, "replace", held)
    write_json(tmp_path / "report.json", {"frames": 1})
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {"frames": 1}
    assert names(tmp_path) == ["report.json"]


# ------------------------------------------------------------------------------------ files


def test_a_file_appears_when_it_is_finished(tmp_path):
    target = tmp_path / "deep" / "report.json"
    with new_file(target) as staging:
        write(staging)
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "x"
    assert names(target.parent) == ["report.json"]


def test_a_failed_file_leaves_the_old_one(tmp_path):
    target = write(tmp_path / "report.json", "old")
    with pytest.raises(ZeroDivisionError):
        fill_and_fail(new_file(target))
    assert target.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["report.json"]


def test_a_file_is_not_overwritten_where_that_is_refused(tmp_path):
    target = write(tmp_path / "camera.npz", "old")
    with pytest.raises(OutputError, match="already exists"), new_file(target, overwrite=False):
        pytest.fail("the block must not run")


def test_a_folder_where_a_file_should_go(tmp_path):
    write(tmp_path / "report.json" / "thesis.docx", "years of work")
    with pytest.raises(OutputError), new_file(tmp_path / "report.json") as staging:
        write(staging)
    assert (tmp_path / "report.json" / "thesis.docx").exists()


# ------------------------------------------------------------------------------------- disk


def test_space_is_asked_for_before_it_is_needed(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    free = outputs.RESERVE_BYTES + 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, free))
    require_space(tmp_path / "not" / "yet" / "there", 1000)
    with pytest.raises(OutputError, match=r"needs .* GiB .* is free; free some space"):
        require_space(tmp_path / "not" / "yet" / "there", 1001)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_the_right_to_write(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with (
        pytest.raises(OutputError, match="choose a folder that you may write to"),
        new_directory(tmp_path / "locked" / "model", Kind.BUNDLE),
    ):
        pass


def test_a_file_where_a_folder_should_be(tmp_path):
    write(tmp_path / "file")
    with (
        pytest.raises(OutputError, match="cannot be created"),
        new_directory(tmp_path / "file" / "model", Kind.BUNDLE),
    ):
        pass


# ------------------------------------------------------------------------------------- JSON


def test_json_has_its_own_types_only(tmp_path):
    content = {
        "path": Path("a"),
        "array": np.arange(3),
        "scalar": np.float32(1.5),
        "nothing": float("nan"),
        "endless": np.inf,
        "deep": [{"tuple": (1, np.nan)}],
        7: True,
    }
    write_json(tmp_path / "a.json", content)
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert read == {
        "path": "a",
        "array": [0, 1, 2],
        "scalar": 1.5,
        "nothing": None,
        "endless": None,
        "deep": [{"tuple": [1, None]}],
        "7": True,
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_anything_becomes_strict_json(value):
    json.dumps(jsonable(value), allow_nan=False)
