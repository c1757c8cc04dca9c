"""A network that cannot see its target: four sub-lattices, one predicted from the other three.

Owns how an image is taken apart and put together again. See `docs/training.md`; related are
Noise2Self (Batson & Royer 2019, arXiv:1901.11365) and Laine et al. 2019 (arXiv:1901.10277).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .network import UNet
from .options import NetworkPlan

_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Flips that bring sub-lattice (0,0), (0,1), (1,0), (1,1) of the 2×2 grid to place (0,0)."""


class LatticePrior(nn.Module):
    """Predicts each pixel from everything but the sub-lattice it belongs to.

    The preceding frames, whose noise is independent, enter with all four sub-lattices.

    Parameters
    ----------
    context_frames
        T preceding frames.
    plan
        Size of the U-Net, which runs at half the image's resolution.
    """

    def __init__(self, context_frames: int, plan: NetworkPlan) -> None:
        super().__init__()
        self.network = UNet(4 * (1 + context_frames) - 1, 2, plan)
        self.stride = 2 * self.network.stride

    def forward(self, frames: Tensor) -> Tensor:
        """Return prior mean and log variance as (N, 2, Y, X).

        `frames` is (N, 1 + T, Y, X) in network units; Y and X are multiples of `stride`.
        """
        flipped = torch.cat([frames.flip(flip) if flip else frames for flip in _FLIPS])
        _, predicted = self.predict_target(flipped)
        by_flip = predicted.reshape(len(_FLIPS), -1, *predicted.shape[1:])
        parts = [
            by_flip[place].flip(flip) if flip else by_flip[place]  # (N, 2, Y/2, X/2)
            for place, flip in enumerate(_FLIPS)
        ]
        return functional.pixel_shuffle(torch.stack(parts, dim=2).flatten(1, 2), 2)

    def predict_target(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Take sub-lattice (0,0) out of the newest frame and predict it from the rest.

        Returns it, (N, 1, Y/2, X/2), and the prediction, (N, 2, Y/2, X/2).
        """
        lattices = functional.pixel_unshuffle(frames, 2)  # (N, 4·(1 + T), Y/2, X/2)
        return lattices[:, :1], self.network(lattices[:, 1:])
