"""The general model goes on learning from a recording: the same at first, never worse after."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.calibration.gaussian_mixture import GaussianMixtureNoiseModel
from quietscope.calibration.noise_correlation import REACH, NoiseCorrelation
from quietscope.calibration.pixel_maps import PixelMaps
from quietscope.calibration.straight_line import Interval
from quietscope.inference.bundle import open_bundle
from quietscope.inference.general.for_camera import general_bundle, nominal_camera
from quietscope.inference.general.shipped import read_shipped
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.beginning import begun_from
from quietscope.training.data.noise_correlation import noise_correlation
from quietscope.training.errors import TrainingError, UnsuitedError
from quietscope.training.method_choice import with_method
from quietscope.training.model.general_prior import Electrons, split
from quietscope.training.options import TrainingOptions
from quietscope.training.train import START_KEPT, UNWATCHED, fit, read, train

from .conftest import observed

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (72, 88)
QUICK = TrainingOptions(algorithm="refined", steps=12, batch=4, patch=32)


def camera(maps: PixelMaps | None = None) -> GaussianMixtureNoiseModel:
    """Return the camera of `observed`: one ADU a photon, 2 ADU of read noise."""
    nominal = nominal_camera()
    law = replace(
        nominal.photon_transfer,
        read_noise=Interval(2.0, 2.0, 2.0),
        intercept_adu2=4.0 - 100.0,
        dark_variance_adu2=4.0,
    )
    return replace(
        nominal,
        photon_transfer=law,
        variance_adu2=law.variance(nominal.signal_adu),
        maps=maps,
        fingerprint=CameraFingerprint(roi=(0, 0, SHAPE[1], SHAPE[0]), pixel_type="uint16"),
    )


@pytest.fixture(scope="module")
def stripes() -> Stack:
    """A scene at rest of one pattern that repeats, which a network learns at once."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = 5 + 30 * ((x + 2 * y) % 6 < 2)
    return stack_from_array(observed(np.broadcast_to(100.0 + light, (12, *SHAPE)), seed=3))


def refined(stack: Stack, noise_model: GaussianMixtureNoiseModel, options: TrainingOptions):
    said: list[str] = []
    recordings, _ = read([stack], options, noise_model, None, said.append)
    done = fit(recordings, noise_model, options, started=time.monotonic(), on_remark=said.append)
    return *done, recordings, said


@pytest.mark.parametrize("with_maps", [False, True])
def test_it_begins_as_the_general_model(stripes: Stack, tmp_path, with_maps: bool) -> None:
    maps = None
    if with_maps:
        none = np.zeros(SHAPE, bool)
        variance = np.full(SHAPE, 4.0)
        variance[20, 30], variance[40, 50] = 60.0, 3.0
        maps = PixelMaps(np.full(SHAPE, 100.0), variance, None, none, none)
    noise_model = camera(maps)
    options = replace(QUICK, context_frames=4, steps=1, learning_rate=1e-7)
    estimator, _, recordings, _ = refined(stripes, noise_model, options)
    estimator.posterior.correct(torch.ones_like(estimator.posterior.stated))
    sample = recordings.samples[0]
    planes = sample.crop(*SHAPE)
    planes[0][:, 3] = 0  # one of the frames before is missing
    with torch.no_grad():
        mean, _ = estimator(*map(torch.from_numpy, planes))
    bundle = general_bundle(noise_model, "uint16", kept_in=tmp_path)
    out = np.empty((2, *SHAPE), np.float32)
    region = (0, 0, SHAPE[1], SHAPE[0])
    with OnnxDenoiser(bundle, SHAPE, provider="cpu", threads=1, region=region) as general:
        general.denoise(planes[0][0], out)
    np.testing.assert_allclose(mean[0, 0].numpy(), out[0], atol=0.05)


