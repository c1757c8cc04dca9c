"""Stabilised units have a noise of 1, and the way back is unbiased where photons are few."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.calibration.noise_model import MixtureTable
from quietscope.inference.classical.variance_stabilisation import VarianceStabilisation


class Camera:
    """Photon and read noise: x = offset + gain·n + read noise, as a mixture over the counts n."""

    def __init__(self, gain=1.0, offset=0.0, read_adu=0.0, counts=110):
        self.gain, self.offset, self.read_adu = gain, offset, read_adu
        self._counts = counts
        self.signal_range_adu = (offset, offset + 60 * gain)
        self.least_variance_adu2 = max(read_adu**2, 1e-6)

    def photons(self, signal):
        return np.maximum(np.asarray(signal, float) - self.offset, 0) / self.gain

    def variance(self, signal):
        return self.gain**2 * self.photons(signal) + self.read_adu**2

    def log_likelihood(self, observation, signal):
        raise NotImplementedError

    def mixture(self, signal):
        from scipy.stats import poisson

        signal = np.asarray(signal, float)
        n = np.arange(self._counts)[:, None]
        photons = self.photons(signal)
        weights = poisson.pmf(n, photons)
        weights /= weights.sum(axis=0)
        offsets = self.offset + self.gain * n - signal
        variances = np.full(offsets.shape, self.read_adu**2 + 1e-6)
        return MixtureTable(signal, weights, offsets, variances)

    def observe(self, signal, shape, seed=0):
        random = np.random.default_rng(seed)
        counts = random.poisson(self.photons(signal), shape)
        return self.offset + self.gain * counts + self.read_adu * random.standard_normal(shape)


CAMERAS = {
    "photon counting": Camera(),
    "read noise of 1.5 electrons": Camera(gain=0.5, offset=100, read_adu=0.75),
    "high gain": Camera(gain=20, offset=200, read_adu=10),
}


@pytest.fixture(params=CAMERAS.values(), ids=CAMERAS)
def camera(request):
    return request.param


def signals(camera):
    return [camera.offset + camera.gain * photons for photons in (0.3, 1, 3, 10, 40)]


@pytest.mark.parametrize("frames", [1, 4])
def test_the_exact_inverse_is_unbiased_where_the_algebraic_one_is_not(camera, frames):
    exact = VarianceStabilisation(camera, frames=frames)
    algebraic = VarianceStabilisation(camera, frames=frames, exact=False)
    worst = 0.0
    for signal in signals(camera):
        observed = camera.observe(signal, (frames, 200_000)).mean(axis=0)
        mean = exact.forward(observed).mean(dtype=np.float64)  # a perfect filter of a flat scene
        scatter = np.sqrt(camera.variance(signal) / frames)
        assert abs(exact.back(mean) - signal) < 0.02 * scatter
        worst = max(worst, abs(algebraic.back(mean) - signal) / scatter)
    assert worst > 0.08 / frames


@pytest.mark.long
def test_the_noise_is_one_from_a_few_photons_on(camera):
    for frames in (1, 7):
        units = VarianceStabilisation(camera, frames=frames)
        for photons in (4, 12, 40):
            signal = camera.offset + camera.gain * photons
            observed = camera.observe(signal, (frames, 100_000)).mean(axis=0)
            assert units.forward(observed).std() == pytest.approx(1, abs=0.07)


def test_for_photon_and_read_noise_it_is_the_generalised_anscombe_transform():
    """2/K · √(K·x + 3/8·K² + σ² − K·offset), up to a constant."""
    for camera in CAMERAS.values():
        units, gain = VarianceStabilisation(camera), camera.gain
        adu = camera.offset + gain * np.array([1.0, 3, 10, 30, 55])
        anscombe = (
            2 / gain * np.sqrt(gain * (adu - camera.offset) + 3 / 8 * gain**2 + camera.read_adu**2)
        )
        found = units.forward(adu)
        np.testing.assert_allclose(found - found[2], anscombe - anscombe[2], atol=0.03)


def test_there_and_back_keeps_the_order(camera):
    units = VarianceStabilisation(camera)
    stable = np.linspace(*units.forward(np.array([camera.offset, camera.signal_range_adu[1]])), 99)
    assert (np.diff(units.back(stable)) >= 0).all()
