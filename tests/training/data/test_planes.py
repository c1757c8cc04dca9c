"""Neighbouring planes as further input: which they are, and that they help."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.bundle import open_bundle
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.data.augmentation import augmented
from quietscope.training.data.recordings import load_recordings
from quietscope.training.errors import TrainingDataError, TrainingError
from quietscope.training.options import InputPlanes, TrainingOptions
from quietscope.training.train import fit, train

pytestmark = pytest.mark.usefixtures("one_thread")

TIMES, DEPTH = 3, 6


def numbered() -> Stack:
    """Every pixel holds where its frame belongs, plus a texture that makes it an image."""
    texture = np.random.default_rng(0).integers(0, 5, (48, 48))
    at = 1000 * np.arange(TIMES)[:, None] + 100 * np.arange(DEPTH)
    pixels = 5000 + at[..., None, None] + texture
    return stack_from_array(pixels.astype(np.uint16), axes=("time", "z"))


@pytest.mark.parametrize("memory_mib", [64, 1])
def test_a_patch_holds_the_planes_on_either_side_of_its_time_point(memory_mib):
    # a mebibyte holds none of the larger recording whole: its planes stay together all the same
    pixels = numbered().frames(range(TIMES * DEPTH)).reshape(TIMES, DEPTH, 48, 48)
    wide = np.tile(pixels, (1, 1, 6, 6)) if memory_mib == 1 else pixels
    recordings = load_recordings(
        [stack_from_array(wide, axes=("time", "z"))],
        context_frames=0,
        patch=32,
        memory_mib=memory_mib,
        planes=1,
    )
    drawn = recordings.sampler.draw(60, np.random.default_rng(0))
    assert drawn.shape == (60, 3, 32, 32)
    newest, below, above = (drawn[:, plane].mean(axis=(1, 2)) for plane in range(3))
    known = ~np.isnan(below)
    np.testing.assert_allclose(newest[known] - below[known], 100, atol=0.5)
    np.testing.assert_allclose((above - newest)[~np.isnan(above)], 100, atol=0.5)
    assert 0.4 < known.mean() < 1
    sample = recordings.held_out[0].observations
    assert sample.shape[0] == 3


def test_planes_are_missing_now_and_then_as_they_will_be_live():
    patches = np.ones((400, 6, 32, 32), np.float32)
    inputs = InputPlanes(context_frames=1, planes=2)
    seen = augmented(patches, np.random.default_rng(0), transpose=True, inputs=inputs)
    there = seen[:, 2:].any(axis=(2, 3))
    assert 0.4 < there.all(axis=1).mean() < 0.65
    only_below = there[:, ::2].all(axis=1) & ~there[:, 1::2].any(axis=1)
    assert only_below.any()
    assert seen[:, 0].all()


def tilted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Columns that change slowly from plane to plane: truth and photon counts, (Z, Y, X)."""
    z, y, x = np.mgrid[:24, :64, :64]
    light = 3 + 12 * (np.sin(x / 3 + 0.05 * z) * np.sin(y / 4) > 0.2)
    return light.astype(float), rng.poisson(light).astype(np.uint16)


@pytest.mark.long
def test_a_model_of_planes_is_better_than_one_without_and_is_used_as_it_was_trained(tmp_path):
    truth, counts = tilted(np.random.default_rng(0))
    stack = stack_from_array(counts, axes=("z",))
    noise_model = bootstrap_noise_model([stack])
    errors = {}
    for planes in (0, 2):
        options = TrainingOptions(preset="fast", steps=150, batch=8, patch=48, planes=planes)
        recordings = load_recordings(
            [stack], context_frames=0, patch=48, memory_mib=64, planes=planes
        )
        estimator, _ = fit(recordings, noise_model, options, started=time.monotonic())
        seen = counts[[12, 11, 13, 10, 14]][None, : 1 + 2 * planes].astype(np.float32)
        with torch.no_grad():
            mean, _ = estimator.eval()(torch.from_numpy(seen))
        errors[planes] = float(((mean[0, 0].numpy() - truth[12]) ** 2).mean())
    assert errors[2] < 0.85 * errors[0]


@pytest.mark.long
def test_a_bundle_says_how_many_planes_it_takes(tmp_path):
    _, counts = tilted(np.random.default_rng(0))
    stack = stack_from_array(counts, axes=("z",))
    options = TrainingOptions(preset="fast", steps=2, planes=1)
    bundle = train([stack], tmp_path / "model", options, accept=True).bundle
    assert open_bundle(bundle.path).manifest.planes == 1
    with OnnxDenoiser(bundle, (64, 64), provider="cpu") as denoiser:
        assert denoiser.context_frames == 2


def test_planes_of_what_has_none_are_refused(tmp_path):
    pixels = np.random.default_rng(0).poisson(9, (5, 48, 48)).astype(np.uint16)
    with pytest.raises(TrainingDataError, match="has no planes along z"):
        train([stack_from_array(pixels)], tmp_path / "m", TrainingOptions(steps=2, planes=1))
    with pytest.raises(TrainingError, match="planes is 99, expected at most"):
        TrainingOptions(planes=99)
