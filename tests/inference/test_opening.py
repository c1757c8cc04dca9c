"""What commands say and ask about the recordings they open, through the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from quietscope.cli import app
from quietscope.storage.open_stack import open_stack

SHAPE = (32, 32)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def cut_off(tmp_path):
    """Ten frames were meant to be there; about six are."""
    rng = np.random.default_rng(0)
    pixels = rng.poisson(100, (10, *SHAPE)).astype(np.uint16)
    path = tmp_path / "cut off.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.62)])
    return path


def test_absent_frames_are_counted_and_absent_in_the_result(cut_off, make_bundle, tmp_path):
    out = tmp_path / "out.ome.zarr"
    arguments = ["denoise", cut_off, "--model", make_bundle(), "--out", out, "--provider", "cpu"]
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["frames_denoised"] == 6
    assert result["frames_absent"] == 4
    assert result["inputs"][0]["frames_absent"] == 4
    assert "6 of 10 frames; 4 absent" in done.stderr
    assert open_stack(out).absent == 4  # as many frames as the recording has
    strict = run(*arguments, "--strict", "--overwrite", "--json")
    assert strict.exit_code == 3
    assert json.loads(strict.stdout)["frames_denoised"] == 6


def test_custom_axes_and_names_are_in_the_result(make_bundle, tmp_path):
    pixels = np.random.default_rng(0).poisson(100, (2, 3, *SHAPE)).astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "QTYX"})
    out = tmp_path / "out.ome.zarr"
    done = run(
        "denoise",
        path,
        "--model",
        make_bundle(),
        "--out",
        out,
        "--axes",
        "repetition,t,y,x",
        "--provider",
        "cpu",
    )
    assert done.exit_code == 0, done.output
    stack = open_stack(out)
    assert (stack.sizes["repetition"], stack.sizes["time"]) == (2, 3)


def test_other_pixels_are_converted_when_asked(make_bundle, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((5, *SHAPE), 100, np.int32), photometric="minisblack")
    arguments = ["denoise", path, "--model", make_bundle(), "--out", tmp_path / "o.ome.zarr"]
    refused = run(*arguments, "--provider", "cpu")
    assert refused.exit_code == 1
    assert "--pixels uint16" in refused.output
    done = run(*arguments, "--provider", "cpu", "--pixels", "uint16")
    assert done.exit_code == 0, done.output
