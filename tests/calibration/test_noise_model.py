import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.fit_gaussian_mixture import fit_gaussian_mixture
from quietscope.calibration.level_statistics import Pairs, signal_observation_pairs
from quietscope.calibration.likelihood import Codes
from quietscope.calibration.noise_model import NoiseModel
from quietscope.calibration.photon_transfer import PhotonTransfer
from quietscope.calibration.straight_line import Interval
from quietscope.storage.stack import stack_from_array

GAIN, OFFSET, READ = 1.5, 100.0, 3.0


def law(gain: float = GAIN, offset: float = OFFSET, read: float = READ) -> PhotonTransfer:
    return PhotonTransfer(
        gain=Interval(gain, gain, gain),
        intercept_adu2=read**2 - gain * offset,
        offset=Interval(offset, offset, offset),
        read_noise=Interval(read / gain, read / gain, read / gain),
        dark_variance_adu2=read**2,
        saturation_adu=65535.0,
    )


def pairs(electrons: tuple[float, ...], *, repeats: int = 50, pixels: int = 2000, seed: int = 0):
    rng = np.random.default_rng(seed)
    e = np.repeat(electrons, pixels)
    count = rng.poisson(e, (repeats, e.size))
    x = np.rint(GAIN * count + rng.normal(OFFSET, READ, count.shape))
    return signal_observation_pairs(x.astype(np.float32))


@pytest.fixture(scope="module")
def model():
    return fit_gaussian_mixture(pairs((0, 3, 10, 30, 100, 300, 1000)), law())


@pytest.fixture(scope="module")
def photon_counting():
    """A camera that counts: no offset, no read noise, often nothing at all."""
    rng = np.random.default_rng(1)
    scene = np.linspace(0.3, 30, 64 * 64).reshape(64, 64)
    counts = rng.poisson(scene, (64, 64, 64)).astype(np.uint8)
    return fit_camera([stack_from_array(counts, path="counts")], offset_adu=0.0)


@given(signal=st.floats(min_value=90.0, max_value=4000.0))
def test_likelihood_sums_to_one_over_the_codes(model, signal):
    codes = np.arange(0, 6000)
    assert np.exp(model.log_likelihood(codes, signal)).sum() == pytest.approx(1, abs=1e-3)


@given(signal=st.floats(min_value=0.0, max_value=255.0))
def test_likelihood_sums_to_one_where_the_camera_clips(photon_counting, signal):
    codes = np.arange(256)
    found = photon_counting.noise_model
    assert np.exp(found.log_likelihood(codes, signal)).sum() == pytest.approx(1, abs=1e-3)


def test_it_is_a_noise_model(model):
    assert isinstance(model, NoiseModel)


def test_variance_is_the_cameras_also_between_and_beyond_levels(model):
    electrons = np.array([5, 20, 60, 200, 700, 3000])
    signal = OFFSET + GAIN * electrons
    truth = GAIN**2 * electrons + READ**2 + 1 / 12
    assert model.variance(signal) == pytest.approx(truth, rel=0.03)


def test_variance_is_unbiased_for_few_repeats():
    few = fit_gaussian_mixture(pairs((10, 100, 1000), repeats=4, pixels=40_000), law())
    signal = OFFSET + GAIN * np.array([10, 100, 1000])
    truth = GAIN**2 * np.array([10, 100, 1000]) + READ**2 + 1 / 12
    # Four repeats: the plain residual variance is 25 % too small.
    assert few.variance(signal) == pytest.approx(truth, rel=0.02)


def test_variance_may_take_any_shape():
    # A camera that switches its gain at 1000 ADU: noise falls with light there.
    rng = np.random.default_rng(2)
    signal = rng.uniform(200, 3000, 400_000)
    sigma = np.where(signal < 1000, 30.0, 10.0)
    observation = np.rint(signal + sigma * rng.normal(size=signal.size))
    straight = law(gain=0.1, offset=0.0, read=10.0)
    found = fit_gaussian_mixture(Pairs(signal, observation, np.ones(signal.size)), straight)
    assert found.variance(np.array([500.0, 900.0])) == pytest.approx([900, 900], rel=0.05)
    assert found.variance(np.array([1200.0, 2500.0])) == pytest.approx([100, 100], rel=0.05)


def test_noise_is_never_below_that_of_the_dark(model):
    assert model.variance(np.array([-1000.0, 0.0, OFFSET])).min() >= READ**2 * 0.99


def test_table_is_the_model(model):
    grid = np.linspace(*model.signal_range_adu, 200)
    table = model.mixture(grid)
    assert table.weights.sum(axis=0) == pytest.approx(np.ones(200))
    assert (table.weights * table.offsets).sum(axis=0) == pytest.approx(np.zeros(200), abs=1e-9)
    assert (table.variances > 0).all()
    assert table.total_variance() == pytest.approx(model.variance(grid))
    # Where the noise spans many codes, the density of the table is the likelihood.
    x = grid + 0.7 * np.sqrt(model.variance(grid))
    density = (
        table.weights
        * np.exp(-((x - grid - table.offsets) ** 2) / (2 * table.variances))
        / np.sqrt(2 * np.pi * table.variances)
    ).sum(axis=0)
    assert np.log(density) == pytest.approx(model.log_likelihood(x, grid), abs=5e-3)


def test_skewness_of_few_photons_is_in_the_model(model):
    electrons = 10.0
    signal = OFFSET + GAIN * electrons
    rng = np.random.default_rng(5)
    x = np.rint(GAIN * rng.poisson(electrons, 200_000) + rng.normal(OFFSET, READ, 200_000))
    gaussian = -0.5 * (x - signal) ** 2 / model.variance(signal) - 0.5 * np.log(
        2 * np.pi * model.variance(signal)
    )
    assert model.log_likelihood(x, signal).mean() > gaussian.mean() + 0.003


def test_the_same_pairs_give_the_same_model_to_the_bit(model):
    again = fit_gaussian_mixture(pairs((0, 3, 10, 30, 100, 300, 1000)), law())
    for name in ("signal_adu", "variance_adu2", "shape_weights", "shape_offsets"):
        assert np.array_equal(getattr(again, name), getattr(model, name))


def test_it_beats_plainer_models_on_pixels_that_it_never_saw(photon_counting):
    nll = photon_counting.held_out_nll
    assert nll["gaussian_mixture"] < nll["gaussian"]
    assert nll["gaussian_mixture"] < nll["histogram"]


def test_far_observations_stay_finite_and_ordered(model):
    x = np.array([200.0, 2_000.0, 20_000.0, 65_535.0])
    found = model.log_likelihood(x, 150.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


def test_float_pixels_have_a_density():
    rng = np.random.default_rng(3)
    signal = rng.uniform(0, 1, 50_000)
    observation = signal + 0.1 * rng.normal(size=signal.size)
    flat = PhotonTransfer(
        gain=Interval(1e-9, 0, 1),
        intercept_adu2=0.01,
        offset=None,
        read_noise=None,
        dark_variance_adu2=0.0,
        saturation_adu=65535.0,
    )
    found = fit_gaussian_mixture(
        Pairs(signal, observation, np.ones(signal.size)),
        flat,
        codes=Codes(-np.inf, np.inf, 0.0),
    )
    x = np.linspace(-1, 2, 3001)
    total = np.exp(found.log_likelihood(x, 0.5)).sum() * (x[1] - x[0])
    assert total == pytest.approx(1, abs=1e-3)
    assert found.variance(0.5) == pytest.approx(0.01, rel=0.05)
