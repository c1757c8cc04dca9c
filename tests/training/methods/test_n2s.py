"""Noise2Self: no pixel reaches its own prediction, and what is replaced is replaced by others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quietscope.training.model.grid import PERIOD, GridPrior, hidden_part
from quietscope.training.options import NetworkPlan

from .conftest import denoised, mse

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("place", [(0, 0), (7, 9), (16, 21), (16, 0)], ids=str)
def test_no_pixel_reaches_its_own_prediction(place):
    torch.manual_seed(0)
    network = GridPrior(0, NetworkPlan(width=16, depth=1)).eval()
    frames = torch.randn(1, 1, 17, 22, requires_grad=True)
    network(frames)[0, :, place[0], place[1]].sum().backward()
    gradient = frames.grad[0, 0]
    assert gradient[place] == 0
    assert (gradient != 0).sum() > 20


def test_a_part_is_replaced_by_the_mean_around_and_the_rest_stays():
    frames = torch.arange(80.0).reshape(1, 1, 8, 10)
    hidden = hidden_part(frames, (1, 2))
    changed = torch.zeros(8, 10, dtype=torch.bool)
    changed[1::PERIOD, 2::PERIOD] = True
    assert torch.equal(hidden[0, 0][~changed], frames[0, 0][~changed])
    # Of a plane that rises evenly the mean around a pixel is the pixel's value.
    torch.testing.assert_close(hidden[0, 0], frames[0, 0])
    around = hidden_part(torch.randn(1, 1, 8, 10), (1, 2))
    assert around.shape == frames.shape


def test_the_estimate_denoises_and_takes_the_pixel_in_afterwards(repeats, truth, trained):
    estimator, run, _ = trained([repeats], "n2s", steps=80)
    mean, deviation = denoised(estimator, repeats.frame(15))
    assert mse(mean, truth) < 0.5 * mse(repeats.frame(15), truth)
    assert 0.5 < np.std((mean - truth) / deviation) < 2.0
    assert not run.learner.sees_its_pixel