@pytest.mark.parametrize(("light", "read"), [(0.7, 0.0), (4.0, 0.0), (3.0, 2.0), (0.2, 1.0)])
def test_the_two_exposures_share_the_light_and_no_noise(light: float, read: float) -> None:
    rng = np.random.default_rng(5)
    seen = rng.poisson(light, (1, 1, 600, 600)) + read * rng.standard_normal((1, 1, 600, 600))
    variance = torch.full((1, 1, 1, 1), read**2)
    whole = Electrons(torch.from_numpy(seen).float(), torch.zeros(1, 0, 1, 1), variance)
    known = torch.full((1, 1, 600, 600), light)
    left, short = split(whole, 0.2, lambda: known, torch.Generator().manual_seed(1))
    torch.testing.assert_close(left.frames + short, whole.frames)
    assert float(short.mean()) == pytest.approx(0.2 * light, abs=0.01)
    assert float(left.read) == pytest.approx(0.8 * read**2)
    total = light + read**2
    assert float(left.frames.var()) == pytest.approx(0.8 * total, rel=0.02)
    assert float(short.var()) == pytest.approx(0.2 * total, rel=0.02)
    shared = torch.corrcoef(torch.stack([left.frames.flatten(), short.flatten()]))[0, 1]
    assert abs(float(shared)) < 0.01
    # Nor can one be told from the other in any other way: of what is above and of what is below.
    middle = left.frames.flatten().sort().values.numel() // 2
    order = left.frames.flatten().argsort()
    low, high = (float(short.flatten()[part].mean()) for part in (order[:middle], order[middle:]))
    assert low == pytest.approx(high, abs=0.02 * total**0.5)
    square = (left.frames - left.frames.mean()).square().flatten()
    bent = torch.corrcoef(torch.stack([square, short.flatten()]))[0, 1]
    assert abs(float(bent)) < 0.02


def test_it_learns_what_the_recording_shows(stripes: Stack) -> None:
    _, run, _, said = refined(stripes, camera(), replace(QUICK, steps=30, learning_rate=1e-3))
    assert run.losses[0].step == 0
    assert run.losses[-1].validation_loss < run.losses[0].validation_loss - 1e-3
    assert START_KEPT not in said
    assert read_shipped().identity in str(run.options.begun_with)


def test_steps_that_only_harm_are_not_taken(stripes: Stack) -> None:
    estimator, run, _, said = refined(stripes, camera(), replace(QUICK, learning_rate=300.0))
    assert START_KEPT in said
    fresh = type(run.learner)(run.options, run.learner.posterior.noise, run.learner.inputs)
    for name, weights in fresh.network.state_dict().items():
        torch.testing.assert_close(estimator.network.state_dict()[name], weights)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"context_frames": 5}, "--context"),
        ({"planes": 1}, "--planes"),
        ({"other_channels": ("DAPI",)}, "--other-channel"),
        ({"preset": "best"}, "--preset"),
    ],
)
def test_what_the_general_model_does_not_know_is_refused(choice, words: str) -> None:
    from quietscope.training.methods.refined import RefinedLearner

    alone = np.zeros((2 * REACH + 1, 2 * REACH + 1))
    alone[REACH, REACH] = 1
    independent = NoiseCorrelation(alone, 0 * alone)
    options = replace(QUICK, **choice)
    with pytest.raises(TrainingError, match=words):
        RefinedLearner.fitted_to(options, lambda: independent, print)


def test_the_general_model_is_refined_where_it_is_asked_for_alone(stripes: Stack) -> None:
    left_open = replace(QUICK, algorithm="auto")
    recordings, _ = read([stripes], left_open, camera(), None, print)
    found = noise_correlation(recordings.resident)
    assert with_method(left_open, found, print).algorithm == TrainingOptions().algorithm
    asked, weights = begun_from("general", left_open)
    assert (asked.algorithm, weights) == ("refined", None)
    assert with_method(asked, found, print) is asked


