"""A bundle and a run that version 0.1.0 wrote before other channels had their name still work.

They lie in `tests/data/written_before`: two channels of 32² pixels, 6 time points of a scene at
rest; the model denoises GFP from one frame before and the channel DAPI, which its manifest calls
a companion.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from quietscope.inference.bundle import CHECKPOINT, open_bundle
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.inference.provenance import provenance_of, recorded_camera
from quietscope.storage.open_stack import open_stack
from quietscope.training.checkpoint import load_checkpoint

BEFORE = Path(__file__).parents[1] / "data" / "written_before"
TIMES = 6


@pytest.fixture
def bundle():
    return open_bundle(BEFORE / "bundle")


@pytest.fixture
def run(tmp_path):
    """A copy, so that nothing can alter what is stored."""
    return shutil.copytree(BEFORE / "run", tmp_path / "run")


def test_the_manifest_of_before_says_companions_and_is_read(bundle):
    manifest = json.loads((bundle.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["companions"] == ["DAPI"]
    assert bundle.manifest.other_channels == ("DAPI",)
    options = load_checkpoint(bundle.path / CHECKPOINT)["options"]
    assert options["other_channels"] == "DAPI"


def test_the_run_says_what_it_is(bundle, run):
    raw = open_stack(run)
    assert raw.channel_names == ("DAPI", "GFP")
    assert recorded_camera(raw).camera == "made"
    found = provenance_of(open_stack(run / "denoised.ome.zarr"))
    assert found.models["GFP"].model_sha256 == found.model_sha256 == bundle.model_sha256
    assert found.simulated is True


def test_the_bundle_denoises_as_it_did(bundle, run, tmp_path):
    raw, then = open_stack(run), open_stack(run / "denoised.ome.zarr")
    now = tmp_path / "now.ome.zarr"
    result = denoise_stack(raw, {"GFP": bundle}, now, provider="cpu")
    assert result["frames_denoised"] == TIMES
    written = open_stack(now)
    for time in range(TIMES):
        index = written.index({"time": time, "channel": 1, "z": 0})
        np.testing.assert_allclose(written.frame(index), then.frame(index), rtol=1e-4)


def test_a_store_of_before_is_gone_on_with(bundle, run):
    raw, store = open_stack(run), run / "denoised.ome.zarr"
    result = denoise_stack(raw, {"GFP": bundle}, store, provider="cpu", resume=True)
    assert (result["frames_kept"], result["frames_denoised"]) == (TIMES, 0)


def test_the_bundle_is_scored(bundle, run):
    result = evaluate(open_stack(run), bundle, static=True, provider="cpu").result()
    assert result["frames"] == TIMES
    assert result["psnr_db"] > result["psnr_raw_db"] + 3
