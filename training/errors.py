"""The exception family of training."""

from __future__ import annotations

from ..errors import QuietscopeError


class TrainingError(QuietscopeError, RuntimeError):
    """Training cannot start, go on or be exported."""


class TrainingDataError(TrainingError):
    """The recordings cannot teach a network: too small, constant, saturated, not finite."""


class ExportError(TrainingError):
    """The trained model cannot be exported, or the graph does not do what PyTorch does."""


class UnsuitedError(TrainingError):
    """The recordings are fit for training, and the method that was chosen is not fit for them.

    Parameters
    ----------
    message
        Says what was found.
    instead
        The method that is fit for them.
    """

    def __init__(self, message: str, *, instead: str) -> None:
        super().__init__(f"{message}; train with --algorithm {instead}")
        self.instead = instead
