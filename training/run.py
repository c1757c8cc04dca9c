"""One training run: what moves while it goes on, and what is left of it.

Owns the state and nothing that is done with it: `train` steps, `checkpoint` keeps it, `output`
writes what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ..calibration.noise_correlation import NoiseCorrelation
from ..inference.bundle import Bundle
from .device import Workers
from .errors import TrainingError
from .methods.learner import Learner, Player
from .model.network import Network
from .options import TrainingOptions
from .schedule import Schedule

OVERFITTED_NATS = 0.005
"""By how much a score has to be worse than the best to count as worse: half a percent of the
likelihood, more than scores scatter."""


@dataclass(frozen=True, slots=True)
class LossRow:
    """One row of losses.csv."""

    step: int
    seconds: float
    loss: float
    validation_loss: float


@dataclass(slots=True)
class Run:
    """The moving parts of one run."""

    options: TrainingOptions
    """With what the method chose by the recordings."""
    workers: Workers
    learner: Learner
    optimizers: list[Optimizer]
    """One for each of `players`."""
    average: AveragedModel
    """Of the network's weights: what is validated and, in the end, exported."""
    schedule: Schedule
    players: Sequence[Player] = ()
    """Whose weights a step changes, in this order; the last is the learner's network."""
    noise_correlation: NoiseCorrelation | None = None
    """Of the recordings."""
    step: int = 0
    losses: list[LossRow] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The averaged weights that predicted held-out frames best."""
    recent: list[float] = field(default_factory=list)
    """Losses since the last validation."""
    bad_steps: int = 0
    teacher: dict[str, Any] | None = None
    """`weights` and `steps` of the network that was trained first; None where there is none."""

    def progress(self) -> float:
        """Return the share of the budget that is used, the same in every worker."""
        return self.workers.agreed(self.schedule.progress(self.step))

    @property
    def best_score(self) -> float:
        """The least loss on held-out frames."""
        return min((row.validation_loss for row in self.losses), default=float("inf"))

    @property
    def averaged_network(self) -> Network:
        """The network with the averaged weights."""
        return cast("Network", self.average.module)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the learner use the averaged weights for the length of the block."""
        live = self.learner.network
        self.learner.network = self.averaged_network
        try:
            yield
        finally:
            self.learner.network = live


BetweenSteps = Callable[[Run, Callable[[], None]], None]
"""Called with a run before each of its steps, and with what writes its checkpoint."""


def go_on(run: Run, save: Callable[[], None]) -> None:
    """Take the next step: nobody else wants the computer."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished run and the bundle it wrote."""

    bundle: Bundle
    steps: int
    seconds: float
    parameters: int
    parity_max_relative_error: float
    validation_loss: float | None
    frames: int
    resident_frames: int
    peak_rss_mb: float
    verdict: str
    """On the model against its input and a blur, in a sentence."""

    def result(self) -> dict[str, Any]:
        """Return the JSON object of the `train` command."""
        manifest = self.bundle.manifest
        return {
            "out": str(self.bundle.path),
            "algorithm": manifest.algorithm,
            "preset": manifest.preset,
            "context_frames": manifest.context_frames,
            "planes": manifest.planes,
            "other_channels": list(manifest.other_channels),
            "pixel_type": manifest.pixel_type,
            "noise_model": manifest.noise_model,
            "model_sha256": self.bundle.model_sha256,
            "steps": self.steps,
            "seconds": self.seconds,
            "parameters": self.parameters,
            "parity_max_relative_error": self.parity_max_relative_error,
            "validation_loss": self.validation_loss,
            "frames": self.frames,
            "resident_frames": self.resident_frames,
            "peak_rss_mb": self.peak_rss_mb,
            "figures": manifest.figures,
            "verdict": self.verdict,
            "better_than_trivial": manifest.better_than_trivial,
            "accepted": manifest.accepted,
            "noise": manifest.noise,
            "noise_is_removed": manifest.noise_is_removed,
        }


def in_one_process(result: TrainingResult | None) -> TrainingResult:
    """Return the result of a run that must not be one of several processes.

    Raises
    ------
    TrainingError
        If this process only helped under torchrun.
    """
    if result is None:
        raise TrainingError("this command takes no torchrun; start it without, or use train")
    return result
