"""The running sum: what rests is summed, what moves ends it, also where noise is misjudged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from quietscope.training.model.general import running_sum, stabilised, unchanged

READ = torch.full((1, 1, 1, 1), 2.0)
TEXTURE = 20 + 6 * gaussian_filter(np.random.default_rng(1).normal(size=(160, 160)), 2.0) / 0.14


def frames(step: int, noise: float = 1.0) -> Tensor:
    """Return five frames, (1, 5, 96, 96) e⁻, of a texture that drifts by `step` pixels in each.

    `noise` is the variance beyond that of photons and read noise.
    """
    rng = np.random.default_rng(2)
    shown = np.stack([TEXTURE[32:128, 32 + k * step : 128 + k * step] for k in range(5)]).clip(1)
    seen = shown + rng.normal(size=shown.shape) * np.sqrt(noise * (shown + 2))
    return torch.from_numpy(seen.astype(np.float32))[None]


def kept(seen: Tensor) -> Tensor:
    root = stabilised(seen, READ)
    return unchanged(root[:, :1], root[:, 1:], torch.ones(1, 4, 1, 1))


def test_texture_that_drifts_ends_the_sum_though_no_mean_changes() -> None:
    seen = frames(step=1)
    # Nearly all of it has left the sum by the second frame back: 2 pixels are its own size.
    assert kept(seen)[:, 1:].mean() < 0.15
    # None of the frames' means tells it.
    assert (seen.mean(dim=(2, 3)) - seen.mean()).abs().max() < 0.6


@pytest.mark.parametrize("noise", [0.8, 1.0, 1.2])
def test_what_rests_is_summed_also_where_the_noise_is_not_what_was_told(noise: float) -> None:
    assert kept(frames(step=0, noise=noise)).mean() > 0.97


def test_a_sum_that_is_ended_says_how_many_frames_are_left_out() -> None:
    seen = frames(step=0)
    seen[:, 2:, :48] += 40  # half of the field was brighter before the last two frames
    pooled, most, short = running_sum(seen, torch.ones(1, 4, 1, 1), READ)
    assert most.item() == 5
    torch.testing.assert_close(short[0, 0, 4:18].mean().item(), 0.6, atol=0.03, rtol=0)
    assert short[0, 0, 30:].mean() < 0.03
    two = seen[:, :2].mean(dim=1)
    torch.testing.assert_close(pooled[0, :, 8:36].mean(), two[:, 8:36].mean(), atol=0.2, rtol=0)
