"""No command changes what it reads, nor a recording, whatever its options say.

Each line is given to the command as a person gives it, `--overwrite` included. It has to fail in
one line, and every byte that was there before has to be there afterwards.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from quietscope.acquisition import LiveDenoiser
from quietscope.cli import app
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.ome_zarr_writer import OmeZarrWriter

SHAPE = (32, 32)


@pytest.fixture
def place(tmp_path, monkeypatch, make_bundle):
    """A folder with a run, a store, a TIFF and a model, in which the commands are given."""
    monkeypatch.chdir(tmp_path)
    make_bundle("model")
    noise = np.random.default_rng(0).poisson(100, (6, *SHAPE)).astype(np.uint16)
    for store in ("run/raw.ome.zarr", "z.ome.zarr"):
        attributes = {"quietscope": {"kind": "raw"}}
        with OmeZarrWriter(
            store, frame_shape=SHAPE, dtype="uint16", attributes=attributes
        ) as writer:
            for t, frame in enumerate(noise):
                writer.write(frame, {"time": t})
    Path("run/report.json").write_text(json.dumps({"frames_recorded": 6}), encoding="utf-8")
    Path("run/events.log").write_text("", encoding="utf-8")
    tifffile.imwrite("b.tif", noise)
    if sys.platform != "win32":
        Path("link").symlink_to(tmp_path / "z.ome.zarr")
        Path("same-place").symlink_to(tmp_path)
    return tmp_path


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


LINES = [
    "denoise z.ome.zarr --model model --out z.ome.zarr",
    "denoise z.ome.zarr --model model --out z.ome.zarr --resume",
    "denoise z.ome.zarr --model model --out link",
    "denoise link --model model --out z.ome.zarr",
    "denoise z.ome.zarr --model model --out same-place/z.ome.zarr",
    "denoise z.ome.zarr --model model --out z.ome.zarr/denoised.ome.zarr",
    "denoise z.ome.zarr --model model --out .",
    "denoise z.ome.zarr --model model --out run/raw.ome.zarr",
    "denoise z.ome.zarr --model model --out run",
    "denoise z.ome.zarr --model model --out b.tif",
    "denoise z.ome.zarr --model model --out model",
    "denoise z.ome.zarr --model model --out new.ome.zarr --uncertainty new.ome.zarr",
    "denoise z.ome.zarr --model model --out new.ome.zarr --uncertainty z.ome.zarr",
    "denoise z.ome.zarr --model model --out new.h5",
    "denoise run --model model --out run/raw.ome.zarr",
    "denoise run --model model --out run",
    "denoise b.tif --model model --out b.tif",
    "denoise z.ome.zarr --model model --out z.ome.zarr --scheduler local",
    "train run/raw.ome.zarr --out run --steps 2",
    "train run --out run --steps 2",
    "train z.ome.zarr --out z.ome.zarr --steps 2",
    "train z.ome.zarr --out run --steps 2",
    "fit-noise b.tif --out b.tif --offset 100",
    "fit-noise b.tif --out n.npz --report b.tif --offset 100",
    "fit-noise b.tif --out n.npz --juglab b.tif --offset 100",
    "fit-noise z.ome.zarr --out b.tif --offset 100",
    "fit-noise b.tif --out n.npz --report n.npz --offset 100",
    "fit-noise b.tif --out n.npz --juglab n.npz --offset 100",
    "calibrate --out n.npz --report n.npz",
    "calibrate --out b.tif",
    "calibrate --out n.npz --report b.tif",
    "calibrate --out n.npz --keep-stacks run",
    "evaluate b.tif --model model --static --figures model",
    "evaluate z.ome.zarr --model model --static --figures z.ome.zarr/figures",
    "bioimage --model model --out model --author A",
    "bioimage --model model --out model/package.zip --author A",
    "bioimage --model model --out b.tif --author A",
    "import model --out model",
    "import b.tif --out b.tif",
    "live --model model --out model --force --no-preview --frames 2",
    "record --out z.ome.zarr --frames 2",
    "demo --out run --no-preview",
]
WITHOUT_OVERWRITE = ("evaluate", "--resume")


@pytest.mark.parametrize("line", LINES)
def test_what_is_read_is_not_written(place, line):
    if sys.platform == "win32" and ("link" in line or "same-place" in line):
        pytest.skip("links need a right there")
    before = contents(place)
    words = line.split()
    if not any(word in WITHOUT_OVERWRITE for word in words):
        words.append("--overwrite")
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 1, said.output
    reasons = "is the same as", "lies inside", "holds", "does not replace", "are written; give"
    assert any(reason in " ".join(said.output.split()) for reason in reasons), said.output
    assert "Traceback" not in said.output
    assert contents(place) == before


def test_functions_refuse_as_commands_do(place):
    from quietscope.inference.offline.denoise_stack import denoise_stack
    from quietscope.storage.open_stack import open_stack

    before = contents(place)
    with pytest.raises(OutputError, match="is the same as"):
        denoise_stack(open_stack("z.ome.zarr"), "model", "link", overwrite=True)
    with (
        pytest.raises(OutputError, match="is the same as"),
        LiveDenoiser("model", "model", overwrite=True),
    ):
        pytest.fail("the block must not run")
    assert contents(place) == before


def test_what_is_printed_is_where_it_is(place):
    for out in ("x.zarr", "x", "day.2026-11-25", "deep/er/x.ome.zarr"):
        for options in ([], ["--resume"], ["--overwrite"]):
            words = ["denoise", "z.ome.zarr", "--model", "model", "--out", out, *options, "--json"]
            said = CliRunner().invoke(app, words)
            assert said.exit_code == 0, said.output
            assert json.loads(said.stdout)["output"] == out
            assert Path(out, "zarr.json").is_file()
    assert not list(place.rglob("*.partial"))
    assert not list(place.rglob(".*lock"))
