"""The masked blind spots: Noise2Void and its descendants.

Owns which pixels are hidden during training and by what they are replaced. At inference a masked
network sees every pixel, which is why its own variance says how well it predicts, but must not be
combined with the observation a second time.

References: N2V, Krull et al. 2019, doi:10.1109/CVPR.2019.00223; N2V2, Höck et al. 2022,
doi:10.1007/978-3-031-25069-9_33; structN2V, Broaddus et al. 2020,
doi:10.1109/ISBI45749.2020.9098336; PN2V, Krull et al. 2020, doi:10.3389/fcomp.2020.00005.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..mask_kernel import Offsets
from ..options import NetworkPlan
from .network import Network
from .unet import UNet

REACH = 5
"""Replacements come from the (2·REACH + 1)² pixels around; N2V's ROI of 11."""


DRAWS = 4
"""Of a replacement, until it comes from a pixel that is not hidden itself."""

Places = tuple[Tensor, Tensor, Tensor]
"""Index arrays (patch, y, x)."""


@dataclass(frozen=True, slots=True)
class MaskPlan:
    """How pixels are hidden.

    Attributes
    ----------
    fraction
        Share of pixels that are hidden per patch.
    replacement
        `random`: a pixel of the neighbourhood (N2V). `median`: of the 5×5 around, without the
        centre (N2V2).
    kernel
        Offsets of the pixels that are hidden with each, itself among them (structN2V); with each
        its opposite.
    """

    fraction: float
    replacement: Literal["random", "median"] = "random"
    kernel: Offsets = ((0, 0),)

    @property
    def reach(self) -> tuple[int, int]:
        """The farthest row and column that is hidden with a pixel."""
        rows, columns = (max(abs(one[axis]) for one in self.kernel) for axis in (0, 1))
        return rows, columns

    @property
    def is_square(self) -> bool:
        """Whether rows and columns could be exchanged."""
        return {(dx, dy) for dy, dx in self.kernel} == set(self.kernel)


