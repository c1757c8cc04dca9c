"""A job of Windows' Task Scheduler.

Owns the XML of the task (schema http://schemas.microsoft.com/windows/2004/02/mit/task, version
1.2) and how it is made known, through `schtasks`. The task runs as the user, logged on or not, and
keeps no password (S4U), so it cannot reach shares that ask for one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from xml.etree import ElementTree

from .job import Job, Plan, Step

NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
FOLDER = "quietscope"
LONGEST = "P1D"
"""Beyond which Windows itself ends the night: the job ends long before."""

Tree = Mapping[str, "str | Tree"]


def task_xml(job: Job, command: Sequence[str], *, user: str, first: date) -> bytes:
    """Return the task as `schtasks /Create /XML` takes it: UTF-16 with its mark."""
    program, *arguments = command
    ElementTree.register_namespace("", NAMESPACE)
    task = ElementTree.Element(f"{{{NAMESPACE}}}Task", {"version": "1.2"})
    _fill(
        task,
        {
            "RegistrationInfo": {"Description": job.description},
            "Triggers": {
                "CalendarTrigger": {
                    "Enabled": "true",
                    "StartBoundary": datetime.combine(first, job.at).isoformat(),
                    "ScheduleByDay": {"DaysInterval": "1"},
                }
            },
            "Principals": {
                "Principal": {"UserId": user, "LogonType": "S4U", "RunLevel": "LeastPrivilege"}
            },
            "Settings": {
                "MultipleInstancesPolicy": "IgnoreNew",
                "DisallowStartIfOnBatteries": "true",
                "StopIfGoingOnBatteries": "false",
                "AllowHardTerminate": "true",
                "StartWhenAvailable": "true",
                "RunOnlyIfNetworkAvailable": "false",
                "AllowStartOnDemand": "true",
                "Enabled": "true",
                "Hidden": "false",
                "RunOnlyIfIdle": "false",
                "WakeToRun": "false",
                "ExecutionTimeLimit": LONGEST,
                "Priority": "7",
            },
            "Actions": {
                "Exec": {"Command": program, "Arguments": subprocess.list2cmdline(arguments)}
            },
        },
    )
    for principal in task.iter(f"{{{NAMESPACE}}}Principal"):
        principal.set("id", "Author")
    for actions in task.iter(f"{{{NAMESPACE}}}Actions"):
        actions.set("Context", "Author")
    ElementTree.indent(task)
    text = '<?xml version="1.0" encoding="UTF-16"?>\n' + ElementTree.tostring(task, "unicode")
    return text.encode("utf-16")


def _fill(parent: ElementTree.Element, tree: Tree) -> None:
    for name, value in tree.items():
        child = ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
        if isinstance(value, str):
            child.text = value
        else:
            _fill(child, value)


def installation(job: Job, folder: Path, *, user: str, first: date) -> Plan:
    """Return how the job is set up; `folder` keeps the XML."""
    file = folder / f"{job.name}.xml"
    return Plan(
        files={file: task_xml(job, job.command(), user=user, first=first)},
        # /F replaces a task of this name, which can only be ours.
        steps=(Step(("schtasks", "/Create", "/TN", _path(job), "/XML", str(file), "/F")),),
        remarks=(
            "Windows asks for administrator's rights where users may not let jobs run while they "
            "are logged off; then open the terminal as administrator",
        ),
    )


def removal(job: Job, folder: Path) -> Plan:
    """Return how the job is taken away."""
    return Plan(
        steps=(Step(("schtasks", "/Delete", "/TN", _path(job), "/F"), may_fail=True),),
        doomed=(folder / f"{job.name}.xml",),
    )


def inquiry(job: Job) -> Step:
    """Return the command that succeeds if the job is there."""
    return Step(("schtasks", "/Query", "/TN", _path(job)))


def _path(job: Job) -> str:
    return f"\\{FOLDER}\\{job.name}"
