"""The general model's network, in units in which every camera is alike.

Owns the way from camera pixels to the estimate: photoelectrons, the variance-stabilising root, the
running sum of earlier frames, the network, and the way back. Few numbers say which camera it is
(offset, gain, read variance); in the exported graph they are constants that `inference.general`
sets, so that one file serves every camera.

The root is the generalised Anscombe transform (Starck, Murtagh & Bijaoui 1998,
doi:10.1017/CBO9780511564352). Its algebraic inverse is biased at few photons (Mäkitalo & Foi 2011,
doi:10.1109/TIP.2010.2056693); here the network is trained on the error of the signal itself, after
the inverse, and so learns what makes it unbiased.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...inference.general.shipped import shipped_weights
from ..options import NetworkPlan
from .masking import reflected
from .unet import UNet

MOST_CONTEXT = 4
"""Preceding frames that the network was shown; fewer may be there."""
PLAN = NetworkPlan(width=32, depth=2, outer_convolutions=1)
SHRINK = 2
"""Pixels are taken 2×2 at a time: a quarter of the operations, the same receptive field."""
STRIDE = SHRINK * 2**PLAN.depth
PLANES = 2 * SHRINK**2 + 3
UNIT = 8.0
"""What roots are divided by: about the noise of a smoothed image to the noise of a pixel."""
BRIGHTEST_ROOT = 100.0
"""Of 2,500 photoelectrons: brighter light differs in nothing that the network has to know."""
LEAST_VARIANCE_E2 = 0.1
CHANGE_Z_NARROW, CHANGE_Z_WIDE = 4.5, 3.9
"""Standard deviations by which 2×2 and 6×6 pixels differ where something changed: chance alone
resets one place in 150,000 and in 10,000."""
ALIKE_EDGE, ALIKE_Z = 7, 4.0
"""2×2 blocks across over which neighbours differ alike where something moved, and by how many
standard deviations of what chance does."""
NOISY_PIXEL = 2.0
"""Variance of a pixel over that of the others from which on it is drawn towards them."""
_ANSCOMBE = 3 / 8


def shipped_state() -> dict[str, Tensor]:
    """Return the weights that ship with the program, as a `GeneralNetwork` takes them.

    Raises
    ------
    BundleError
        If their file is missing, damaged or another one.
    """
    return {name: torch.from_numpy(values) for name, values in shipped_weights().items()}


class GeneralNetwork(nn.Module):
    """Photoelectrons of a frame and of those before it; mean and deviation of the signal out."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet(PLANES, 2 * SHRINK**2, PLAN)

    def forward(self, frames: Tensor, there: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the signal, (N, 1, Y, X) e⁻.

        Parameters
        ----------
        frames
            (N, 1 + T, Y, X) photoelectrons, newest first; Y and X multiples of STRIDE.
        there
            (N, T, 1, 1): 1 for each preceding frame that is there, 0 for the others.
        read
            (N, 1, 1, 1) or (N, 1, Y, X): variance that does not come from light, e⁻².
        """
        pooled, most, short = running_sum(frames, there, read)
        read = most * read
        root = stabilised(most * pooled, read)
        level = local_level(root)
        planes = [
            (_shrunk(root) - level) / UNIT,
            _shrunk(torch.log1p(read).expand_as(root)),
            level.clamp_max(BRIGHTEST_ROOT) / UNIT,
            1 / (1 + level),
            short,
        ]
        answer = functional.pixel_shuffle(self.network(torch.cat(planes, dim=1)), SHRINK)
        estimate = (root + UNIT * answer[:, :1]).clamp_min(0)
        mean = (estimate / 2) ** 2 - _ANSCOMBE - read
        noise = (mean.detach().clamp_min(0) + read + LEAST_VARIANCE_E2).sqrt()
        return mean / most, noise * torch.exp(answer[:, 1:].clamp(-6, 3) - 1) / most


def running_sum(frames: Tensor, there: Tensor, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of the frames in which each place did not change.

    The network sees it times the number of frames that are there: where nothing changed these are
    the photons of a longer exposure, and no different from those of one bright frame. Where
    something did, there are fewer frames in the mean, and by how many it is told.

    Returns
    -------
    pooled
        (N, 1, Y, X) photoelectrons per frame.
    most
        (N, 1, 1, 1), or (1, 1, 1, 1), frames that are there, the newest one among them.
    short
        (N, 1, Y/2, X/2): share of them that is left out.
    """
    newest = frames[:, :1]
    if frames.shape[1] == 1:
        zeros = torch.zeros_like(newest[:, :, ::SHRINK, ::SHRINK])
        return newest, newest.new_ones(1, 1, 1, 1), zeros
    roots = stabilised(frames, read)
    kept = unchanged(roots[:, :1], roots[:, 1:], there)  # (N, T, Y/2, X/2)
    count = 1 + kept.sum(dim=1, keepdim=True)
    most = 1 + there.sum(dim=1, keepdim=True)
    summed = newest + (frames[:, 1:] * _enlarged(kept)).sum(dim=1, keepdim=True)
    return summed / _enlarged(count), most, 1 - count / most


def stabilised(photoelectrons: Tensor, read: Tensor) -> Tensor:
    """Return the generalised Anscombe root, in which noise has about unit variance."""
    return 2 * (photoelectrons + _ANSCOMBE + read).clamp_min(0).sqrt()


def without_noisy_pixels(
    photoelectrons: Tensor, read: Tensor, of_pixels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return frames, and read variances, in which no pixel is far noisier than those around it.

    In units of its own noise a hot pixel shows next to nothing of the signal, and the network
    would see a hole. It is drawn towards the mean around it, weighted by how little noise there
    is, until it has no more than twice the variance of the others; from there on it counts as one
    of them.

    Parameters
    ----------
    photoelectrons
        (N, 1 + T, Y, X).
    read
        (1, 1, 1, 1): of the camera on the whole, e⁻².
    of_pixels
        (1, 1, Y, X): of each pixel.
    """
    weight = 1 / (1 + of_pixels)
    around = functional.avg_pool2d(photoelectrons * weight, 5, stride=1, padding=2)
    around = around / functional.avg_pool2d(weight, 5, stride=1, padding=2)
    light = around.clamp_min(0) + LEAST_VARIANCE_E2
    share = (NOISY_PIXEL * (light + read) / (light + of_pixels)).clamp_max(1)
    drawn = share * photoelectrons + (1 - share) * around
    return drawn, torch.where(share[:, :1] < 1, read, of_pixels)


def unchanged(root: Tensor, before: Tensor, there: Tensor) -> Tensor:
    """Return where each preceding frame still shows what the newest shows.

    A frame counts up to the first, going back, in which the place differs significantly, alone,
    with what is around it, or as what moves does: there the running sum begins anew.

    Parameters
    ----------
    root
        (N, 1, Y, X), stabilised.
    before
        (N, T, Y, X), stabilised, newest first.
    there
        (N, T, 1, 1), 0 where no frame is.

    Returns
    -------
    (N, T, Y/2, X/2), 1 or 0.
    """
    z = functional.avg_pool2d(root - before, SHRINK) * (SHRINK / 2**0.5)
    around = functional.avg_pool2d(z, 3, stride=1, padding=1) * 3
    change = torch.maximum(z.abs() / CHANGE_Z_NARROW, around.abs() / CHANGE_Z_WIDE)
    change = functional.max_pool2d(change, 3, stride=1, padding=1)
    change = torch.maximum(change, _alike(z) / ALIKE_Z)
    same = (change < 1).to(root.dtype) * there
    kept = [same[:, :1]]
    for back in range(1, before.shape[1]):
        # A frame that is not there ends nothing: those before it may be.
        missing = 1 - there[:, back - 1 : back]
        kept.append(same[:, back : back + 1] * torch.maximum(kept[-1], missing))
    return torch.cat(kept, dim=1)


def _alike(z: Tensor) -> Tensor:
    """Return how surely neighbouring blocks differ alike, in standard deviations.

    What drifts is brighter on one side and darker on the other: the mean difference is none, but
    each block's is that of the block beside it. The products of neighbours are 0 on average where
    nothing but noise differs, however strong it is: a noise model that is wrong by some percent
    stops nothing, as it would by the sum of squares.

    Parameters
    ----------
    z
        (N, T, Y, X): differences of blocks, of unit variance.
    """
    beside = _mean_over(z, (1, 3)) + _mean_over(z, (3, 1))
    products = z * (3 * beside - 2 * z)  # with all four; each pair is counted twice
    around = _mean_over(_mean_over(products, (1, ALIKE_EDGE)), (ALIKE_EDGE, 1))
    return around * (ALIKE_EDGE / 8**0.5)


def _mean_over(planes: Tensor, edges: tuple[int, int]) -> Tensor:
    return functional.avg_pool2d(planes, edges, stride=1, padding=(edges[0] // 2, edges[1] // 2))


def local_level(root: Tensor) -> Tensor:
    """Return what is around each 2×2 pixels, smoothed: the network sees differences from it."""
    small = functional.avg_pool2d(root, SHRINK)
    padded = functional.pad(small, (4, 4, 4, 4), mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(padded, 5, stride=1), 5, stride=1)


def _shrunk(planes: Tensor) -> Tensor:
    return functional.pixel_unshuffle(planes, SHRINK)


def _enlarged(planes: Tensor) -> Tensor:
    return functional.interpolate(planes, scale_factor=float(SHRINK), mode="nearest")


class GeneralEstimator(nn.Module):
    """Camera pixels in; the signal and its standard deviation in ADU out.

    Parameters
    ----------
    network
        Trained.
    """

    def __init__(self, network: GeneralNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, observations: Tensor, camera: Tensor, pixel_maps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return `denoised` and `uncertainty`, (N, 1, Y, X) ADU.

        Parameters
        ----------
        observations
            (N, 1 + T, Y, X) ADU, newest first; a frame of zeros is missing.
        camera
            (3,): offset in ADU, gain in ADU/e⁻ and read variance in e⁻². An argument, so that no
            exporter folds them into what follows; `inference.general` makes them constants.
        pixel_maps
            (1, 3, Y, X) of `PixelMaps.correction`, where the pixels differ.
        """
        height, width = observations.shape[2:]
        offset, gain, read = camera.reshape(3, 1, 1, 1, 1)
        whole = reflected(observations.to(torch.float32), STRIDE)
        there = (whole[:, 1:].amax(dim=(2, 3), keepdim=True) > 0).to(torch.float32)
        if pixel_maps is None:
            frames = (whole - offset) / gain
        else:
            maps = reflected(pixel_maps, STRIDE)
            frames = (whole * maps[:, :1] + maps[:, 1:2] - offset) / gain
            frames, read = without_noisy_pixels(frames, read, read * torch.exp(maps[:, 2:]))
        mean, deviation = self.network(frames, there, read)
        denoised = mean * gain + offset
        uncertainty = deviation * gain
        return denoised[:, :, :height, :width], uncertainty[:, :, :height, :width]
