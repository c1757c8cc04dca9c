"""A network that cannot see its target: the pixels of a grid, predicted from all the others.

Owns how an image is taken apart and put together again. See `docs/training.md`; related are
Noise2Self (Batson & Royer 2019, arXiv:1901.11365), Laine et al. 2019 (arXiv:1901.10277) and
Noise2Fast (Lequyer et al. 2022, doi:10.1038/s42256-022-00547-8).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..options import NetworkPlan
from .network import Network
from .unet import UNet

PERIOD = 3
"""Every third pixel along y and x is hidden at a time: a ninth of what is around a target, where
every second would be a quarter."""
_CENTRE = PERIOD * PERIOD // 2


class LatticePrior(Network):
    """Predicts each pixel from everything but the sub-lattice it belongs to.

    The image is taken apart into the sub-lattices of a 3×3 grid. One network, at a third of the
    resolution, predicts the one in the middle from the eight around it; shifting the grid by one
    pixel at a time brings each of the nine into the middle. Further planes, whose noise is
    independent of the newest frame's, enter with all nine.

    Parameters
    ----------
    further
        Planes besides the newest frame.
    plan
        Size of the U-Net.
    outputs
        Channels of its head: mean and spread, or samples.
    """

    def __init__(self, further: int, plan: NetworkPlan, *, outputs: int = 2) -> None:
        super().__init__()
        self.network = UNet(PERIOD**2 * (1 + further) - 1, outputs, plan)
        self.stride = PERIOD * self.network.stride

    def forward(self, frames: Tensor) -> Tensor:
        """Return the head's outputs (N, outputs, Y, X) for planes (N, 1 + further, Y, X)."""
        height, width = frames.shape[2:]
        extended = _extended(_extended(frames, 2, self.stride), 3, self.stride)
        down, across = (edge - PERIOD + 1 for edge in extended.shape[2:])
        shifted = [
            extended[:, :, dy : dy + down, dx : dx + across]
            for dy in range(PERIOD)
            for dx in range(PERIOD)
        ]
        _, predicted = self.predict_target(torch.cat(shifted))
        by_shift = predicted.reshape(PERIOD**2, -1, *predicted.shape[1:])
        # of (9, N, outputs, Y/3, X/3): the shift becomes the place within the 3×3 grid.
        woven = functional.pixel_shuffle(by_shift.permute(1, 2, 0, 3, 4).flatten(1, 2), PERIOD)
        return woven[:, :, :height, :width]

    def predict_target(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Take the middle sub-lattice out of the newest frame and predict it from the rest.

        Returns it, (N, 1, Y/3, X/3), and the prediction, (N, outputs, Y/3, X/3). Of Y and X, what
        exceeds multiples of `stride` is left out.
        """
        frames = self.whole(frames)
        lattices = functional.pixel_unshuffle(frames, PERIOD)  # (N, 9·(1 + further), Y/3, X/3)
        visible = torch.cat([lattices[:, :_CENTRE], lattices[:, _CENTRE + 1 :]], dim=1)
        return lattices[:, _CENTRE : _CENTRE + 1], self.network(visible)

    def whole(self, frames: Tensor) -> Tensor:
        """Return as much of (N, P, Y, X) as is a multiple of `stride`."""
        height, width = (edge // self.stride * self.stride for edge in frames.shape[2:])
        return frames[:, :, :height, :width]

    def middle(self, plane: Tensor) -> Tensor:
        """Return the sub-lattice of (N, P, Y, X) that `predict_target` hides."""
        plane = self.whole(plane)
        return plane[..., PERIOD // 2 :: PERIOD, PERIOD // 2 :: PERIOD]


def _extended(planes: Tensor, axis: int, stride: int) -> Tensor:
    """Continue (N, C, Y, X) along `axis`: one pixel before it and whole strides behind it.

    A pixel beyond the border is the nearest one of its own sub-lattice: a mirror image would show
    some pixels themselves. Where a frame is so small that there is none, it is zero.
    """
    length = planes.shape[axis]
    padded = (length + stride - 1) // stride * stride
    place = torch.arange(-1, padded + PERIOD - 2, device=planes.device)
    # As tensors: the exporter cannot yet divide by a number it learns at run time.
    behind = (place - (length - 1)).clamp_min(0)
    place = place - PERIOD * torch.div(behind + PERIOD - 1, PERIOD, rounding_mode="floor")
    place = torch.where(place < 0, place + PERIOD, place)
    taken = planes.index_select(axis, place.clamp_max(length - 1))
    known = (place < length).to(planes.dtype)
    return taken * (known[:, None] if axis == 2 else known)
