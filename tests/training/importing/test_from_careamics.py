"""CAREamics' checkpoints and exports give here what its own `predict` gives there.

`QUIETSCOPE_CAREAMICS` is a Python with careamics (`packaging/other_programs.py` makes one): its
pins are not ours. Tested against 0.3.5.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from quietscope import load
from quietscope.calibration.juglab_files import save_juglab_noise_model
from quietscope.calibration.noise_files import load_noise_model
from quietscope.cli import app
from quietscope.training.errors import TrainingError
from quietscope.training.importing.careamics_unet import CAREamicsUNet, UNetPlan
from quietscope.training.importing.from_careamics import read_checkpoint
from quietscope.training.importing.imported_bundle import write_import

WORKER = Path(__file__).with_name("careamics_worker.py")
needs_careamics = pytest.mark.skipif(
    "QUIETSCOPE_CAREAMICS" not in os.environ,
    reason="QUIETSCOPE_CAREAMICS names no Python with careamics",
)


def in_careamics(*words: object) -> None:
    done = subprocess.run(
        [os.environ["QUIETSCOPE_CAREAMICS"], str(WORKER), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "", "CI": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of N2V and N2V2, an export of each, and what they predict."""
    folder = tmp_path_factory.mktemp("careamics")
    in_careamics("train", folder)
    return folder


@needs_careamics
@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["n2v", "n2v2"])
@pytest.mark.parametrize("kind", ["ckpt", "zip"])
def test_an_imported_model_gives_what_careamics_predicts(theirs, name, kind, tmp_path):
    source = theirs / f"{name}.{kind}"
    line = ["import", str(source), "--out", str(tmp_path / "model"), "--pixel-type", "uint16"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    known = np.load(theirs / f"{name}.npz")
    estimate = load(tmp_path / "model").denoise(known["frames"].astype(np.uint16))
    difference = np.abs(estimate - known["predicted"]).max() / known["predicted"].std()
    assert difference < 1e-3


@needs_careamics
@pytest.mark.long
def test_noise_models_go_both_ways(make_bundle, tmp_path):
    """Ours is read by their GaussianMixtureNoiseModel, and what it saves is read by us."""
    ours = load_noise_model(make_bundle("camera") / "noise_model.npz")
    save_juglab_noise_model(ours, tmp_path / "ours.npz")
    in_careamics("noise", tmp_path)
    again = load_noise_model(tmp_path / "ours.npz")
    theirs = load_noise_model(tmp_path / "theirs.npz")
    there = np.load(tmp_path / "likelihoods.npz")
    x, s = there["observations"], there["signals"]
    for model, found in ((again, there["ours"]), (theirs, there["theirs"])):
        np.testing.assert_allclose(model.log_likelihood(x, s), np.log(found), atol=0.05)


# ----------------------------------------------------------------- what needs no CAREamics


def checkpoint(path: Path, **changes: object) -> Path:
    """A checkpoint as CAREamics 0.3 lays it out, of a network that was not trained."""
    plan = UNetPlan(num_channels_init=8, depth=1)
    state = CAREamicsUNet(plan).state_dict()
    saved = {
        "global_step": 7,
        "state_dict": {f"model.{name}": weights for name, weights in state.items()},
        "hyper_parameters": {
            "algorithm_config": {"algorithm": "n2v", "model": plan.model_dump()},
        },
        "datamodule_hyper_parameters": {
            "data_config": {
                "normalization": {
                    "name": "mean_std",
                    "input_means": [100.0],
                    "input_stds": [20.0],
                }
            }
        },
    }
    torch.save(saved | changes, path)
    return path


@pytest.mark.long
def test_no_path_of_this_computer_is_handed_on(tmp_path):
    found = read_checkpoint(checkpoint(tmp_path / "a.ckpt"))
    with pytest.raises(TrainingError, match="leave out --undo-scaling"):
        write_import(found, tmp_path / "model", undo_scaling=True)
    bundle = write_import(found, tmp_path / "model")
    assert bundle.manifest.pixel_type == "uint16"
    graph = bundle.model_path.read_bytes()
    assert b"site-packages" not in graph
    assert b".py" not in graph


class Pickled:
    """What runs code where a pickle of it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 3",)


def test_a_checkpoint_that_runs_code_is_not_opened(tmp_path):
    path = checkpoint(tmp_path / "evil.ckpt", extra=Pickled())
    with pytest.raises(TrainingError, match="cannot be read as numbers alone") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hyper_parameters": {}}, "no checkpoint of CAREamics"),
        (
            {
                "hyper_parameters": {
                    "algorithm_config": {"algorithm": "n2v", "model": {"conv_dims": 3}}
                }
            },
            "conv_dims",
        ),
        (
            {"hyper_parameters": {"algorithm_config": {"algorithm": "care", "model": {}}}},
            "in the units of its own targets",
        ),
        ({"state_dict": {"model.other": torch.zeros(1)}}, "do not fit CAREamics' U-Net"),
        (
            {
                "datamodule_hyper_parameters": {
                    "data_config": {"normalization": {"name": "mean_std"}}
                }
            },
            "normalisation mean_std cannot be used",
        ),
    ],
    ids=["another file", "volumes", "of pairs", "other weights", "numbers that are missing"],
)
def test_what_cannot_be_imported_is_told(changes, reason, tmp_path):
    with pytest.raises(TrainingError, match=reason) as error:
        read_checkpoint(checkpoint(tmp_path / "model.ckpt", **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"text"])
def test_damaged_checkpoints_are_told(content, tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read as numbers alone"):
        read_checkpoint(path)
