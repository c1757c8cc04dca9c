"""What may take the place of what, and which outputs are refused because they are an input."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from quietscope.acquisition.stream.run_directory import RunDirectory
from quietscope.storage.atomic_output import (
    MovedAside,
    OutputError,
    new_directory,
    recover,
    require_absent,
    require_apart,
    require_zarr_name,
    write_json,
)
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.output_kinds import Kind, kind_of
from quietscope.storage.stack import stack_from_array
from quietscope.storage.writers.ndtiff import NDTiffWriter


def text(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def store(path, about=None):
    attributes = {"quietscope": {"kind": about}} if about else {}
    with OmeZarrWriter(path, frame_shape=(4, 4), dtype="uint16", attributes=attributes) as writer:
        writer.write(np.ones((4, 4), np.uint16), {"time": 0})


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"")


MAKERS = {
    Kind.RUN: lambda path: store(path / "raw.ome.zarr", "raw"),
    Kind.RECORDING: store,
    Kind.DENOISED: lambda path: store(path, "denoised"),
    Kind.LIGHT_LEVELS: lambda path: store(path / "level-01.ome.zarr"),
    Kind.BUNDLE: lambda path: (text(path / "manifest.json"), text(path / "model.onnx")),
    Kind.LIBRARY: lambda path: store(path / "monday" / "raw.ome.zarr", "raw"),
    Kind.DEMO: lambda path: text(path / "library" / "current.json"),
    Kind.NOISE_MODEL: lambda path: archive(path, "format.npy", "header.npy", "signal_adu.npy"),
    Kind.PAGE: lambda path: text(path, "<!doctype html><html></html>"),
    Kind.FIGURE: lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
    Kind.PACKAGE: lambda path: archive(path, "rdf.yaml", "model.onnx"),
    Kind.COMPARISON: lambda path: text(path / "comparison_settings.json"),
}


@pytest.mark.parametrize("there", Kind)
def test_a_thing_is_replaced_by_one_of_its_kind_only(tmp_path, there):
    MAKERS[there](tmp_path / "it")
    assert kind_of(tmp_path / "it") is there
    for new in Kind:
        if new is there:
            require_absent(tmp_path / "it", overwrite=True, kind=new)
            continue
        with pytest.raises(OutputError, match=f"is {there.value}"):
            require_absent(tmp_path / "it", overwrite=True, kind=new)


@pytest.mark.parametrize("there", ["tiff", "array", "folder", "numpy", "extension"])
def test_what_this_program_does_not_write_is_not_replaced(tmp_path, there):
    path = tmp_path / "it"
    if there == "tiff":
        tifffile.imwrite(path, np.ones((5, 8, 8), np.uint16))
    elif there == "array":
        archive(path, "years_of_work.npy")
    elif there == "folder":
        text(path / "thesis.docx", "years of work")
    elif there == "extension":
        text(path / "manifest.json", '{"manifest_version": 3}')
    else:
        text(path, "years of work")
    for new in Kind:
        if (there, new) != ("tiff", Kind.RECORDING):
            with pytest.raises(OutputError, match="--overwrite does not replace"):
                require_absent(path, overwrite=True, kind=new)


def test_a_store_of_any_other_program_is_a_recording(tmp_path):
    import zarr

    zarr.create_array(tmp_path / "theirs.zarr", shape=(3, 4, 4), dtype="uint16")
    assert kind_of(tmp_path / "theirs.zarr") is Kind.RECORDING


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("there", [Kind.RECORDING, Kind.DENOISED])
def test_an_ndtiff_is_what_its_summary_says(tmp_path, there):
    """What Micro-Manager recorded is never replaced by what was denoised."""
    pixels = np.ones((2, 8, 8), np.uint16)
    about = {"quietscope": {"kind": "denoised"}} if there is Kind.DENOISED else {}
    with NDTiffWriter(tmp_path / "it", stack_from_array(pixels), attributes=about) as writer:
        writer.write(pixels[0], {"time": 0})
    assert kind_of(tmp_path / "it") is there
    other = Kind.DENOISED if there is Kind.RECORDING else Kind.RECORDING
    with pytest.raises(OutputError, match="does not replace"):
        require_absent(tmp_path / "it", overwrite=True, kind=other)
    (tmp_path / "it" / "NDTiffStack.tif").write_bytes(b"half a fi")
    assert kind_of(tmp_path / "it") is Kind.RECORDING


# ------------------------------------------------------------------------- apart from inputs


@pytest.mark.parametrize(
    ("out", "relation"),
    [
        ("run/raw.ome.zarr", "is the same as"),
        ("run/raw.ome.zarr/", "is the same as"),
        ("elsewhere/../run/raw.ome.zarr", "is the same as"),
        ("run", "holds"),
        (".", "holds"),
        ("run/raw.ome.zarr/denoised.ome.zarr", "lies inside"),
        ("run/raw.ome.zarr/not/yet/there", "lies inside"),
    ],
)
def test_no_output_is_or_holds_or_lies_inside_an_input(tmp_path, monkeypatch, out, relation):
    store(tmp_path / "run" / "raw.ome.zarr")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    for source in ("run/raw.ome.zarr", tmp_path / "run" / "raw.ome.zarr"):
        for spelling in (Path(out), tmp_path / out):
            with pytest.raises(OutputError, match=relation):
                require_apart(spelling, [Path("another"), source])


def test_neighbours_of_an_input_are_apart(tmp_path):
    store(tmp_path / "run" / "raw.ome.zarr")
    for out in ("run/denoised.ome.zarr", "run/raw.ome.zarr.denoised", "run-2", "raw.ome.zarr"):
        require_apart(tmp_path / out, [tmp_path / "run" / "raw.ome.zarr"])


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_are_seen_through(tmp_path):
    store(tmp_path / "disk" / "run" / "raw.ome.zarr")
    raw = tmp_path / "disk" / "run" / "raw.ome.zarr"
    (tmp_path / "link").symlink_to(raw)
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    (tmp_path / "later").symlink_to(raw / "not yet")
    for out in (tmp_path / "link", tmp_path / "data", tmp_path / "later" / "x"):
        with pytest.raises(OutputError):
            require_apart(out, [raw])
    for source in (tmp_path / "link", tmp_path / "data" / "run" / "raw.ome.zarr"):
        with pytest.raises(OutputError):
            require_apart(raw.parent, [source])


def test_another_name_of_the_same_file_is_the_same(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint16))
    os.link(tmp_path / "a.tif", tmp_path / "b.tif")
    with pytest.raises(OutputError, match="is the same as"):
        require_apart(tmp_path / "b.tif", [tmp_path / "a.tif"])


def test_a_file_system_that_ignores_case(tmp_path, monkeypatch):
    """Such a one is not at hand everywhere; what it answers is."""
    store(tmp_path / "cells.ome.zarr")
    monkeypatch.setattr(
        Path, "samefile", lambda one, other: str(one).lower() == str(other).lower()
    )
    for out in ("CELLS.ome.zarr", "Cells.OME.zarr/inside"):
        with pytest.raises(OutputError):
            require_apart(tmp_path / out, [tmp_path / "cells.ome.zarr"])
    monkeypatch.undo()
    with pytest.raises(OutputError):  # two outputs of which none is there yet
        require_apart(tmp_path / "Model", [tmp_path / "model"])


def test_urls_are_elsewhere_unless_they_name_this_disk(tmp_path):
    store(tmp_path / "a.ome.zarr")
    require_apart(tmp_path / "out", ["s3://bucket/a.ome.zarr", "https://host/a.tif"])
    with pytest.raises(OutputError, match="is the same as"):
        require_apart(tmp_path / "a.ome.zarr", [(tmp_path / "a.ome.zarr").as_uri()])


@pytest.mark.parametrize("name", ["x.tif", "x.TIFF", "x.h5", "x.npz"])
def test_names_of_formats_that_are_not_written(name):
    with pytest.raises(
        OutputError, match=r"name that ends in \.ome\.zarr or \.ome\.tif, as x\.ome\.zarr"
    ):
        require_zarr_name(name)
    for fine in ("x", "x.zarr", "x.ome.zarr", "day.2026-11-25"):
        require_zarr_name(fine)


# ------------------------------------------------------------------------------ moved aside


def test_what_is_moved_aside_comes_back_or_goes(tmp_path):
    path = tmp_path / "run"
    for holds_something, content in ((False, "old"), (True, "new")):
        text(path / "raw", "old")
        assert MovedAside.of(path) is not None
        assert not path.exists()
        text(path / "raw", "new")
        recover(path, holds_something=holds_something)
        assert (path / "raw").read_text(encoding="utf-8") == content
        assert [item.name for item in tmp_path.iterdir()] == ["run"]
    recover(path, holds_something=False)
    assert (path / "raw").exists(), "nothing was moved aside, so nothing comes back"


def test_what_was_half_deleted_at_a_kill_never_comes_back(tmp_path, monkeypatch):
    path = tmp_path / "run"
    text(path / "raw", "old")
    moved = MovedAside.of(path)
    text(path / "raw", "new")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # the kill comes before it
    moved.let_go()
    monkeypatch.undo()
    path.rename(tmp_path / "moved by the user")
    recover(path, holds_something=False)
    assert [item.name for item in tmp_path.iterdir()] == ["moved by the user"]


def test_nothing_is_moved_over_what_was_moved_before(tmp_path):
    text(tmp_path / "run" / "raw", "first")
    MovedAside.of(tmp_path / "run")
    text(tmp_path / "run" / "raw", "second")
    with pytest.raises(OutputError, match=r"still lies in \.run\.replaced"):
        MovedAside.of(tmp_path / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_to_another_disk_stays_one(tmp_path):
    """What is replaced is the place that it leads to; also where that is not there yet."""
    disk = tmp_path / "large disk"
    disk.mkdir()
    for name in ("run", "z.ome.zarr", "model", "n.json"):
        (tmp_path / name).symlink_to(disk / name)
    for number in (1, 2):
        run = RunDirectory(tmp_path / "run")
        run.claim(overwrite=True)
        run.first_frame_is_kept()
        run.release()
        with OmeZarrWriter(
            tmp_path / "z.ome.zarr", frame_shape=(4, 4), dtype="uint16", overwrite=True
        ) as writer:
            writer.write(np.full((4, 4), number, np.uint16), {"time": 0})
        with new_directory(tmp_path / "model", Kind.BUNDLE, overwrite=True) as staging:
            for file in ("manifest.json", "model.onnx"):
                text(staging / file, str(number))
        write_json(tmp_path / "n.json", {"number": number})
    assert all((tmp_path / name).is_symlink() for name in ("run", "z.ome.zarr", "model", "n.json"))
    assert sorted(item.name for item in disk.iterdir()) == ["model", "n.json", "run", "z.ome.zarr"]
    assert (disk / "model" / "manifest.json").read_text(encoding="utf-8") == "2"
    assert int(open_stack(tmp_path / "z.ome.zarr").frame(0)[0, 0]) == 2


def test_the_folder_one_is_in_can_be_the_output(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    run = RunDirectory(".")
    run.claim()
    run.release()
    run = RunDirectory(".")
    run.claim(overwrite=True)
    run.release()
    assert kind_of(tmp_path / "run") is Kind.RUN
