"""Recorrupted-to-Recorrupted: what is learned from shares no noise with what is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from quietscope.training.methods.recorrupted import ALPHA

from .conftest import OFFSET, READ

pytestmark = pytest.mark.usefixtures("one_thread")

PHOTONS = 60.0
CENTRE_ADU, SCALE_ADU = 120.0, 20.0


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_input_and_target_have_one_signal_and_independent_noise(learner_of_noise, error):
    """Of a camera whose variance is larger by a share than said, that share of it is common."""
    learner = learner_of_noise("r2r")
    learner.network = nn.Identity()
    rng = np.random.default_rng(0)
    variance = (PHOTONS + READ**2) * (1 + error)
    frames = OFFSET + PHOTONS + variance**0.5 * rng.standard_normal((40, 1, 64, 64))
    seen = torch.from_numpy((frames - CENTRE_ADU) / SCALE_ADU).float()
    target, predicted, _ = learner.hidden(seen, torch.Generator().manual_seed(0))
    signal = (OFFSET + PHOTONS - CENTRE_ADU) / SCALE_ADU
    known = variance / SCALE_ADU**2
    for picture in (target, predicted):
        assert abs(float(picture.mean()) - signal) < 0.05 * known**0.5
    common = float(((target - signal) * (predicted - signal)).mean()) / known
    assert common == pytest.approx(error / (1 + error), abs=0.06)
    assert float(predicted.var()) / known == pytest.approx(1 + ALPHA**2 / (1 + error), rel=0.06)
