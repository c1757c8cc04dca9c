"""Several processes train one model: started by torchrun as in the guide, the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch

from quietscope.inference.bundle import open_bundle


def torchrun(stack, out, *more):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "quietscope.cli", "train", str(stack), "--out", str(out),
        "--preset", "fast", "--batch", "2", "--accept", "--json", *more,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    path = tmp_path_factory.mktemp("stack") / "a.tif"
    x = np.arange(80)
    pixels = np.random.default_rng(0).poisson(40 + 30 * np.sin(x / 5), (10, 64, 80))
    tifffile.imwrite(path, pixels.astype(np.uint16), photometric="minisblack")
    return path


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv there")
def test_two_processes_make_one_bundle_the_same_twice(stack, tmp_path):
    weights, steps = [], []
    for name in ("first", "second"):
        done = torchrun(stack, tmp_path / name, "--steps", "12")
        assert done.returncode == 0, done.stderr
        # One JSON object, although two processes ran.
        steps.append(json.loads(done.stdout)["steps"])
        bundle = open_bundle(tmp_path / name)
        saved = torch.load(bundle.path / "checkpoint.pt", weights_only=True)
        weights.append(saved["network"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert steps[0] == steps[1] > 4
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv there")
def test_an_error_ends_all_processes_with_its_one_line(tmp_path):
    pixels = np.ones((4, 16, 16), np.uint16)
    tifffile.imwrite(tmp_path / "small.tif", pixels, photometric="minisblack")
    done = torchrun(tmp_path / "small.tif", tmp_path / "model", "--steps", "12")
    assert done.returncode != 0
    assert "16×16 pixels, expected at least 32×32" in " ".join(done.stderr.split())
    assert done.stdout == ""
