"""An exponential moving average of a network's weights.

Owns how long the average is; the averaging is torch's. It smooths what the last steps of training
would leave to the draw of their patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]

DECAY = 0.998
"""Per step: an average over about 500 steps, of the several thousand that a run has."""
YOUNG_STEPS = 9
"""An average of n steps forgets 9 in n + 9 of itself: what the first ones knew was not much."""


def weight_average(network: nn.Module) -> AveragedModel:
    """Return the average, as a module that `update_parameters` brings up to date."""
    # Running statistics of a normalisation are averaged with the weights that they belong to.
    average = AveragedModel(network, multi_avg_fn=_towards, use_buffers=True)
    average.module.eval()
    # The copy that it starts from counts as the first; otherwise the next would replace it.
    average.n_averaged.fill_(1)
    return average


@torch.no_grad()
def _towards(averaged: Tensors, live: Tensors, updates: Tensor | int) -> None:
    decay = min(DECAY, int(updates) / (int(updates) + YOUNG_STEPS))
    torch._foreach_lerp_(averaged, live, 1 - decay)
