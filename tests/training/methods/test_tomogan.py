"""TomoGAN: the critic's gradient has a price, both learn, and a person is warned."""

from __future__ import annotations

import pytest
import torch

from quietscope.training.checkpoint import restore, state_of
from quietscope.training.errors import TrainingError
from quietscope.training.model.critic import Critic, VGGFeatures, gradient_penalty
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

from .conftest import denoised, mse

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_a_gradient_of_the_norm_one_is_free_and_any_other_has_its_price(slope, expected):
    def critic(pictures):  # its gradient has the norm `slope` everywhere
        return slope * pictures.flatten(1).mean(dim=1) * pictures[0].numel() ** 0.5

    rng = torch.Generator().manual_seed(0)
    clean, made = torch.randn(2, 5, 1, 8, 8, generator=rng)
    penalty = gradient_penalty(critic, clean, made, rng)
    torch.testing.assert_close(penalty, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_the_penalty_teaches_the_critic():
    torch.manual_seed(0)
    critic = Critic(4)
    rng = torch.Generator().manual_seed(0)
    clean, made, noisy = torch.randn(3, 4, 1, 16, 16, generator=rng)
    penalty = gradient_penalty(lambda pictures: critic(pictures, noisy), clean, made, rng)
    penalty.backward()
    assert all(
        weights.grad is not None and weights.grad.abs().sum() > 0
        for name, weights in critic.named_parameters()
        if name.endswith("weight")
    )


def test_network_and_critic_both_learn_and_are_kept_for_a_resumed_run(
    repeats, true_stack, truth, trained
):
    estimator, run, said = trained([repeats], "tomogan", truths=[true_stack], steps=40)
    mean, deviation = denoised(estimator, repeats.frame(15))
    assert mse(mean, truth) < 0.7 * mse(repeats.frame(15), truth)
    assert (deviation == 0).all()
    assert any("may draw structure that is not there" in line for line in said)
    assert any("features of the critic" in line for line in said)
    critic, network = run.players
    assert critic.network is run.learner.critic
    kept = state_of(run, {}, type("Units", (), {"units": ()}))
    assert len(kept["networks"]) == len(kept["optimizers"]) == 2
    with torch.no_grad():
        before = [weights.clone() for weights in critic.network.parameters()]
        for weights in critic.network.parameters():
            weights.zero_()
    kept["networks"][0] = {  # what was in the file: state dicts share their memory
        name: value
        for (name, _), value in zip(critic.network.named_parameters(), before, strict=True)
    }
    restore(run, kept)
    for weights, value in zip(critic.network.parameters(), before, strict=True):
        assert torch.equal(weights, value)
    assert network.network is not critic.network


def test_weights_that_are_not_vggs_are_refused(repeats, true_stack, tmp_path):
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(TrainingError, match="cannot be read as weights"):
        VGGFeatures(damaged)
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(TrainingError, match=r"no fitting features\.0\.weight of VGG-19"):
        VGGFeatures(tmp_path / "other.pth")
    options = TrainingOptions(algorithm="care", steps=1, perceptual_weights=str(damaged))
    with pytest.raises(TrainingError, match="care has no use for --perceptual-weights"):
        train([repeats], tmp_path / "m", options, truths=[true_stack])


@pytest.mark.long
def test_vggs_weights_are_taken_as_torchvision_names_them(learner_of_noise, tmp_path):
    layers = (64, 64, 0, 128, 128, 0, *[256] * 4, 0, *[512] * 4, 0, *[512] * 4)
    rng = torch.Generator().manual_seed(0)
    weights, channels, place = {}, 3, 0
    for width in layers:
        if width:
            shape = (width, channels, 3, 3)
            weights[f"features.{place}.weight"] = 0.02 * torch.randn(shape, generator=rng)
            weights[f"features.{place}.bias"] = torch.zeros(width)
            channels = width
        place += 2 if width else 1
    path = tmp_path / "vgg19.pth"
    torch.save(weights | {"classifier.0.weight": torch.zeros(1)}, path)
    learner = learner_of_noise("tomogan", perceptual_weights=str(path))
    frames = torch.randn(1, 2, 32, 32, generator=rng)
    learner.loss(frames, rng).backward()
    assert all(weights.grad is None for weights in learner.vgg.parameters())
    assert all(weights.grad is not None for weights in learner.network.parameters())
