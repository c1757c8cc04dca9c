"""The general model beside a trained one: where it is better, training says so and what to do."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.noise_correlation import REACH, NoiseCorrelation
from quietscope.inference.errors import BundleError
from quietscope.inference.general.for_camera import general_bundle
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.methods import refined
from quietscope.training.model.general_prior import CameraInUnits
from quietscope.training.options import TrainingOptions
from quietscope.training.output.untrained_general import (
    AS_IT_IS,
    BEGIN_WITH_IT,
    UntrainedGeneral,
)
from quietscope.training.output.usefulness import Usefulness, usefulness_of
from quietscope.training.train import fit, read

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (80, 96)
BARELY = TrainingOptions(preset="fast", steps=1, batch=2, patch=32)


def light() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return 2 + 12 * (np.hypot(y - 40, x - 48) < 25) * (1 + np.sin(x / 4))


@pytest.fixture(scope="module")
def photons() -> Stack:
    rng = np.random.default_rng(0)
    return stack_from_array(rng.poisson(light(), (10, *SHAPE)).astype(np.uint16))


def measured(stack: Stack, options: TrainingOptions, estimator=None):
    noise_model = bootstrap_noise_model([stack])
    recordings, _ = read([stack], options, noise_model, None, print)
    trained, run = fit(recordings, noise_model, options, started=time.monotonic())
    general = UntrainedGeneral.beside(run, recordings)
    found = usefulness_of(
        estimator or trained,
        recordings.held_out,
        noise_model,
        context_frames=options.context_frames,
        seed=0,
        general=general,
    )
    return found, general, recordings, noise_model


def test_after_one_step_it_is_better_and_training_says_what_to_do(photons, tmp_path) -> None:
    found, general, recordings, noise_model = measured(photons, replace(BARELY, preset="live"))
    assert found.figures()["held_out_mse_general_adu2"] < 0.8 * found.model
    assert found.advice == BEGIN_WITH_IT
    assert "the general model is better without any training" in found.sentence()
    assert found.sentence().endswith(BEGIN_WITH_IT)
    # It is the very model that --model general names.
    sample = recordings.held_out[0]
    bundle = general_bundle(noise_model, "uint16", context_frames=0, kept_in=tmp_path)
    shape = sample.observations.shape[1:]
    out = np.empty((2, *shape), np.float32)
    with OnnxDenoiser(bundle, shape, provider="cpu", threads=1) as denoiser:
        denoiser.denoise(sample.observations, out)
    np.testing.assert_allclose(general.denoised(sample), out[0], atol=0.02)


def test_what_could_not_begin_with_it_is_told_to_take_it_as_it_is(photons) -> None:
    assert measured(photons, replace(BARELY, context_frames=6))[0].advice == AS_IT_IS
    one = stack_from_array(photons.frames([0]))
    assert measured(one, replace(BARELY, preset="live"))[0].advice == AS_IT_IS
    # Each photon has a height of its own, so that its noise cannot be split: a photomultiplier's.
    rng = np.random.default_rng(7)
    counts = rng.poisson(light() / 2, (10, *SHAPE))
    heights = 100 + 10 * rng.standard_gamma(np.maximum(counts, 1e-3)) * (counts > 0)
    amplified = np.rint(heights + rng.normal(0, 4, counts.shape)).astype(np.uint16)
    options = replace(BARELY, preset="live")
    assert measured(stack_from_array(amplified), options)[0].advice == AS_IT_IS


def test_nothing_is_advised_where_training_was_worth_it(photons) -> None:
    class KnowsTheTruth(torch.nn.Module):
        def forward(self, observations):
            seen = observations.to(torch.float32)
            share = seen.mean() / float(light().mean())
            return torch.from_numpy(light().astype(np.float32))[None, None] * share, seen

    found, *_ = measured(photons, BARELY, KnowsTheTruth())
    assert found.general is not None
    assert found.advice is None
    assert "general" not in found.sentence()


@pytest.mark.parametrize(("algorithm", "told"), [("pn2v", True), ("n2v", False)])
def test_it_is_told_the_noise_where_the_trained_one_is_blind(photons, algorithm, told) -> None:
    options = replace(BARELY, algorithm=algorithm, samples=4)
    noise_model = bootstrap_noise_model([photons])
    recordings, _ = read([photons], options, noise_model, None, print)
    _, run = fit(recordings, noise_model, options, started=time.monotonic())
    general = UntrainedGeneral.beside(run, recordings)
    sample = recordings.held_out[0]
    same = np.array_equal(general.denoised(sample), general.denoised(sample, 1.25))
    assert same is not told


def test_a_noisier_camera_has_its_noise_at_every_signal() -> None:
    camera = CameraInUnits(zero=-1.0, per_unit=40.0, read_variance_e2=6.0, dark_variance_e2=7.0)
    noisier = camera.noisier(1.25)

    def variance(known: CameraInUnits, units: np.ndarray) -> np.ndarray:
        electrons = (units - known.zero) * known.per_unit
        return (electrons + known.read_variance_e2) / known.per_unit**2

    units = np.linspace(-1, 5, 7)
    np.testing.assert_allclose(variance(noisier, units), 1.25 * variance(camera, units))
    assert noisier.dark_variance_e2 / noisier.per_unit**2 == pytest.approx(1.25 * 7 / 40**2)


def test_it_is_no_competitor_where_neighbours_share_their_noise(photons) -> None:
    noise_model = bootstrap_noise_model([photons])
    recordings, _ = read([photons], BARELY, noise_model, None, print)
    _, run = fit(recordings, noise_model, BARELY, started=time.monotonic())
    shared = np.zeros((2 * REACH + 1, 2 * REACH + 1))
    shared[REACH, REACH - 1 : REACH + 2] = 0.4, 1.0, 0.4
    run.noise_correlation = NoiseCorrelation(shared, np.full_like(shared, 0.01))
    assert UntrainedGeneral.beside(run, recordings) is None


def test_a_run_is_not_lost_where_the_files_of_the_general_model_are_damaged(
    photons, monkeypatch, caplog
) -> None:
    def damaged():
        raise BundleError("weights.npz: is damaged or another file")

    monkeypatch.setattr(refined, "shipped_state", damaged)
    found, general, *_ = measured(photons, BARELY)
    assert general is None
    assert found.general is None
    assert "weights.npz: is damaged" in caplog.text


def test_an_old_report_has_no_figure_of_it() -> None:
    found = Usefulness(5.0, 9.0, 7.0, 1.25, None, 8)
    assert found.figures()["held_out_mse_general_adu2"] is None
    assert "general" not in found.sentence()


def test_an_error_too_small_to_measure_is_no_figure_of_it() -> None:
    found = Usefulness(-0.33, 9.0, 7.0, 1.25, None, 8, -0.40, BEGIN_WITH_IT)
    assert found.sentence().endswith(f"better without any training: {BEGIN_WITH_IT}")
