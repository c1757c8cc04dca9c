"""What a denoised image says about its origin reads back, also what was written before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quietscope.inference.bundle import open_bundle
from quietscope.inference.errors import InferenceError
from quietscope.inference.provenance import (
    ATTRIBUTES,
    ModelIdentity,
    Provenance,
    provenance_of,
    recorded_camera,
)
from quietscope.storage.stack import Stack


def image(said) -> Stack:
    return Stack(
        path=Path("image"),
        sizes={"time": 1},
        frame_shape=(2, 2),
        dtype=np.dtype(np.float32),
        read=lambda _: np.zeros((2, 2), np.float32),
        attributes={"ome": {}, ATTRIBUTES: said},
    )


def test_what_is_written_reads_back(make_bundle):
    bundle = open_bundle(make_bundle(context_frames=1))
    written = Provenance.of(
        "raw.ome.zarr",
        {"GFP": ModelIdentity.of(bundle)},
        provider="CPUExecutionProvider",
        precision="fp32",
        simulated=False,
        forced=("gain is 2, calibrated with 1",),
    )
    said = written.attributes()[ATTRIBUTES]
    assert provenance_of(image(said)) == written
    assert said["model_sha256"] == bundle.model_sha256
    assert said["simulated"] is False
    assert "method" not in said


def test_an_image_of_before_reads_and_an_unknown_key_does_not_matter():
    identity = {
        "model_sha256": "a" * 64,
        "noise_model_sha256": "b" * 64,
        "algorithm": "lattice",
        "context_frames": 0,
    }
    before = {"kind": "denoised", "unit": "ADU", "source": "x", "models": {"0": identity}}
    found = provenance_of(image({**before, "model_sha256": "a" * 64, "of_tomorrow": [1]}))
    assert found.models["0"].algorithm == "lattice"
    assert found.quietscope_version is None
    assert found.same_models(Provenance.of("y", found.models, provider="CUDA"))
    assert not found.same_models(Provenance.of("y", {}))


@pytest.mark.parametrize("said", ["a string", ["a list"], 3, None, {}, {"kind": "raw"}])
def test_what_another_program_left_there_is_no_record(said):
    assert provenance_of(image(said)) is None
    assert recorded_camera(image(said)).camera is None


def test_a_record_that_cannot_be_read_is_named_in_one_line():
    with pytest.raises(InferenceError, match=r"image: its record of origin cannot be .*models"):
        provenance_of(image({"kind": "denoised", "source": "x", "models": 3}))
    with pytest.raises(InferenceError, match=r"image: its camera record cannot be read .*binning"):
        recorded_camera(image({"camera": {"binning": [[]]}}))


@pytest.mark.parametrize(("is_label", "known"), [(True, "Cam"), (False, None)])
def test_the_camera_of_micro_manager_s_own_files_counts(is_label, known):
    """Other programs write a model's name, which no calibration knows."""
    stack = replace(image({}), camera="Cam", camera_is_label=is_label)
    assert recorded_camera(stack).camera == known
