"""What an adversarial training judges estimates by: a critic, its gradient's price, features.

Owns the critic and the two sources of features in which an estimate is compared with the truth:
those of the critic itself, which is trained here, and those of a VGG network whose weights a
person has. Sources: Gulrajani et al. 2017, arXiv:1704.00028; Larsen et al. 2016,
arXiv:1512.09300 (features of the network that judges); Simonyan & Zisserman 2015, arXiv:1409.1556.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import TrainingError

LEAK = 0.2
"""Of the critic's rectifiers, TomoGAN's."""
VGG_LAYERS = (64, 64, 0, 128, 128, 0, *(256,) * 4, 0, *(512,) * 4, 0, *(512,) * 4)
"""Of VGG-19 up to its last convolution, the one that TomoGAN compares; 0 halves the resolution."""
VGG_MEAN, VGG_SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pictures it was trained on, from 0 to 1."""
VGG_RANGE = (-1.0, 4.0)
"""Network units that are shown to it as 0 and 1."""


class Critic(nn.Module):
    """Says how much more a picture looks like a clean one, given the noisy frame.

    Parameters
    ----------
    width
        Channels of the first layer; doubled with each halving of the resolution.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [2, width, 2 * width, 4 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 3, padding=1),
                nn.LeakyReLU(LEAK),
                nn.Conv2d(fan_out, fan_out, 3, stride=2, padding=1),
                nn.LeakyReLU(LEAK),
            )
            for fan_in, fan_out in pairwise(widths)
        )
        self.head = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, pictures: Tensor, noisy: Tensor) -> Tensor:
        """Return a score for each of (N, 1, Y, X), (N,)."""
        scores: Tensor = self.head(self.features(pictures, noisy)[-1])
        return scores.mean(dim=(1, 2, 3))

    def features(self, pictures: Tensor, noisy: Tensor) -> list[Tensor]:
        """Return what each stage makes of a picture beside its noisy frame."""
        found = []
        x = torch.cat([pictures, noisy], dim=1)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], clean: Tensor, made: Tensor, rng: torch.Generator
) -> Tensor:
    """Return (‖∇ critic‖ − 1)² between clean and made pictures, on average.

    A critic whose gradient has the norm 1 measures the Wasserstein distance.
    """
    share = torch.rand(len(clean), 1, 1, 1, generator=rng).to(clean)
    between = (share * clean + (1 - share) * made).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    penalty: Tensor = ((norms - 1) ** 2).mean()
    return penalty


class VGGFeatures(nn.Module):
    """The last convolution of VGG-19, with weights from a file; they are not trained."""

    mean: Tensor
    scale: Tensor

    def __init__(self, weights: Path) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in VGG_LAYERS:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers[:-1])
        self.features.load_state_dict(_vgg_weights(weights, self.features.state_dict()))
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(VGG_MEAN)[:, None, None])
        self.register_buffer("scale", torch.tensor(VGG_SCALE)[:, None, None])

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features of grey pictures (N, 1, Y, X) in network units."""
        low, high = VGG_RANGE
        shown = ((pictures - low) / (high - low)).expand(-1, 3, -1, -1)
        return self.features((shown - self.mean) / self.scale)  # type: ignore[no-any-return]


def _vgg_weights(path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read weights as torchvision names them.

    Raises
    ------
    TrainingError
        If the file is none of that.
    """
    advice = "give the file that torchvision offers for vgg19 (vgg19-dcbb9e9d.pth)"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage provokes
        raise TrainingError(
            f"{path}: cannot be read as weights ({type(error).__name__}); {advice}"
        ) from error
    if not isinstance(found, dict):
        raise TrainingError(f"{path}: holds no weights by name; {advice}")
    named = {name: found.get(f"features.{name}") for name in wanted}
    odd: Sequence[str] = [
        name
        for name, value in named.items()
        if not isinstance(value, Tensor) or value.shape != wanted[name].shape
    ]
    if odd:
        raise TrainingError(f"{path}: has no fitting features.{odd[0]} of VGG-19; {advice}")
    return {name: value for name, value in named.items() if value is not None}
