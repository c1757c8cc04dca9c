"""Training gives way: to a live session at once, and to the morning at the end of its window.

Owns the hook that the training loop calls between steps. Who is live is told by
`storage.live_sessions`; what is not a step of training (reading, export) cannot ask, and is halted
from outside, by `supervision`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...storage.live_sessions import who_is_live
from ..working_clock import working_s
from .window import WindowEndedError

if TYPE_CHECKING:
    import torch

    from ..run import Run

logger = logging.getLogger(__name__)

ASK_EVERY_S = 0.25
SETTLED_S = 5.0
"""Without a session before training goes on: the next one often follows at once."""


class GiveWay:
    """Called between steps: waits while a session is live, and ends the run when time is up.

    Parameters
    ----------
    until
        `time.time()` at which the run has to stop; None for never.
    live
        Returns who is live, None if nobody is.
    settled_s
        For how long nobody may have been live before training goes on.
    tell
        Told when it waits, and when it goes on.

    Attributes
    ----------
    waited_s
        For how long it has stood still in all.
    """

    def __init__(
        self,
        until: float | None = None,
        *,
        live: Callable[[], str | None] = who_is_live,
        settled_s: float = SETTLED_S,
        tell: Callable[[str], None] = logger.info,
    ) -> None:
        self._until, self._live, self._settled_s = until, live, settled_s
        self._tell = tell
        self._asked = -ASK_EVERY_S
        self.waited_s = 0.0

    def __call__(self, run: Run, save: Callable[[], None]) -> None:
        """Wait if need be.

        Raises
        ------
        WindowEndedError
            If the time is up; the checkpoint is written.
        """
        now = time.monotonic()
        if now - self._asked < ASK_EVERY_S:
            return
        self._asked = now
        if self._is_over():
            save()
            raise self._ended()
        who = self._live()
        if who is not None:
            self._stand_still(run, save, who)

    def _stand_still(self, run: Run, save: Callable[[], None], who: str) -> None:
        import torch  # by now it is loaded; a night with nothing to train never does

        began, worked = time.monotonic(), working_s()
        self._tell(f"training gives way to a live session ({who})")
        save()
        device = run.workers.device
        move(run, torch.device("cpu"))
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the session's model wants the memory, too
        try:
            self.wait()
        finally:
            # While it is halted as a whole the budget's own clock stands still.
            run.schedule.leave_out(working_s() - worked)
            waited = time.monotonic() - began
            self.waited_s += waited
        move(run, device)
        self._tell(f"training goes on after {waited:.0f} s")

    def wait(self) -> None:
        """Return once nobody has been live for a while.

        Raises
        ------
        WindowEndedError
            If the time is up before.
        """
        free_since: float | None = None
        while free_since is None or time.monotonic() - free_since < self._settled_s:
            if self._is_over():
                raise self._ended()
            if self._live() is not None:
                free_since = None
            elif free_since is None:
                free_since = time.monotonic()
            time.sleep(ASK_EVERY_S)

    def _is_over(self) -> bool:
        return self._until is not None and time.time() >= self._until

    def _ended(self) -> WindowEndedError:
        return WindowEndedError(
            "the night's time is up before the training was done; it goes on from here next night"
        )


def move(run: Run, device: torch.device) -> None:
    """Let everything that a run computes with lie on `device`; nothing happens if it does."""
    import torch

    for player in run.players:
        player.network.to(device)
    run.average.to(device)
    run.best = {name: value.to(device) for name, value in run.best.items()}
    for optimizer in run.optimizers:
        for state in optimizer.state.values():
            moved = {name: v.to(device) for name, v in state.items() if torch.is_tensor(v)}
            state.update(moved)
