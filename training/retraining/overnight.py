"""The service in the foreground: every night, until it is stopped (APScheduler).

Owns its schedule. Several libraries have their nights one after the other. The clock's arithmetic
is in `window`, what a night does in `service`; the operating system's own job, which needs no
terminal, is written by `scheduling`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import QuietscopeError, one_line
from ...reporting.console import say
from .night_record import NightRecord
from .service import Night, run_night, serving
from .several import all_served

logger = logging.getLogger(__name__)


def run_overnight(nights: Sequence[Night]) -> dict[Path, NightRecord]:
    """Make a night's rounds at every start of the window until the process is interrupted.

    Parameters
    ----------
    nights
        Of one library each, in one window; one after the other, which share its time.

    Returns
    -------
    dict
        Each library's last night.

    Raises
    ------
    QuietscopeError
        If none is a library, or all are served already.
    KeyboardInterrupt
        If interrupted before a night was done.
    """
    scheduler = _scheduler()
    records: dict[Path, NightRecord] = {}
    window = nights[0].window
    by_library = {night.library: night for night in nights}
    with all_served(list(by_library), serving, say) as ours:

        def one_night() -> None:
            for number, library in enumerate(ours):
                record = _night(by_library[library], share=1 / (len(ours) - number))
                if record is not None:
                    records[library] = record
                    about = f"{library}: " if len(ours) > 1 else ""
                    say(about + record.headline())

        scheduler.add_job(one_night, "cron", hour=window.start.hour, minute=window.start.minute)
        say(f"retraining every day at {window.start:%H:%M} until {window.end:%H:%M}; Ctrl+C ends")
        try:
            scheduler.start()
        except (KeyboardInterrupt, SystemExit):
            if not records:
                raise
    return records


def _night(night: Night, *, share: float) -> NightRecord | None:
    try:
        return run_night(night, say=say, share=share)
    except (QuietscopeError, OSError) as error:  # the other libraries have their nights
        logger.exception("the night failed")
        say(f"this night of {night.library} failed: {one_line(error)}")
        return None


def _scheduler() -> Any:
    from apscheduler.schedulers.blocking import BlockingScheduler

    # A round that runs into the next start is not doubled; a computer that slept catches up once.
    return BlockingScheduler(
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600}
    )