class MaskedPrior(Network):
    """The U-Net at full resolution, with mean and spread (or K samples) as its head."""

    def __init__(
        self, further: int, plan: NetworkPlan, *, artefact_free: bool, outputs: int = 2
    ) -> None:
        super().__init__()
        self.network = UNet(1 + further, outputs, plan, artefact_free=artefact_free)
        self.stride = self.network.stride

    def forward(self, frames: Tensor) -> Tensor:
        """Return the head's outputs (N, outputs, Y, X) for planes (N, 1 + further, Y, X)."""
        height, width = frames.shape[2], frames.shape[3]
        predicted: Tensor = self.network(reflected(frames, self.stride))
        return predicted[:, :, :height, :width]

    def at(self, frames: Tensor, places: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the head's outputs at places (patch, y, x) alone, (M, outputs)."""
        return self.network.at(reflected(frames, self.stride), places)


def reflected(frames: Tensor, stride: int) -> Tensor:
    """Extend (N, C, Y, X) by reflection at the lower right, up to multiples of `stride`.

    Written with indices because that holds for any size, also for frames smaller than the padding.
    """
    rows = _reflected_index(frames.shape[2], stride, frames.device)
    columns = _reflected_index(frames.shape[3], stride, frames.device)
    return frames.index_select(2, rows).index_select(3, columns)


def _reflected_index(length: int, stride: int, device: torch.device) -> Tensor:
    padded = (length + stride - 1) // stride * stride
    place = torch.arange(padded, device=device)
    # As a tensor: the exporter cannot yet take the remainder by a number it learns at run time.
    period = torch.full_like(place, 2 * (length - 1)).clamp_min(1)
    place = torch.remainder(place, period)
    return torch.minimum(place, (period - place).clamp_max(length - 1))


def hide(
    frames: Tensor, plan: MaskPlan, rng: torch.Generator
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Replace pixels of the newest frame.

    Parameters
    ----------
    frames
        (N, 1 + T, Y, X); not changed.
    plan
        How.
    rng
        Draws the places.

    Returns
    -------
    masked
        (N, 1 + T, Y, X) with replaced pixels.
    places
        Index arrays (patch, y, x) of the pixels that carry the loss.
    """
    count, _, height, width = frames.shape
    drawn = _places(count, height, width, plan.fraction, rng)
    patch, y, x = (place.to(frames.device) for place in drawn)
    newest = frames[:, 0]
    spots = [_spot((patch, y, x), step, height, width) for step in plan.kernel]
    hidden = torch.zeros_like(newest, dtype=torch.bool)
    for spot, _ in spots:
        hidden[spot] = True
    masked = newest.clone()
    for spot, inside in spots:
        target = (patch[inside], y[inside], x[inside])
        if plan.replacement == "median":
            masked[spot] = _median_around(newest, spot)
        else:
            masked[spot] = _random_around(newest, target, hidden, plan, rng)
    return torch.cat([masked[:, None], frames[:, 1:]], dim=1), (patch, y, x)


def _spot(places: Places, step: tuple[int, int], height: int, width: int) -> tuple[Places, Tensor]:
    """Return the places one step on, and for which of `places` it is inside of the patch."""
    patch, y, x = places
    ys, xs = y + step[0], x + step[1]
    inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
    return (patch[inside], ys[inside], xs[inside]), inside


def hidden_pixels(
    network: MaskedPrior, frames: Tensor, plan: MaskPlan, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide pixels of (N, planes, Y, X); return all planes there, (M, planes), and the outputs."""
    masked, places = hide(frames, plan, rng)
    patch, y, x = places
    return frames[patch, :, y, x], network.at(masked, places)


def _places(
    count: int, height: int, width: int, fraction: float, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    # One pixel per box at a random place in it: hidden pixels are spread, not clumped.
    # Every patch has one, however few are wanted.
    box = min(math.ceil(fraction**-0.5 - 1e-9), height, width)
    rows, columns = -(-height // box), -(-width // box)
    # Chance is drawn on the CPU, so that a seed means the same on every device.
    dy = torch.randint(box, (count, rows, columns), generator=rng)
    dx = torch.randint(box, (count, rows, columns), generator=rng)
    y = dy + box * torch.arange(rows)[None, :, None]
    x = dx + box * torch.arange(columns)[None, None, :]
    patch = torch.arange(count)[:, None, None].expand_as(y)
    inside = (y < height) & (x < width)
    return patch[inside], y[inside], x[inside]


def _random_around(
    newest: Tensor, target: Places, hidden: Tensor, plan: MaskPlan, rng: torch.Generator
) -> Tensor:
    """Return values from around the pixels that will be predicted, of pixels that are not hidden.

    What is hidden near another such pixel may share its noise; a few draws avoid that.
    """
    patch, y, x = target
    steps = _outside(plan).to(y.device)
    ys, xs = torch.empty_like(y), torch.empty_like(x)
    again = torch.ones_like(y, dtype=torch.bool)
    for _ in range(DRAWS):
        drawn = steps[torch.randint(len(steps), (len(y),), generator=rng).to(y.device)]
        ys = torch.where(again, _inside(y, drawn[:, 0], newest.shape[1]), ys)
        xs = torch.where(again, _inside(x, drawn[:, 1], newest.shape[2]), xs)
        again = hidden[patch, ys, xs]
        if len(plan.kernel) == 1:
            break
    return newest[patch, ys, xs]


def _outside(plan: MaskPlan) -> Tensor:
    """Return the offsets (S, 2) around a pixel that are not hidden with it."""
    rows, columns = (REACH + far for far in plan.reach)
    hidden = set(plan.kernel)
    return torch.tensor(
        [
            (dy, dx)
            for dy in range(-rows, rows + 1)
            for dx in range(-columns, columns + 1)
            if (dy, dx) not in hidden
        ]
    )


def _inside(place: Tensor, step: Tensor | int, length: int) -> Tensor:
    # Beyond the border, step the other way: a mirror at the border would lead back to the pixel.
    there = place + step
    return torch.where((there < 0) | (there >= length), place - step, there)


_AROUND = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if (dy, dx) != (0, 0)]


def _median_around(newest: Tensor, spot: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    patch, y, x = spot
    around = torch.stack(
        [
            newest[patch, _inside(y, dy, newest.shape[1]), _inside(x, dx, newest.shape[2])]
            for dy, dx in _AROUND
        ]
    )  # (24, M)
    return around.median(dim=0).values
