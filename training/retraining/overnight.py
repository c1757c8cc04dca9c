"""The service in the foreground: every night, until it is stopped (APScheduler).

Owns its schedule. The clock's arithmetic is in `window`, what a night does in `service`; the
operating system's own job, which needs no terminal, is written by `scheduling`.
"""

from __future__ import annotations

import logging
from typing import Any

from ...errors import QuietscopeError
from ...reporting.console import say
from .night_record import NightRecord
from .service import Night, run_night, serving

logger = logging.getLogger(__name__)


def run_overnight(night: Night) -> NightRecord:
    """Make a night's rounds at every start of the window until the process is interrupted.

    Returns
    -------
    NightRecord
        The last night's.

    Raises
    ------
    QuietscopeError
        If the library is none, or is served already.
    KeyboardInterrupt
        If interrupted before a night was done.
    """
    scheduler, records = _scheduler(), []

    def one_night() -> None:
        try:
            record = run_night(night, say=say)
        except QuietscopeError as error:
            logger.exception("the night failed")
            say(f"this night failed: {error}")
            return
        if record is not None:
            records.append(record)
            say(record.headline())

    window = night.window
    scheduler.add_job(one_night, "cron", hour=window.start.hour, minute=window.start.minute)
    with serving(night.library):
        say(f"retraining every day at {window.start:%H:%M} until {window.end:%H:%M}; Ctrl+C ends")
        try:
            scheduler.start()
        except (KeyboardInterrupt, SystemExit):
            if not records:
                raise
    return records[-1]


def _scheduler() -> Any:
    from apscheduler.schedulers.blocking import BlockingScheduler

    # A round that runs into the next start is not doubled; a computer that slept catches up once.
    return BlockingScheduler(
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600}
    )
