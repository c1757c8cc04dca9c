"""What a person decides about a training run, and the network presets.

Owns the choices and their refusal; knows nothing about data or torch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from ..inference.bundle import Preset
from .errors import TrainingError
from .mask_kernel import MEASURED, offsets_of
from .registry import METHODS, TEACHERS

AUTO = "auto"
"""Chosen by the noise of the recordings."""
MaskAxis = Literal["x", "y"]
SampledNetwork = Literal["lattice", "n2v", "n2v2"]


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """The size of a U-Net.

    Attributes
    ----------
    width
        Channels of the first level. Multiples of 16: ONNX Runtime's CPU
        convolutions run at a third of the machine's rate otherwise.
    depth
        How often the resolution is halved.
    outer_convolutions
        Convolutions in each of the two blocks at the network's own resolution, where a convolution
        costs most; the other blocks have two.
    growth
        How many times as many channels the next level down has: a level down a convolution costs a
        quarter.
    """

    width: int
    depth: int
    outer_convolutions: int = 2
    growth: int = 2


PLANS: dict[Preset, NetworkPlan] = {
    "fast": NetworkPlan(width=16, depth=1, outer_convolutions=1),
    "live": NetworkPlan(width=16, depth=2, outer_convolutions=1),
    "best": NetworkPlan(width=32, depth=2),
}
"""Of networks that work at the resolution of the frame."""

LATTICE_PLANS: dict[Preset, NetworkPlan] = {
    **PLANS,
    "live": NetworkPlan(width=16, depth=1, outer_convolutions=1, growth=4),
}
"""Of those that work at a third of it, and so see thrice as far: what a second halving costs is
worth more spent on channels. `benchmarks/training_pareto.py` compares."""


@dataclass(frozen=True, slots=True)
class InputPlanes:
    """What a network is given besides the newest frame, in this order.

    Attributes
    ----------
    context_frames
        T frames of the same channel that came before.
    other_channels
        C frames of other channels.
    planes
        Z planes of the z-stack on either side, which come between those two.
    pixel_maps
        Whether a plane follows that says how noisy each pixel of the camera is.
    around
        Planes of what was before and after, as means over longer and longer times; they come after
        those of the z-stack.
    target
        How many last planes, which the network is not given, hold what it is to predict.
    """

    context_frames: int = 0
    other_channels: int = 0
    pixel_maps: bool = False
    target: int = 0
    planes: int = 0
    around: int = 0

    @property
    def further(self) -> int:
        """Planes in all that the network is given, without the newest frame."""
        return self.frames - 1 + self.pixel_maps

    @property
    def frames(self) -> int:
        """Planes that hold frames it is given, the newest among them; they come first."""
        return self.own_frames + self.other_channels

    @property
    def own_frames(self) -> int:
        """Planes that hold frames of the channel itself; they come first."""
        return 1 + self.context_frames + 2 * self.planes + self.around


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """The choices of one training run; the defaults suit most recordings.

    Attributes
    ----------
    algorithm
        How the network is kept from seeing its target; see `docs/training.md`. `auto` chooses by
        the noise of the recordings.
    preset
        Size of the network.
    context_frames
        T preceding frames as further input.
    planes
        Z neighbouring planes on either side in a z-stack as further input.
    other_channels
        Names or numbers of other channels, whose newest frames are further input.
    pixel_maps
        Whether each pixel of the camera counts as its own where the noise model has maps.
    seconds, steps
        The budget: wall time of the whole run including export, or optimiser steps. Exactly one
        may be given; without either the run takes `DEFAULT_SECONDS`.
    seed
        With `steps`, the same seed gives the same model on the same machine.
    resume
        Continue from the checkpoint that a killed run left.
    batch, patch
        Patches per step and their edge in pixels; None takes the algorithm's own.
    learning_rate
        Peak of the cosine schedule; None takes the algorithm's own.
    masked_pixel_fraction
        Share of pixels masked per step (n2v family only). N2V's authors mask 0.2 %; the network
        learns from the masked pixels alone, and from 4 % of them it learns faster and better.
    mask_axis, mask_span
        structn2v: the axis along which noise is correlated and how far, in pixels; None measures.
    mask_kernel
        structn2v: the pixels that are hidden together, as `mask_kernel.offsets_of` reads them; or
        `measured`. None measures as well, and takes a line where that holds what is shared.
    samples
        pn2v: how many samples of the signal the network predicts per pixel.
    samples_from
        pn2v: the network that samples: blind to the pixel (`lattice`), or masked as the authors'
        (`n2v`), or masked and free of the checkerboard (`n2v2`).
    posterior_samples
        divnoising, hdn: how many samples from the posterior the exported graph averages.
    perceptual_weights
        tomogan: file of VGG-19's weights; None compares features of a network trained here.
    loss
        Of methods that have several; None takes the method's first.
    memory_mib
        Frames kept in memory at a time.
    begun_with
        In words, the model whose weights are the first ones; None: they are drawn.
    """

    algorithm: str = "lattice"
    preset: Preset = "live"
    context_frames: int = 0
    planes: int = 0
    other_channels: tuple[str, ...] = ()
    pixel_maps: bool = True
    seconds: float | None = None
    steps: int | None = None
    seed: int = 0
    resume: bool = False
    batch: int = 16
    patch: int | None = None
    learning_rate: float | None = None
    masked_pixel_fraction: float = 0.04
    mask_axis: MaskAxis | None = None
    mask_span: int | None = None
    mask_kernel: str | None = None
    samples: int = 32
    samples_from: SampledNetwork = "lattice"
    posterior_samples: int = 8
    perceptual_weights: str | None = None
    loss: str | None = None
    memory_mib: int = 1024
    begun_with: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        _require_one_of([*METHODS, *TEACHERS, AUTO], "algorithm", self.algorithm)
        _require_one_of(get_args(SampledNetwork), "samples_from", self.samples_from)
        _require_one_of(PLANS, "preset", self.preset)
        if self.seconds is not None and self.steps is not None:
            raise TrainingError("both --minutes and --steps were given; give one budget only")
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # not a number is neither
                end = f"at least {least}" if value < least else f"at most {most}"
                raise TrainingError(f"{name} is {value}, expected {end}")
        if self.mask_kernel is not None and self.mask_kernel != MEASURED:
            offsets_of(self.mask_kernel)
        if self.mask_kernel and (self.mask_axis or self.mask_span):
            raise TrainingError(
                "both --mask-kernel and --mask-axis or --mask-span were given; give one of them"
            )
        if self.patch is not None and self.patch % 16:
            raise TrainingError(f"patch is {self.patch} pixels, expected a multiple of 16")

    @property
    def plan(self) -> NetworkPlan:
        """The network that the preset stands for."""
        return PLANS[self.preset]

    @property
    def lattice_plan(self) -> NetworkPlan:
        """The same for a network that works on sub-lattices of the frame."""
        return LATTICE_PLANS[self.preset]

    def record(self) -> dict[str, str | int | float | bool | None]:
        """Return the choices as they are stored with the model."""
        return asdict(self) | {"other_channels": ", ".join(self.other_channels)}


DEFAULT_SECONDS = 600.0
MOST_CONTEXT_FRAMES = 16
MOST_PLANES = 8
MOST_SECONDS = 30 * 24 * 3600.0
_LIMITS: dict[str, tuple[float, float]] = {
    "context_frames": (0, MOST_CONTEXT_FRAMES),
    "planes": (0, MOST_PLANES),
    "seconds": (1.0, MOST_SECONDS),
    "steps": (1, 10**9),
    "seed": (0, 2**63 - 1),
    "batch": (1, 4096),
    "patch": (32, 4096),
    "learning_rate": (1e-7, 1e30),
    "masked_pixel_fraction": (1e-4, 0.5),
    "mask_span": (1, 64),
    "samples": (2, 1024),
    "posterior_samples": (2, 1024),
    "memory_mib": (16, 2**24),
}
"""Beyond which nothing is learned, or no memory holds it."""


def _require_one_of(known: Collection[str], name: str, value: object) -> None:
    if value not in known:
        raise TrainingError(f"{name} is {value!r}, expected one of {', '.join(known)}")
