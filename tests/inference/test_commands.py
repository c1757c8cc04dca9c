"""The commands `denoise`, `evaluate` and `bench`, as a person and a program call them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile

from quietscope.inference.commands import bench, denoise, evaluate, parse_shape
from quietscope.inference.errors import InferenceError
from quietscope.inference.runtime import machine_limit
from quietscope.storage.atomic_output import jsonable


@pytest.fixture
def recording(tmp_path):
    random = np.random.default_rng(0)
    scene = 200 + 300 * random.random((32, 32))
    frames = random.poisson(scene, (8, 32, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in put.tif", frames, photometric="minisblack")
    return tmp_path / "in put.tif"


def test_denoise(make_bundle, recording, tmp_path):
    out = tmp_path / "out.ome.zarr"
    outcome = denoise(recording, out, [str(make_bundle())], provider="cpu", threads=1)
    assert outcome.result["frames_denoised"] == 8
    assert outcome.summary[0].startswith("8 frames denoised on ")
    assert outcome.summary[-1] == str(out)
    assert jsonable(outcome.result)["output"] == str(out)


def test_bench(make_bundle, monkeypatch):
    monkeypatch.setattr(machine_limit, "PRODUCT_EDGES", (128, 256))
    monkeypatch.setattr(machine_limit, "CONVOLUTIONS", ((16, 64),))
    outcome = bench(make_bundle(), "32x48", frames=3, provider="cpu", threads=1)
    assert outcome.result["shape"] == [32, 48]
    assert any("of what this machine reaches at best" in line for line in outcome.summary)


def test_evaluate(make_bundle, recording, tmp_path):
    outcome = evaluate(
        recording,
        make_bundle(),
        static=True,
        figures=tmp_path / "maps",
        provider="cpu",
        threads=1,
    )
    assert outcome.result["frames"] == 8
    assert "PSNR" in outcome.summary[0]
    assert len(list((tmp_path / "maps").glob("*.png"))) == 3


@pytest.mark.parametrize("text", ["512", "0x5", "ax5", "5x", "-1x4", "5x5x5"])
def test_a_shape_that_is_none_is_named(text):
    with pytest.raises(InferenceError, match="expected rows x columns"):
        parse_shape(text)


def test_shapes():
    assert parse_shape("2048x1024") == (2048, 1024)
    assert parse_shape(" 8 × 9 ") == (8, 9)


def test_the_commands_load_nothing_heavy():
    script = (
        "import sys, quietscope.inference.commands\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'matplotlib', 'zarr', 'scipy', 'skimage'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
