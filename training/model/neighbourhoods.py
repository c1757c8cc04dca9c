"""A block of convolutions at a few places of an image instead of everywhere.

Owns how the pixels around those places are laid out. Which places matter is `masking`'s business:
a masked network is asked at one pixel in twenty-five, and at full resolution a convolution costs
most.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LIKE_COUNTS = 64
"""Places are counted in these: the CPU's convolutions are compiled anew for each count."""


class Neighbourhoods:
    """The (2R + 1)² pixels around each of M places.

    They are kept as an image (1, C, 2R + 1, (2R + 1)·M) in which the same neighbour of all places
    lies together. A 3×3 convolution with a dilation of M along x then combines each place with
    its own neighbours alone, and runs over them all at once.

    Parameters
    ----------
    places
        Index arrays (patch, y, x), (M,) each.
    height, width
        Of the image in pixels; beyond it is nothing but zeros.
    radius
        R, as many pixels as the block has convolutions.
    """

    def __init__(
        self, places: tuple[Tensor, Tensor, Tensor], height: int, width: int, radius: int
    ) -> None:
        self._count = len(places[0])
        spare = -self._count % LIKE_COUNTS
        patch, y, x = (functional.pad(place, (0, spare)) for place in places)
        self._dilation = self._count + spare
        self._edge = 2 * radius + 1
        step = torch.arange(-radius, radius + 1, device=y.device)
        y, x = y + step[:, None, None], x + step[:, None]  # (K, 1, M), (K, M)
        self._patch, self._y, self._x = patch, y.clamp(0, height - 1), x.clamp(0, width - 1)
        self._inside = (self._y == y) & (self._x == x)  # (K, K, M)

    def of(self, image: Tensor, enlarged: int = 1) -> Tensor:
        """Return what is around the places, (1, C, K, K·M), in an image (N, C, Y, X).

        With `enlarged`, in that image enlarged so many times by repeating its pixels.
        """
        channels, height, width = image.shape[1:]
        row = self._patch * height + self._y // enlarged
        pixels = image.permute(0, 2, 3, 1).reshape(-1, channels)
        there = (row * width + self._x // enlarged).flatten()
        # The gradient of index_select adds in any order on a GPU; this one's order is fixed.
        found = pixels[there] if pixels.is_cuda else pixels.index_select(0, there)
        return found.view(1, self._edge, -1, channels).permute(0, 3, 1, 2)

    def convolved(self, x: Tensor, block: nn.Module) -> Tensor:
        """Return what a block of R convolutions makes of `of`'s pixels, (1, C', 1, M)."""
        inside = self._inside.to(x.dtype)
        for layer in block.children():
            if isinstance(layer, nn.Conv2d):
                # What a layer made of the pixels beyond the border is not zero, but must be.
                x = x * inside.view(1, 1, len(inside), -1)
                x = functional.conv2d(x, layer.weight, layer.bias, dilation=(1, self._dilation))
                inside = inside[1:-1, 1:-1]
            else:
                x = layer(x)
        return x[..., : self._count]
