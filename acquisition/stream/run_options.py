"""What a person asks of a run, before anything of it exists.

Owns the options that do not change during a run and the refusal of contradictions. What is known
of the camera is in `camera_state`, the models in `channel_denoisers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from ...storage.atomic_output import RESERVE_BYTES
from ..errors import AcquisitionError

Mode = Literal["tap", "sink"]
OnProgress = Callable[[int, int], None]


class RunState(Enum):
    """Where a run stands; the value is said in messages."""

    NEW = "before"
    RUNNING = "in"
    ENDED = "after"


@dataclass(frozen=True, slots=True)
class InMemory:
    """How many frames may be on their way to the disk: what a kill of the program takes along.

    Attributes
    ----------
    waiting
        In front of the recorder; then the hook waits, and Micro-Manager's own buffer fills.
    being_written
        At the same time.
    """

    waiting: int
    being_written: int

    @property
    def frames(self) -> int:
        """All of them, with the one that the recorder has in hand."""
        return self.waiting + self.being_written + 1


IN_MEMORY: dict[Mode, InMemory] = {
    # pycro-manager saves each frame as well, so what counts is that its thread never waits.
    "tap": InMemory(waiting=64, being_written=16),
    # Nobody else has the frame. Fewer writes at a time than this slow a fast disk down.
    "sink": InMemory(waiting=4, being_written=8),
}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; `LiveDenoiser` says what each option means.

    Raises
    ------
    AcquisitionError
        If they contradict each other.
    """

    mode: Mode = "tap"
    record: bool = True
    preview: bool = False
    force: bool = False
    overwrite: bool = False
    expected_frames: int | None = None
    reserve_bytes: int = RESERVE_BYTES
    complete_afterwards: bool = True
    raise_on_gap: bool = True
    on_progress: OnProgress | None = None
    planned_channels: tuple[str, ...] | None = None

    @property
    def in_memory(self) -> InMemory:
        """How many frames may be in memory before they are on the disk."""
        return IN_MEMORY[self.mode]

    def __post_init__(self) -> None:
        if self.mode not in ("tap", "sink"):
            raise AcquisitionError(f"mode is {self.mode!r}, expected 'tap' or 'sink'")
        if self.mode == "sink" and not self.record:
            raise AcquisitionError(
                "mode='sink' with record=False would throw every raw frame away; use mode='tap', "
                "or let it record"
            )
