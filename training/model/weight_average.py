"""An exponential moving average of a network's weights.

Owns the averaged copy and the exchange with the live weights. It smooths what the last steps of
training would leave to chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of `network`'s parameters over about 1 / (1 − `decay`) steps."""

    def __init__(self, network: nn.Module, decay: float = 0.998) -> None:
        self._live = list(network.parameters())
        self.values: list[Tensor] = [p.detach().clone() for p in self._live]
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in; early on the average is short."""
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 9))
        torch._foreach_lerp_(self.values, [p.detach() for p in self._live], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights into the network for the length of the block."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap live and averaged weights."""
        for live, value in zip(self._live, self.values, strict=True):
            kept = live.detach().clone()
            live.copy_(value)
            value.copy_(kept)

    def state(self) -> dict[str, list[Tensor] | int]:
        """Return what `restore` needs."""
        return {"values": self.values, "updates": self._updates}

    def restore(self, values: list[Tensor], updates: int) -> None:
        """Continue from a saved state."""
        for own, value in zip(self.values, values, strict=True):
            own.copy_(value)
        self._updates = updates
