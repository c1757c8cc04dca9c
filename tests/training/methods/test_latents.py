"""Samples scatter as the posterior does where it is known; latents that say nothing are told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from quietscope.calibration.noise_model import MixtureTable
from quietscope.training.methods import learner_for
from quietscope.training.model.latent import FlatLatents, LadderLatents, Law
from quietscope.training.model.noise_likelihood import TabulatedNoise
from quietscope.training.options import TrainingOptions

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCK = 4
SPREAD = 1.0
"""Standard deviation of the signal, in network units."""


def blocks(count: int, edge: int, rng: torch.Generator) -> torch.Tensor:
    """Return signals of independent blocks, (count, 1, edge, edge)."""
    values = SPREAD * torch.randn(count, 1, edge // BLOCK, edge // BLOCK, generator=rng)
    return values.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)


class Constant:
    """A camera of constant Gaussian noise, as far as the learners ask."""

    signal_range_adu = (-1e3, 1e3)
    least_variance_adu2 = 1.0

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def variance(self, signal):
        return 0 * signal + self.sigma**2

    def mixture(self, signal):
        return MixtureTable(
            signal=signal,
            weights=np.ones((1, len(signal))),
            offsets=np.zeros((1, len(signal))),
            variances=np.full((1, len(signal)), self.sigma**2),
        )


def learner(algorithm: str, sigma: float, **choices):
    torch.manual_seed(0)
    noise = TabulatedNoise(
        Constant(sigma), low_adu=-9.0, high_adu=9.0, centre_adu=0.0, scale_adu=1.0
    )
    return learner_for(TrainingOptions(algorithm=algorithm, preset="fast", **choices), noise)


@pytest.mark.parametrize("algorithm", ["divnoising", "hdn"])
def test_a_brighter_picture_scores_no_better_by_its_noise(algorithm):
    """Of a photon counter: what is too bright has more noise to explain its misfit by."""

    class Photons(Constant):
        def variance(self, signal):
            return np.maximum(signal, 0.1)

        def mixture(self, signal):
            table = super().mixture(signal)
            return replace(table, variances=np.maximum(signal, 0.1)[None])

    noise = TabulatedNoise(
        Photons(1.0), low_adu=0.0, high_adu=200.0, centre_adu=0.0, scale_adu=1.0
    )
    found = learner_for(TrainingOptions(algorithm=algorithm, preset="fast"), noise)
    rng = torch.Generator().manual_seed(0)
    frames = torch.poisson(torch.full((2, 1, 64, 64), 4.0), generator=rng)
    scores = {}
    for light in (4.0, 4.5):
        said = (torch.full_like(frames, light), [])
        found.network.inferred = lambda *_, said=said: said
        scores[light] = float(found.score(frames, rng))
    assert scores[4.0] < scores[4.5]


def train(found, signals, sigma: float, steps: int, batch: int = 8) -> None:
    rng = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(found.network.parameters(), lr=4e-3)
    for step in range(steps):
        found.progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (0.02 + math.cos(0.5 * math.pi * step / steps) ** 2)
        signal = signals(batch, 16, rng)
        frames = signal + sigma * torch.randn(signal.shape, generator=rng)
        optimizer.zero_grad()
        found.loss(frames, rng).backward()
        torch.nn.utils.clip_grad_norm_(found.network.parameters(), 1.0)
        optimizer.step()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    # How far scatter and mean may be from the formula's: a ladder takes longer to get there.
    ("algorithm", "apart", "beside"),
    [("divnoising", 0.3, 0.8), ("hdn", 0.6, 1.4)],
)
def test_samples_scatter_as_the_posterior_does_where_it_is_known(algorithm, apart, beside):
    """Blocks of sixteen pixels, a normal prior, normal noise: the posterior is a formula."""
    sigma = 1.0
    found = learner(algorithm, sigma, posterior_samples=32)
    train(found, blocks, sigma, steps=1500)
    rng = torch.Generator().manual_seed(5)
    signal = blocks(8, 32, rng)
    frames = signal + sigma * torch.randn(signal.shape, generator=rng)
    with torch.no_grad():
        samples = found.network.eval()(frames)
    inverse = 1 / SPREAD**2 + BLOCK**2 / sigma**2
    known = math.sqrt(1 / inverse)
    mean = frames.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK).mean(dim=(4, 5))
    expected = (mean * BLOCK**2 / sigma**2 / inverse).repeat_interleave(BLOCK, 2)
    expected = expected.repeat_interleave(BLOCK, 3)
    scatter = samples.std(dim=1).mean()
    assert abs(float(scatter) / known - 1) < apart
    bias = (samples.mean(dim=1, keepdim=True) - expected).pow(2).mean().sqrt()
    assert float(bias) < beside * known
    assert max(found.active_shares([frames], rng)) > 0
    assert not any("every sample" in line for line in found.findings([frames], rng))


@pytest.mark.parametrize("algorithm", ["divnoising", "hdn"])
def test_latents_that_say_nothing_are_told(algorithm):
    found = learner(algorithm, 1.0)
    rng = torch.Generator().manual_seed(5)
    frames = torch.randn(2, 1, 32, 32, generator=rng)
    assert not any("every sample" in line for line in found.findings([frames], rng))
    with torch.no_grad():
        for name, weights in found.network.named_parameters():
            if "law" in name:
                weights.zero_()
    assert max(found.active_shares([frames], rng)) == 0
    (said,) = found.findings([frames], rng)
    assert said.startswith("posterior collapse: ")
    assert "\n" not in said


@pytest.mark.long
@pytest.mark.timeout(300)
def test_of_a_scene_without_structure_all_samples_are_the_same_empty_picture():
    """However noisy the frames: what the latents still say, the decoder makes nothing of."""
    found = learner("divnoising", 1.0)
    train(found, lambda count, edge, rng: torch.zeros(count, 1, edge, edge), 1.0, steps=700)
    rng = torch.Generator().manual_seed(5)
    frames = torch.randn(2, 1, 32, 32, generator=rng)
    with torch.no_grad():
        samples = found.network.eval()(frames)
    assert float(samples.abs().max()) < 0.05


@pytest.mark.parametrize(
    "network",
    [FlatLatents(1, 8, 4, 6), LadderLatents(1, 8, 4, 6, 3)],
    ids=["divnoising", "hdn"],
)
def test_samples_differ_repeat_themselves_and_fit_any_frame(network):
    network = network.eval()
    frames = torch.randn(2, 1, 37, 22)
    with torch.no_grad():
        first, again = network(frames), network(frames)
        one = network(frames[1:])
        drawn = network.sample(frames[:1], torch.tensor([0, 0, 0]))
        moved = network.sample(frames[:1], torch.tensor([0, 5, 0]))
    assert first.shape == (2, 6, 37, 22)
    torch.testing.assert_close(drawn, first[:1, :1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(drawn, moved)
    assert torch.equal(first, again)
    torch.testing.assert_close(first[1:], one, rtol=1e-4, atol=1e-5)
    assert (first.std(dim=1) > 0).float().mean() > 0.9
    # Half of the draws are the other half with the sign changed.
    torch.testing.assert_close(network.tile.mean(dim=0), torch.zeros_like(network.tile[0]))


def test_the_divergence_is_that_of_two_normal_laws():
    rng = torch.Generator().manual_seed(0)
    a, b = (Law(*torch.randn(2, 1, 3, 4, 4, generator=rng)) for _ in range(2))
    expected = kl_divergence(Normal(a.mean, a.log_scale.exp()), Normal(b.mean, b.log_scale.exp()))
    torch.testing.assert_close(a.divergence(b), expected, rtol=1e-4, atol=1e-5)
