"""Exported packages are what BioImage.IO's own programs take.

`QUIETSCOPE_BIOIMAGEIO` is a Python with bioimageio.core (`packaging/other_programs.py` makes one):
its pins are not ours. Tested against 0.11.0.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from quietscope.cli import app

pytest.importorskip("bioimageio.spec")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""bioimageio.spec leaves the files open that it packs."""

TESTED = """
import sys, json
from importlib.metadata import version
from bioimageio.core import test_model
summary = test_model(sys.argv[1], weight_format="onnx", determinism="full")
print(json.dumps({"status": summary.status, "core": version("bioimageio.core"),
    "errors": [str(e.msg) for d in summary.details for e in d.errors]}))
"""


@pytest.fixture(scope="module")
def package(trained_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "model.zip"
    line = ["bioimage", "--model", str(trained_bundle), "--out", str(path), "--author", "A. Lab"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    return path


@pytest.mark.skipif(
    "QUIETSCOPE_BIOIMAGEIO" not in os.environ,
    reason="QUIETSCOPE_BIOIMAGEIO names no Python with bioimageio.core",
)
def test_their_own_test_of_a_model_passes(package):
    done = subprocess.run(
        [os.environ["QUIETSCOPE_BIOIMAGEIO"], "-c", TESTED, str(package)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["status"], said["errors"]) == ("passed", []), said


def test_java_can_feed_it(package):
    """Fiji's ONNX Runtime has float32 tensors and no uint16 ones; tiles overlap by the halo."""
    with zipfile.ZipFile(package) as archive:
        said = yaml.safe_load(archive.read("rdf.yaml"))
        frames = np.load(archive.open(said["inputs"][0]["test_tensor"]["source"]))
    assert said["inputs"][0]["data"]["type"] == "float32"
    assert frames.dtype == np.float32
    assert said["config"]["deepimagej"]["allow_tiling"] is True
    space = [axis for axis in said["inputs"][0]["axes"] if axis["type"] == "space"]
    halo = [axis["halo"] for axis in said["outputs"][0]["axes"] if axis["type"] == "space"]
    for axis, margin, size in zip(space, halo, frames.shape[2:], strict=True):
        assert 2 * margin < axis["size"]["min"] <= size
        assert (size - axis["size"]["min"]) % axis["size"]["step"] == 0
