"""The noise model in torch, the posterior, the lattice: physics that must hold."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.noise_model import MixtureTable
from quietscope.storage.stack import stack_from_array
from quietscope.training.data.recordings import load_recordings
from quietscope.training.mask_kernel import offsets_of
from quietscope.training.methods import learner_for
from quietscope.training.methods import uncertainty_calibration as variance
from quietscope.training.methods.lattice import LatticeLearner
from quietscope.training.methods.masked import MOST_HIDDEN
from quietscope.training.methods.uncertainty_calibration import (
    calibrate_spread,
    calibrate_variance,
    correct_uncertainty,
)
from quietscope.training.model.estimator import Estimator
from quietscope.training.model.lattice import LatticePrior
from quietscope.training.model.masking import MaskPlan, hide
from quietscope.training.model.noise_likelihood import TabulatedNoise
from quietscope.training.model.posterior import (
    UNTRAINED_SHARE,
    GaussianPosterior,
    SampledPosterior,
)
from quietscope.training.options import InputPlanes, NetworkPlan, TrainingOptions
from quietscope.training.train import fit

CENTRE, SCALE = 50.0, 20.0
SMALL = NetworkPlan(width=16, depth=1)


class PoissonGaussian:
    """Gain 2 ADU/e⁻, offset 10 ADU, read noise 3 ADU, as a mixture of two shifted halves."""

    signal_range_adu = (10.0, 210.0)
    least_variance_adu2 = 9.0

    def variance(self, signal):
        return 2.0 * np.clip(np.asarray(signal) - 10.0, 0, None) + 9.0

    def log_likelihood(self, observation, signal):
        shift = 0.5 * np.sqrt(self.variance(signal))
        spread = np.sqrt(0.75 * self.variance(signal))
        halves = [norm.logpdf(observation, signal + s, spread) for s in (shift, -shift)]
        return np.logaddexp(*halves) - np.log(2)

    def mixture(self, signal):
        signal = np.asarray(signal, dtype=float)
        shift = 0.5 * np.sqrt(self.variance(signal))
        return MixtureTable(
            signal=signal,
            weights=np.full((2, signal.size), 0.5),
            offsets=np.stack([shift, -shift]),
            variances=np.tile(0.75 * self.variance(signal), (2, 1)),
        )


@pytest.fixture
def noise() -> TabulatedNoise:
    return TabulatedNoise(
        PoissonGaussian(), low_adu=0.0, high_adu=220.0, centre_adu=CENTRE, scale_adu=SCALE
    )


def units(adu):
    return torch.as_tensor((np.asarray(adu, dtype=np.float32) - CENTRE) / SCALE).float()


def test_the_table_gives_the_noise_models_variance_in_network_units(noise):
    signal = np.array([20.0, 55.5, 100.0, 199.3])
    expected = PoissonGaussian().variance(signal) / SCALE**2
    np.testing.assert_allclose(noise.variance(units(signal)), expected, rtol=1e-4)


def test_the_table_gives_the_noise_models_likelihood(noise):
    observation, signal = np.array([30.0, 90.0, 150.0]), np.array([25.0, 100.0, 148.0])
    expected = PoissonGaussian().log_likelihood(observation, signal) + np.log(SCALE)
    found = noise.log_likelihood(units(observation), units(signal))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_signals_beyond_the_table_take_its_ends(noise):
    ends = noise.variance(units([10.0, 220.0]))
    beyond = noise.variance(units([-500.0, 9000.0]))
    np.testing.assert_allclose(beyond, ends, rtol=1e-3)


def test_the_posterior_is_the_minimum_of_squared_error(noise):
    # Signals drawn from the prior, observations from the camera: no other weight does better.
    rng = np.random.default_rng(0)
    signal = rng.normal(100, 10, 200_000)
    observation = rng.normal(signal, np.sqrt(PoissonGaussian().variance(100.0)))
    posterior = GaussianPosterior(noise, uses_observation=True)
    spread = 10 / np.sqrt(PoissonGaussian().variance(100.0))
    predicted = torch.stack(
        [units(np.full_like(signal, 100)), torch.full(signal.shape, spread)]
    ).float()[None, :, :, None]
    mean, variance = posterior(units(observation)[None, None, :, None], predicted)
    error = (mean.flatten() - units(signal)) ** 2
    for weight in (0.0, 0.2, 0.6, 1.0):
        other = units(100.0) + weight * (units(observation) - units(100.0))
        assert error.mean() < ((other - units(signal)) ** 2).mean()
    assert error.mean() == pytest.approx(float(variance.mean()), rel=0.02)


def test_a_masked_network_does_not_count_the_observation_twice(noise):
    posterior = GaussianPosterior(noise, uses_observation=False)
    predicted = torch.zeros(1, 2, 4, 4)
    mean, _ = posterior(torch.full((1, 1, 4, 4), 3.0), predicted)
    assert torch.equal(mean, predicted[:, :1])


def test_sampled_posterior_leans_to_samples_that_explain_the_observation(noise):
    samples = np.array([60.0, 100.0, 140.0])
    sigma = np.sqrt(PoissonGaussian().variance(100.0))
    # Outputs lie around their mean in units of the noise there.
    outputs = units(100.0) + torch.from_numpy((samples - 100) / sigma).float()
    posterior = SampledPosterior(noise)
    mean, variance = posterior(units([140.0]).reshape(1, 1, 1, 1), outputs.reshape(1, 3, 1, 1))
    likelihood = PoissonGaussian().log_likelihood(140.0, samples)
    weights = np.exp(likelihood) / np.exp(likelihood).sum()
    expected = weights @ samples
    assert float(mean) * SCALE + CENTRE == pytest.approx(expected, abs=0.1)
    spread = weights @ (samples - expected) ** 2 + float(posterior.ratio_floor) * sigma**2
    assert float(variance) * SCALE**2 == pytest.approx(spread, rel=0.02)


@pytest.mark.long
def test_samples_that_lie_too_far_apart_are_brought_to_what_residuals_say(noise):
    # The signal is flat but for 3 ADU; the samples believe in 30.
    options = TrainingOptions(algorithm="pn2v", preset="fast", samples=64)
    learner = learner_for(options, noise)
    rng = np.random.default_rng(6)
    signal = rng.normal(100.0, 3.0, (1, 1, 510, 510))
    observed = rng.normal(signal, np.sqrt(PoissonGaussian().variance(signal)))
    sigma = np.sqrt(PoissonGaussian().variance(100.0))
    deviations = torch.from_numpy(rng.normal(0, 30 / sigma, (1, 64, 1, 1))).float()
    deviations -= deviations.mean()

    class TooWide(torch.nn.Module):
        def middle(self, plane):
            return plane[..., 1::3, 1::3]

        def forward(self, frames):
            return float(units(100.0)) + deviations.expand(-1, -1, *frames.shape[2:])

        def predict_target(self, frames):
            target = self.middle(frames)
            return target, self(target)

    learner.network = TooWide()
    frames = units(observed)
    calibrate_spread(learner, [frames], torch.Generator().manual_seed(1))
    _, samples = learner.posterior.samples(learner.network(frames[..., :4, :4]))
    assert float(samples.std(dim=1).mean()) * SCALE == pytest.approx(3.0, rel=0.25)
    mean, _ = learner.posterior(frames, learner.network(frames))
    error = ((mean - units(signal)) ** 2).mean()
    assert error < 1.05 * ((units(100.0) - units(signal)) ** 2).mean()


@pytest.mark.parametrize("context", [0, 2])
def test_no_pixel_of_the_newest_frame_reaches_its_own_prior(context):
    network = LatticePrior(context, SMALL).eval()
    frames = torch.randn(1, 1 + context, 32, 32, requires_grad=True)
    for y, x in ((8, 8), (9, 12), (13, 10), (15, 17)):
        gradient = torch.autograd.grad(network(frames)[0, :, y, x].sum(), frames)[0]
        assert gradient[0, 0, y, x] == 0
        assert gradient[0, 0].abs().sum() > 0
        assert context == 0 or gradient[0, 1, y, x] != 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (5, 4), (17, 33), (36, 24)])
def test_no_pixel_reaches_its_own_prior_through_the_borders(shape):
    # Whatever continues a frame there, also one of a single row, must not be the pixel itself.
    network = LatticePrior(0, SMALL).eval()
    frames = torch.randn(1, 1, *shape, requires_grad=True)
    predicted = network(frames)
    assert predicted.shape == (1, 2, *shape)
    edges = [sorted({0, 1, 2, edge // 2, edge - 3, edge - 2, edge - 1}) for edge in shape]
    for y, x in product(*([place for place in found if place >= 0] for found in edges)):
        if y < shape[0] and x < shape[1]:
            where = predicted[0, :, y, x].sum()
            gradient = torch.autograd.grad(where, frames, retain_graph=True)[0]
            assert gradient[0, 0, y, x] == 0


def test_shifting_the_image_shifts_the_prior():
    # By one pixel, which changes every sub-lattice: none of them is treated differently. (Without
    # pooling, which has a grid of its own.)
    network = LatticePrior(0, NetworkPlan(width=16, depth=0)).eval()
    frames = torch.randn(1, 1, 62, 62)
    with torch.no_grad():
        straight = network(frames[:, :, 1:-1, 1:-1])
        shifted = network(frames[:, :, 2:, :-2]).roll((1, -1), (2, 3))
    interior = np.s_[..., 20:-20, 20:-20]
    assert not torch.allclose(straight[interior], straight.roll(1, 2)[interior], atol=1e-3)
    torch.testing.assert_close(straight[interior], shifted[interior], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "plan",
    [
        MaskPlan(0.02),
        MaskPlan(0.02, replacement="median"),
        MaskPlan(0.01, kernel=offsets_of("1x7")),
        MaskPlan(0.01, kernel=offsets_of("5x1")),
        MaskPlan(0.005, kernel=offsets_of("01110,11111,01110")),
    ],
)
def test_hidden_pixels_carry_nothing_of_themselves(plan):
    rng = torch.Generator().manual_seed(1)
    frames = torch.arange(4 * 2 * 32 * 32, dtype=torch.float32).reshape(4, 2, 32, 32)
    masked, (patch, y, x) = hide(frames, plan, rng)
    assert (masked[patch, 0, y, x] != frames[patch, 0, y, x]).all()
    assert torch.equal(masked[:, 1], frames[:, 1])
    share = (masked[:, 0] != frames[:, 0]).float().mean()
    assert 0.5 * plan.fraction < share < 1.7 * plan.fraction * len(plan.kernel)


def test_structured_masks_hide_the_whole_line():
    frames = torch.arange(64.0 * 64).reshape(1, 1, 64, 64)
    plan = MaskPlan(0.003, kernel=offsets_of("1x5"))
    masked, (_, y, x) = hide(frames, plan, torch.Generator().manual_seed(0))
    for row, column in zip(y.tolist(), x.tolist(), strict=True):
        for place in range(max(0, column - 2), min(63, column + 2) + 1):
            assert masked[0, 0, row, place] != frames[0, 0, row, place]


def test_missing_context_is_the_same_as_none_in_training(noise):
    network = LatticePrior(2, SMALL)
    estimator = Estimator(
        network,
        GaussianPosterior(noise, uses_observation=True),
        centre_adu=CENTRE,
        scale_adu=SCALE,
    )
    observations = torch.randint(10, 200, (1, 3, 16, 16), dtype=torch.uint8)
    observations[0, 2] = 0
    frames = estimator.to_network_units(observations.float())
    assert (frames[0, 2] == 0).all()
    assert (frames[0, 1] != 0).any()


def test_an_overconfident_variance_is_corrected_on_held_out_frames(noise):
    learner = LatticeLearner(TrainingOptions(preset="fast"), noise, InputPlanes())
    rng = np.random.default_rng(3)
    truth = 100 + rng.normal(0, 12, (1, 1, 256, 256))
    observed = rng.normal(truth, np.sqrt(PoissonGaussian().variance(truth)))

    class Overconfident(torch.nn.Module):
        stride = 1

        def middle(self, plane):
            return plane[..., 1::3, 1::3]

        def forward(self, frames):
            mean = torch.full_like(frames, float(units(100.0)))
            return torch.cat([mean, torch.full_like(mean, 0.1)], dim=1)

        def predict_target(self, frames):
            target = self.middle(frames)
            return target, self(target)

    learner.network = Overconfident()
    gain, floor = calibrate_variance(learner, [units(observed)], torch.Generator())
    calibrated = (gain * 0.1**2 + floor) * PoissonGaussian().variance(100.0)
    assert calibrated == pytest.approx(12**2, rel=0.15)


def test_a_prediction_is_never_surer_than_its_own_noise_allows(noise):
    # The mean of the 24 pixels around: each brings a 24th of its noise, whatever is said.
    learner = learner_for(TrainingOptions(preset="fast"), noise)
    rng = np.random.default_rng(5)
    sigma = np.sqrt(PoissonGaussian().variance(100.0))
    observed = rng.normal(100.0, sigma, (1, 1, 255, 255))
    around = torch.ones(1, 1, 5, 5) / 24
    around[..., 2, 2] = 0

    class Sure(torch.nn.Module):
        def middle(self, plane):
            return plane[..., 1::3, 1::3]

        def forward(self, frames):
            mean = torch.nn.functional.conv2d(frames, around, padding=2)
            return torch.cat([mean, torch.zeros_like(mean)], dim=1)

        def predict_target(self, frames):
            return self.middle(frames), self.middle(self(frames))

    learner.network = Sure()
    _, floor = calibrate_variance(learner, [units(observed)], torch.Generator().manual_seed(2))
    assert floor == pytest.approx(1 / 24, rel=0.1)


def test_the_floor_does_not_hang_on_the_noise_of_single_pixels():
    # Every second column amplifies noise tenfold: what is predicted there from quiet columns is
    # as certain as elsewhere.
    law = TabulatedNoise(
        PoissonGaussian(),
        low_adu=10.0,
        high_adu=220.0,
        centre_adu=CENTRE,
        scale_adu=SCALE,
        dark_variance_adu2=9.0,
    )
    options = TrainingOptions(preset="fast")
    learner = LatticeLearner(options, law, InputPlanes(pixel_maps=True))
    rng = np.random.default_rng(5)
    quiet = PoissonGaussian().variance(100.0)
    loud = np.arange(255) % 2 == 1
    excess = np.where(loud, np.log(1 + 99 * quiet / 9.0), 0.0)
    sigma = np.sqrt(np.where(loud, 100 * quiet, quiet))
    observed = rng.normal(100.0, np.broadcast_to(sigma, (1, 1, 255, 255)))
    around = torch.zeros(1, 1, 1, 5)
    around[..., ::4] = 0.5  # two columns to either side: quiet if this one is
    beyond = torch.zeros(1, 1, 1, 3)
    beyond[..., ::2] = 0.5  # the next columns: quiet if this one is loud

    class Careful(torch.nn.Module):
        def middle(self, plane):
            return plane[..., 1::3, 1::3]

        def forward(self, frames):
            frame = torch.nn.functional.pad(frames[:, :1], (2, 2, 0, 0), mode="reflect")
            far = torch.nn.functional.conv2d(frame, around)
            near = torch.nn.functional.conv2d(frame[..., 1:-1], beyond)
            mean = torch.where(frames[:, -1:] > 0, near, far)
            return torch.cat([mean, torch.zeros_like(mean)], dim=1)

        def predict_target(self, frames):
            return self.middle(frames[:, :1]), self.middle(self(frames))

    learner.network = Careful()
    plane = torch.from_numpy(np.broadcast_to(excess, observed.shape).copy()).float()
    frames = torch.cat([units(observed), plane], dim=1)
    _, floor = calibrate_variance(learner, [frames], torch.Generator().manual_seed(2))
    assert floor == pytest.approx(0.5, rel=0.1)


def test_a_posterior_by_strips_is_the_posterior(noise, monkeypatch):
    monkeypatch.setattr(variance, "STRIP_VALUES", 7 * 3 * 20)
    rng = torch.Generator().manual_seed(3)
    observation, outputs = torch.randn(2, 1, 40, 20, generator=rng), torch.randn(2, 3, 40, 20)
    excess = torch.rand(2, 1, 40, 20, generator=rng)
    posterior = SampledPosterior(noise)
    for own in (None, excess):
        found = variance._by_strips(posterior, observation, outputs, own)
        for part, whole in zip(found, posterior(observation, outputs, own), strict=True):
            torch.testing.assert_close(part, whole)


def test_context_is_made_noisier_and_missing_frames_stay_missing(noise):
    frames = torch.full((1, 5, 12, 12), 0.3)
    frames[:, 2] = 0
    noisier = variance._noisier(
        frames, noise.variance(frames[:, :1]), torch.ones(4), torch.Generator()
    )
    step = variance.PROBE * noise.variance(frames[:, :1]).sqrt()
    for plane in (0, 1, 3):
        moved = (noisier[:, plane : plane + 1] - frames[:, plane : plane + 1]).abs()
        torch.testing.assert_close(moved, step)
    assert (noisier[:, 2] == 0).all()
    assert torch.equal(noisier[:, 4], frames[:, 4])


@pytest.mark.parametrize("span", range(1, 9))
def test_lines_never_hide_more_than_an_eighth_of_a_patch(noise, span):
    options = TrainingOptions(algorithm="structn2v", preset="fast", mask_axis="x", mask_span=span)
    learner = learner_for(options, noise)
    frames = torch.rand(4, 1, 128, 128)
    masked, _ = hide(frames, learner.mask, torch.Generator().manual_seed(1))
    share = float((masked != frames).float().mean())
    assert 0.03 < share <= MOST_HIDDEN


def test_every_patch_has_a_hidden_pixel():
    plan = MaskPlan(1e-4)
    _, (patch, _, _) = hide(torch.rand(5, 1, 32, 32), plan, torch.Generator().manual_seed(1))
    assert set(patch.tolist()) == set(range(5))


@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_the_uncertainty_is_that_of_the_estimate_with_the_pixel_seen(noise, kept):
    # A masked network that passes a share of the pixel's own noise on: Stein's estimate finds out.
    options = TrainingOptions(algorithm="n2v", preset="fast")
    learner = learner_for(options, noise)
    rng = np.random.default_rng(4)
    sigma = np.sqrt(PoissonGaussian().variance(100.0))
    observed = rng.normal(100.0, sigma, (1, 1, 256, 256))

    class Leaking(torch.nn.Module):
        def forward(self, frames):
            mean = kept * frames[:, :1] + (1 - kept) * float(units(100.0))
            return torch.cat([mean, torch.full_like(mean, 0.6)], dim=1)

    learner.network = Leaking()
    frames = units(observed)
    correct_uncertainty(learner, [frames], torch.Generator().manual_seed(1))
    _, variance = learner.posterior(frames, learner.network(frames))
    assert float(variance.mean()) * SCALE**2 == pytest.approx((kept * sigma) ** 2, rel=0.05)


def test_without_noise_the_uncertainty_is_no_rounding_error_multiplied():
    """What the network says is 1e-12 of what it is wrong by: ONNX would differ from PyTorch."""
    rng = np.random.default_rng(0)
    ratio = 1e-6 * rng.random(20_000)
    squared = 1e7 * rng.chisquare(1, 20_000)
    gain, floor = variance._fit(squared, ratio, np.ones(20_000), least=1e-3)
    assert gain <= variance.LARGEST_GAIN
    assert floor == pytest.approx(1e7, rel=0.05)


def test_where_the_network_knows_its_error_the_gain_is_found():
    rng = np.random.default_rng(0)
    ratio = rng.uniform(0.5, 5, 200_000)
    squared = (1 + 3 * ratio) * rng.chisquare(1, 200_000)
    gain, _ = variance._fit(squared, ratio, np.ones(200_000), least=1e-3)
    assert gain == pytest.approx(3, rel=0.05)


def test_light_beyond_what_was_trained_on_has_the_noise_that_the_camera_has_there():
    known = TabulatedNoise(
        PoissonGaussian(),
        low_adu=100.0,
        high_adu=600.0,
        centre_adu=300.0,
        scale_adu=80.0,
        saturation_adu=65535.0,
    )
    signal = np.array([100.0, 350.0, 599.0, 600.0, 700.0, 1800.0, 20000.0, 65000.0])
    found = known.variance(torch.from_numpy((signal - 300) / 80)) * 80**2
    assert found.numpy() == pytest.approx(PoissonGaussian().variance(signal), rel=2e-3)
    at_the_end = known.variance(torch.tensor([(65535.0 - 300) / 80, 1e4])) * 80**2
    assert at_the_end[0] == pytest.approx(float(at_the_end[1]), rel=1e-3)
    # A camera that nearly was saturated: no room for a table, and none is needed.
    full = TabulatedNoise(
        PoissonGaussian(),
        low_adu=100.0,
        high_adu=65535.0,
        centre_adu=300.0,
        scale_adu=80.0,
        saturation_adu=65535.0,
    )
    assert len(full.variances) == len(full.trained_variances)


def test_an_edge_is_said_to_be_more_wrong_than_a_flat_part_of_its_brightness(noise):
    """A blurring network is wrong at edges alone: there its stated variance grows."""
    options = TrainingOptions(algorithm="lattice", preset="fast")
    learner = learner_for(options, noise)
    rng = np.random.default_rng(3)
    signal = np.where(np.arange(256) % 64 < 32, 60.0, 160.0) * np.ones((256, 1))
    sigma = np.sqrt(PoissonGaussian().variance(signal))
    frames = units(rng.normal(signal, sigma)[None, None])
    blurred = np.where(np.arange(256) % 32 == 0, 110.0, signal) * np.ones((256, 1))

    class Blurring(torch.nn.Module):
        def forward(self, frames):
            mean = units(blurred[None, None])
            return torch.cat([mean, torch.full_like(mean, 0.3)], dim=1)

    learner.network = Blurring()
    correct_uncertainty(learner, [frames] * 2, torch.Generator().manual_seed(1))
    estimate, _ = learner.posterior(frames, learner.network(frames))
    factor = learner.posterior.contrast(estimate)[0, 0].numpy()
    edge = np.arange(256) % 32 == 0
    flat = np.isin(np.arange(256) % 32, range(4, 28))
    assert factor[:, edge].mean() > 1.5
    assert factor[:, flat].mean() < 1.2


def test_what_lies_beyond_the_trained_light_is_left_to_the_observation(noise):
    """A network goes on somehow where it never was; what was seen there then counts for more."""
    posterior = GaussianPosterior(noise, uses_observation=True)
    brightest = float(noise.last_trained)
    spread = torch.full((1, 1, 1, 3), 0.1)
    mean = torch.tensor([brightest - 0.5, brightest, brightest + 8.0]).reshape(1, 1, 1, 3)
    seen, _ = posterior(mean + 1.0, torch.cat([mean, spread], dim=1))
    taken = (seen - mean).flatten()
    assert taken[0] == pytest.approx(float(taken[1]), rel=1e-4)
    assert taken[2] > 3 * taken[1]
    _, ratio, own = posterior.prior(torch.cat([mean, spread], dim=1))
    assert (ratio * own).flatten()[2] == pytest.approx(
        float((0.01 + posterior.ratio_floor) * own.flatten()[2]) + (UNTRAINED_SHARE * 8) ** 2,
        rel=1e-3,
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_at_three_times_the_light_the_uncertainty_is_that_of_the_errors():
    scene = gaussian_filter(np.random.default_rng(1).normal(size=(128, 128)), 2)
    electrons = 20 + 60 * np.clip(scene / scene.std(), 0, None)

    def recorded(light, frames, seed):
        rng = np.random.default_rng(seed)
        counts = rng.poisson(light * electrons, (frames, 128, 128)) + 1.6 * rng.normal(
            size=(frames, 128, 128)
        )
        return np.rint(100 + 2 * counts).clip(0).astype(np.uint16)

    stack = stack_from_array(recorded(1, 12, 0))
    recordings = load_recordings([stack], context_frames=0, patch=48, memory_mib=64)
    options = TrainingOptions(preset="fast", steps=200, batch=8, patch=48)
    noise_model = bootstrap_noise_model([stack])
    estimator, _ = fit(recordings, noise_model, options, started=time.monotonic())
    truth = 100 + 2 * 3 * electrons
    brightest = truth > np.quantile(truth, 0.99)
    squared = []
    for frame in recorded(3, 4, 5):
        with torch.no_grad():
            mean, deviation = estimator(torch.from_numpy(frame[None, None]))
        squared.append((((mean - truth) / deviation)[0, 0].numpy() ** 2)[brightest].mean())
    assert 0.6 < np.sqrt(np.mean(squared)) < 1.6