@pytest.mark.parametrize(("count", "unwatched"), [(3, True), (4, False)])
def test_too_few_frames_to_hold_one_out_are_said(stripes: Stack, count: int, unwatched) -> None:
    """A network that sees its pixel is scored on the very noise that it learned there."""
    few = stack_from_array(stripes.frames(range(count)))
    *_, said = refined(few, camera(), replace(QUICK, steps=1))
    assert (UNWATCHED in said) is unwatched


def test_weights_that_do_not_fit_are_refused_if_they_were_named(stripes: Stack, tmp_path) -> None:
    """A bundle must not say that it began with a model whose weights it never had."""
    recordings, _ = read([stripes], QUICK, camera(), None, print)
    other = {"network.head.weight": torch.zeros(1)}
    for begun_with in ("the model 0123", None):
        options = replace(QUICK, algorithm="lattice", steps=1, begun_with=begun_with)
        run = partial(fit, recordings, camera(), options, started=time.monotonic())
        if begun_with is not None:
            with pytest.raises(TrainingError, match=r"--from: .* leave out --from"):
                run(warm_start=other)
        else:
            left = tmp_path / "run.unfinished.pt"
            _, done = run(warm_start=other, checkpoint=left)
            assert done.options.begun_with is None
            options = replace(options, resume=True)
            resumed = partial(fit, recordings, camera(), options, started=time.monotonic())
            _, done = resumed(warm_start=other, checkpoint=left)
            assert done.options.begun_with is None


def test_noise_that_neighbours_share_is_refused(stripes: Stack) -> None:
    pixels = stripes.frames(range(len(stripes))).astype(float)
    smeared = (pixels + np.roll(pixels, 1, axis=2)) / 2
    stack = stack_from_array(np.rint(smeared).astype(np.uint16))
    with pytest.raises(UnsuitedError, match="train with --algorithm r2r") as error:
        refined(stack, camera(), QUICK)
    assert error.value.instead == "r2r"


def test_noise_that_cannot_be_split_is_refused() -> None:
    """Of a photomultiplier each photon has a height of its own."""
    rng = np.random.default_rng(7)
    photons = rng.poisson(np.full((8, *SHAPE), 1.0))
    amplified = 100 + 10 * rng.standard_gamma(np.maximum(photons, 1e-3)) * (photons > 0)
    frames = np.rint(amplified + rng.normal(0, 4, amplified.shape)).astype(np.uint16)
    with pytest.raises(UnsuitedError, match=r"amplified light.*--algorithm lattice"):
        refined(stack_from_array(frames), bootstrap_noise_model([stack_from_array(frames)]), QUICK)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_bundle_is_written_and_training_goes_on_from_it(stripes: Stack, tmp_path) -> None:
    out, again = tmp_path / "refined", tmp_path / "again"
    options, weights = begun_from("general", TrainingOptions(algorithm="auto", steps=4, batch=2))
    assert weights is None
    assert train([stripes], out, options, noise_model=camera(), accept=True) is not None
    bundle = open_bundle(out)
    assert bundle.manifest.algorithm == "refined"
    assert read_shipped().identity in str(bundle.manifest.training.options["begun_with"])
    options, weights = begun_from(str(out), replace(QUICK, algorithm="auto", steps=1))
    assert options.algorithm == "refined"
    assert bundle.model_sha256 in str(options.begun_with)
    assert weights is not None
    recordings, _ = read([stripes], options, camera(), None, print)
    started = time.monotonic()
    _, run = fit(recordings, camera(), options, started=started, warm_start=weights)
    first = next(iter(weights))
    torch.testing.assert_close(run.best[first], weights[first], atol=1e-3, rtol=0)
    with pytest.raises(TrainingError, match="context_frames"):
        begun_from(str(out), replace(QUICK, context_frames=2))
    with pytest.raises(TrainingError, match="leave out --algorithm"):
        begun_from(str(out), TrainingOptions(algorithm="n2v"))
    with pytest.raises(TrainingError, match="refined"):
        begun_from("general", TrainingOptions(algorithm="n2v"))
    with pytest.raises(TrainingError, match="--from"):
        begun_from(str(again), QUICK)
