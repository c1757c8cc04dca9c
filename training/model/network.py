"""What every network is to those that train, pad and export it.

Owns the one number that they have to know.
"""

from __future__ import annotations

from torch import nn


class Network(nn.Module):
    """Maps planes (N, inputs, Y, X) in network units to outputs (N, C, Y, X), for any Y and X.

    Attributes
    ----------
    stride
        Pixels: frames whose edges are multiples of it are not padded.
    period
        Pixels: what is done at a place is the same so many pixels further.
    """

    stride: int = 1
    period: int = 1
