"""A job of launchd, on macOS: an agent of the user.

Owns its property list and how it is made known. launchd starts a night late that the computer
slept through; one that it was switched off for is begun at the next login if there is still time
(`RunAtLoad`: the job leaves at once outside of its window).
"""

from __future__ import annotations

import plistlib
from pathlib import Path

from .job import MARK, Job, Plan, Step


def label(job: Job) -> str:
    """Return the job's name among all of the system's."""
    return f"org.quietscope.{job.name}"


def property_list(job: Job, command: list[str]) -> bytes:
    """Return the agent's file."""
    return plistlib.dumps(
        {
            "Label": label(job),
            "ProgramArguments": command,
            "StartCalendarInterval": {"Hour": job.at.hour, "Minute": job.at.minute},
            "RunAtLoad": True,
            "ProcessType": "Background",
            "LowPriorityIO": True,
            "Nice": 10,
            "EnvironmentVariables": {"QUIETSCOPE_JOB": MARK},
        },
        sort_keys=False,
    )


def installation(job: Job, folder: Path, *, uid: int) -> Plan:
    """Return how the job is set up; `folder` is that of the user's agents."""
    file = folder / f"{label(job)}.plist"
    return Plan(
        files={file: property_list(job, job.command())},
        steps=(
            Step(("launchctl", "bootout", f"gui/{uid}/{label(job)}"), may_fail=True),
            Step(("launchctl", "bootstrap", f"gui/{uid}", str(file))),
        ),
        remarks=("nights are left out while you are logged out: macOS ends a user's agents then",),
    )


def removal(job: Job, folder: Path, *, uid: int) -> Plan:
    """Return how the job is taken away."""
    return Plan(
        steps=(Step(("launchctl", "bootout", f"gui/{uid}/{label(job)}"), may_fail=True),),
        doomed=(folder / f"{label(job)}.plist",),
    )


def inquiry(job: Job, *, uid: int) -> Step:
    """Return the command that succeeds if the job is there."""
    return Step(("launchctl", "print", f"gui/{uid}/{label(job)}"))
