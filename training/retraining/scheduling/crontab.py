"""A job of cron, where there is no systemd: two lines of the user's table.

Owns these lines, and how they come into the table and out of it; all others stay as they are. cron
forgets what it missed, so the job is started after a reboot as well, and leaves at once outside of
its window.
"""

from __future__ import annotations

import shlex

from .job import MARK, Job, Plan, Step

READ = Step(("crontab", "-l"))
NO_TABLE = ("no crontab", "no such file")
"""In what programs of cron say, in lower case, where a user has none yet."""


def lines(job: Job, command: list[str]) -> list[str]:
    """Return the lines of the table."""
    # To cron a percent sign ends the command, quoted or not (crontab(5)).
    line = shlex.join(command).replace("%", "\\%")
    return [
        f"{_mark(job)} {MARK}",
        f"{job.at.minute} {job.at.hour} * * * {line} {_mark(job)}",
        f"@reboot {line} {_mark(job)}",
    ]


def _mark(job: Job) -> str:
    return f"# {job.name}:"


def without(table: str, job: Job) -> str:
    """Return the table without the job's lines."""
    # By line feeds alone: to cron a form feed, or whatever else Unicode ends a line with, is text.
    lines = table.removesuffix("\n").split("\n") if table else []
    kept = [line for line in lines if _mark(job) not in line]
    return "".join(f"{line}\n" for line in kept)


def holds(table: str, job: Job) -> bool:
    """Whether the job stands in the table."""
    return _mark(job) in table


def installation(job: Job, table: str) -> Plan:
    """Return how the job is set up in a table."""
    new = without(table, job) + "".join(f"{line}\n" for line in lines(job, job.command()))
    return Plan(steps=(Step(("crontab", "-"), given=new),))


def removal(job: Job, table: str) -> Plan:
    """Return how the job is taken out of a table."""
    if not holds(table, job):
        return Plan()
    return Plan(steps=(Step(("crontab", "-"), given=without(table, job)),))
