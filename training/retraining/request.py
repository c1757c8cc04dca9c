"""How rounds of retraining are to be made.

Owns the choices of whoever asks for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..options import TrainingOptions

if TYPE_CHECKING:  # a night that has nothing to train never imports torch
    from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
    from ..progress import TrainingProgress
    from ..run import BetweenSteps

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """How rounds are to be made; see `retrain_once`.

    Attributes
    ----------
    since_last
        Leave a slot alone of which nothing is new since its last training, whatever became of it;
        otherwise since the model in use was trained. And begin from scratch now and then.
    """

    seconds: float | None = None
    steps: int | None = None
    options: TrainingOptions | None = None
    noise_model: GaussianMixtureNoiseModel | None = None
    since_last: bool = False
    between_steps: BetweenSteps | None = None
    on_progress: Callable[[TrainingProgress], None] | None = None
    on_remark: Callable[[str], None] | None = None

    def remark(self, line: str) -> None:
        """Tell a person, or the log."""
        (self.on_remark or logger.info)(line)
