"""Methods that learn from other frames: n2n from repeats; care and dncnn from clean ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quietscope.storage.stack import stack_from_array
from quietscope.training.errors import TrainingDataError, TrainingError
from quietscope.training.methods.n2n import SUITS
from quietscope.training.model.dncnn import DnCNN
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

from .conftest import OFFSET, denoised, mse, observed

pytestmark = pytest.mark.usefixtures("one_thread")


def test_n2n_learns_the_scene_from_noisy_frames_alone_and_is_unbiased(repeats, truth, trained):
    estimator, run, said = trained([repeats], "n2n", steps=150)
    estimates = [denoised(estimator, repeats.frame(i)) for i in (14, 15)]
    for (mean, _), index in zip(estimates, (14, 15), strict=True):
        assert mse(mean, truth) < 0.3 * mse(repeats.frame(index), truth)
    bias = np.mean([mean for mean, _ in estimates]) - truth.mean()
    assert abs(bias) < 0.02 * (truth.mean() - OFFSET)
    assert any("loss l2 gives the mean" in line for line in said)
    error = np.std([(mean - truth) / deviation for mean, deviation in estimates])
    assert 0.5 < error < 2.0
    assert run.learner.sees_its_pixel


def test_n2n_says_that_nothing_rests(truth, trained):
    moving = np.stack([np.roll(truth, 5 * i, axis=1) for i in range(12)])
    with pytest.raises(TrainingDataError, match=r"no two frames .* --pairs"):
        trained([stack_from_array(observed(moving))], "n2n", steps=2)


def test_n2n_takes_the_pairs_that_it_is_given(truth, trained, tmp_path):
    moving = np.stack([np.roll(truth, 9 * (i // 2), axis=1) for i in range(12)])
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(f"{i},{i + 1}" for i in range(0, 12, 2)), encoding="utf-8")
    _, run, _ = trained([stack_from_array(observed(moving))], "n2n", pairs=path, steps=3)
    assert run.step == 3


@pytest.mark.parametrize("name", SUITS)
def test_every_loss_of_n2n_has_its_least_value_where_it_should(name, learner_of_noise):
    """Of one value that is nine times right and replaced in some share of the pixels."""
    learner = learner_of_noise("n2n", loss=name)
    learner.progress = 0.9
    rng = torch.Generator().manual_seed(0)
    target = torch.full((4000,), 1.0)
    target[:1400] = 2 + 4 * torch.rand(1400, generator=rng)
    values = torch.linspace(0.5, 4, 351)
    least = {float(v): float(learner._difference(v.expand(4000), target, 0.2)) for v in values}
    best = min(least, key=least.get)  # type: ignore[arg-type]
    mean = float(target.mean())
    expected = {"l2": mean, "l1": 1.0, "l0": 1.0}.get(name)
    if expected is None:  # a bright guess is forgiven more
        assert best > mean
    else:
        assert abs(best - expected) < 0.02


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_impulse_noise_l0_is_better_than_l1_and_l1_than_l2(truth, trained):
    rng = np.random.default_rng(0)
    clean = np.broadcast_to(truth, (24, *truth.shape))
    replaced = rng.random(clean.shape) < 0.6
    noisy = np.where(replaced, rng.uniform(OFFSET, 350, clean.shape), clean)
    stack = stack_from_array(noisy.astype(np.uint16))
    pairs = {}
    for name in ("l2", "l1", "l0"):
        estimator, _, _ = trained([stack], "n2n", loss=name, steps=1200, batch=8)
        pairs[name] = mse(denoised(estimator, stack.frame(23))[0], truth)
    assert pairs["l0"] < pairs["l1"] < pairs["l2"]


def test_care_learns_the_truth_and_its_scale_covers_its_error(repeats, true_stack, truth, trained):
    """Of a Laplace law 63 % of the errors are within one scale, and its variance is 2b²."""
    estimator, _, _ = trained([repeats], "care", truths=[true_stack], steps=200)
    mean, deviation = denoised(estimator, repeats.frame(15))
    assert mse(mean, truth) < 0.4 * mse(repeats.frame(15), truth)
    error = np.abs(mean - truth)
    assert 0.4 < np.mean(error < deviation / np.sqrt(2)) < 0.85
    assert 0.6 < np.sqrt(np.mean((error / deviation) ** 2)) < 1.6


@pytest.mark.long
def test_dncnn_learns_the_truth_and_states_no_uncertainty(repeats, true_stack, truth, trained):
    estimator, _, _ = trained(
        [repeats], "dncnn", truths=[true_stack], steps=100, learning_rate=3e-3
    )
    mean, deviation = denoised(estimator, repeats.frame(15))
    assert mse(mean, truth) < 0.7 * mse(repeats.frame(15), truth)
    assert (deviation == 0).all()


@pytest.mark.parametrize("loss", ["plain", "squared"])
def test_care_without_a_scale_states_none(repeats, true_stack, trained, loss):
    estimator, run, _ = trained([repeats], "care", truths=[true_stack], loss=loss, steps=3)
    _, deviation = denoised(estimator, repeats.frame(15))
    assert (deviation == 0).all()
    assert run.learner.outputs == 1


def test_dncnn_folds_its_normalisations_without_changing_what_it_does():
    torch.manual_seed(0)
    network = DnCNN(1, 8)
    frames = torch.randn(4, 1, 24, 31)
    for _ in range(5):
        network(3 * frames + 1)  # statistics that are not those of the start
    network.eval()
    folded = network.folded()
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    assert sum(isinstance(part, torch.nn.Conv2d) for part in folded.modules()) == 17
    with torch.no_grad():
        torch.testing.assert_close(folded(frames), network(frames), rtol=1e-4, atol=1e-5)


def test_dncnn_goes_back_to_weights_that_were_kept_as_a_plain_dictionary():
    network, other = DnCNN(1, 8), DnCNN(1, 8)
    other.load_state_dict(dict(network.state_dict()))
    for value, found in zip(
        network.state_dict().values(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, value)


@pytest.mark.parametrize(
    ("choices", "given", "match"),
    [
        ({"algorithm": "care"}, {}, "care learns from clean frames and none were given"),
        ({"algorithm": "dncnn"}, {}, "give --truth STACK"),
        ({"algorithm": "n2v"}, {"truths": True}, "no use for --truth"),
        ({"algorithm": "lattice"}, {"pairs": "pairs.csv"}, "no use for --pairs; .* n2n"),
        ({"algorithm": "n2n", "loss": "l3"}, {}, "expected one of l2, l1, l0, hdr"),
        ({"algorithm": "lattice", "loss": "l2"}, {}, "lattice does not have; leave it out"),
        ({"algorithm": "care"}, {"truths": True, "twice": True}, "1 recordings and 2 truths"),
    ],
)
def test_what_a_method_lacks_or_has_no_use_for_is_said_in_a_line(
    repeats, true_stack, tmp_path, choices, given, match
):
    options = TrainingOptions(preset="fast", steps=2, **choices)
    wanted = {}
    if "truths" in given:
        wanted["truths"] = [true_stack] * (1 + ("twice" in given))
    if "pairs" in given:
        wanted["pairs"] = tmp_path / given["pairs"]
    with pytest.raises((TrainingError, TrainingDataError), match=match) as caught:
        train([repeats], tmp_path / "model", options, **wanted)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
