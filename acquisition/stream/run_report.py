"""What a run came to: the counts, what ran, what went wrong, as `report.json` has it.

Owns the meaning of *complete* and the names of the figures. What is on the disk is counted by
whoever ends the run and handed in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Frames that can be read from the disk, counted there after everything was closed.

    Attributes
    ----------
    recorded
        In the raw stores; None where pycro-manager alone stores them.
    denoised
        In the denoised stores.
    """

    recorded: int | None
    denoised: int


@dataclass(frozen=True, slots=True, eq=False)
class RunReport:
    """The state of a run at one moment, and at its end what the disk holds.

    Attributes
    ----------
    counts
        By the names of `Accounting.result`.
    ran
        Models, provider and device, by the names of `ChannelDenoisers.result`.
    errors
        What went wrong, one line each.
    forced
        How models differ from the camera they were used with all the same.
    planned
        How many frames were to come; None where nobody said.
    has_models
        Whether anything was to be denoised.
    about
        Further figures, by the names that the report uses.
    on_disk
        None while the run lasts.
    """

    counts: Mapping[str, Any]
    ran: Mapping[str, Any]
    errors: Sequence[str] = ()
    forced: Sequence[str] = ()
    planned: int | None = None
    has_models: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)
    on_disk: OnDisk | None = None

    @property
    def complete(self) -> bool:
        """Whether all that was planned came, is on the disk, and has been denoised."""
        counts = self._counts_on_disk()
        delivered, recorded = counts["frames_delivered"], counts["frames_recorded"]
        done = counts["frames_denoised"] + counts["frames_without_model"]
        return (
            not self.errors
            and delivered > 0
            and delivered >= (self.planned or 0)
            and counts["frames_refused"] == counts["frames_missing"] == 0
            and recorded == delivered
            and (not self.has_models or done == recorded)
        )

    def result(self) -> dict[str, Any]:
        """Return everything by the names that reports and `--json` use."""
        return {
            **self._counts_on_disk(),
            "frames_planned": self.planned,
            **self.ran,
            "complete": self.complete,
            "errors": list(self.errors),
            "forced": list(self.forced),
            **self.about,
        }

    def _counts_on_disk(self) -> dict[str, Any]:
        counts = dict(self.counts)
        if self.on_disk is not None:
            counts["frames_denoised"] = self.on_disk.denoised
            if self.on_disk.recorded is not None:
                counts["frames_recorded"] = self.on_disk.recorded
        return counts
