"""The commands `schedule …`: the night as the operating system's own job."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import require_extra
from ...inference.library import Library
from ...reporting.console import Outcome, say
from ..errors import TrainingError
from .night_record import NightRecord
from .scheduling.installation import (
    SYSTEMS,
    ScheduleState,
    System,
    install,
    installation,
    installed_for,
    job_installed,
    job_of,
    removal,
    remove,
    state_of,
    this_system,
)
from .scheduling.job import Job, Plan, printable
from .service import Night, run_night, serving
from .window import Window

LibraryOption = Annotated[Path, typer.Option(help="The folder of runs, with models/ in it.")]
AtOption = Annotated[str, typer.Option(help="Begin every night at HH:MM …")]
UntilOption = Annotated[str, typer.Option(help="… and be done by HH:MM.")]
NotifyOption = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND", help="Run after each night, with its record as JSON on standard input."
    ),
]
ShowOption = Annotated[bool, typer.Option("--show", help="Only show what would be done.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


def _known(name: str | None) -> str | None:
    if name is not None and name not in SYSTEMS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(SYSTEMS)}")
    return name


def install_job(
    library: LibraryOption,
    at: AtOption,
    until: UntilOption,
    notify: NotifyOption = None,
    system: Annotated[
        str | None,
        typer.Option(
            help="With --show: for another system.", metavar="|".join(SYSTEMS), callback=_known
        ),
    ] = None,
    show: ShowOption = False,
    yes: YesOption = False,
) -> Outcome:
    """Let the operating system retrain the models of a library every night."""
    require_extra("train", "schedule install")
    job = job_of(library, Window.between(at, until), notify)
    chosen: System = this_system() if system is None else system  # type: ignore[assignment]
    plan = installation(job, chosen)
    shown = _shown(plan)
    if not show:
        if system is not None and chosen != this_system():
            raise TrainingError(
                f"--system {system} is not this computer's, which has {this_system()}; pass --show"
            )
        _ask(shown, "set this up", yes=yes)
        install(job, chosen, plan)
    done = [] if show else [f"installed: {job.name} starts every day at {at}"]
    return Outcome(
        {**_about(job, chosen, plan), "installed": not show},
        [*(shown if show or yes else ()), *done, *plan.remarks],
    )


def schedule_status(library: LibraryOption) -> Outcome:
    """Say when the next night is, what the last one did, and what failed."""
    state = state_of(library)
    return Outcome(_state_result(state), _state_lines(state), failed=state.problem is not None)


def remove_job(
    library: LibraryOption, show: ShowOption = False, yes: YesOption = False
) -> Outcome:
    """Take the night's job away; models, runs and records stay."""
    known = installed_for(library)
    if known is None:
        Library(library).runs()
        return Outcome({"removed": False}, [f"nothing was set up for {library}"])
    if known.computer != socket.gethostname():
        raise TrainingError(
            f"{library}: its job was set up on the computer {known.computer}; remove it there"
        )
    job = job_installed(library, known)
    plan = removal(job, known.system)
    shown = _shown(plan)
    if not show:
        _ask(shown, "do this", yes=yes)
        remove(job, plan)
    done = [] if show else [f"removed: {job.name}"]
    return Outcome(
        {**_about(job, known.system, plan), "removed": not show},
        [*(shown if show or yes else ()), *done],
    )


def run_job(
    library: LibraryOption, at: AtOption, until: UntilOption, notify: NotifyOption = None
) -> Outcome:
    """Make tonight's rounds and leave: what the job starts."""
    require_extra("train", "schedule run")
    night = Night(library, Window.between(at, until), notify)
    with serving(library):
        record = run_night(night, say=say)
    if record is None:
        return Outcome({"state": "skipped"}, ["nothing was done"])
    return Outcome(_record(record), [record.headline()], failed=record.state == "failed")


def _shown(plan: Plan) -> list[str]:
    lines = []
    for file, content in plan.files.items():
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
        lines += [f"write {file}:", *(f"    {line}" for line in text.splitlines())]
    for step in (*plan.steps, *plan.afterwards):
        lines.append(f"run {' '.join(step.command)}")
        if step.given is not None:
            lines += ["with:", *(f"    {line}" for line in printable(step.given).splitlines())]
    return [*lines, *(f"delete {file}" for file in plan.doomed)]


def _ask(shown: list[str], what: str, *, yes: bool) -> None:
    if yes:
        return
    for line in shown:
        say(line)
    if not sys.stdin.isatty():
        raise TrainingError(f"nobody is there to be asked whether to {what}; pass --yes")
    typer.confirm(f"Shall quietscope {what}?", abort=True, err=True)


def _about(job: Job, system: System, plan: Plan) -> dict[str, Any]:
    return {
        "name": job.name,
        "system": system,
        "library": str(job.library),
        "command": job.command(),
        "files": [str(file) for file in (*plan.files, *plan.doomed)],
        "steps": [list(step.command) for step in (*plan.steps, *plan.afterwards)],
        "remarks": list(plan.remarks),
    }


def _record(record: NightRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.model_dump_json())
    return found


def _state_result(state: ScheduleState) -> dict[str, Any]:
    following = state.next_night
    return {
        "installed": None if state.installed is None else state.installed.model_dump(),
        "is_there": state.is_there,
        "next_night": None if following is None else following.isoformat(timespec="minutes"),
        "served_by": state.served_by,
        "last_night": None if state.last is None else _record(state.last),
        "problem": state.problem,
        "log": str(state.log),
    }


def _state_lines(state: ScheduleState) -> list[str]:
    lines = []
    if state.installed is None:
        lines.append("no job is set up; do so with `quietscope schedule install`")
    else:
        known = state.installed
        where = "" if state.is_there is not None else f" on the computer {known.computer}"
        lines.append(f"every day {known.at}–{known.until}, by {known.system}{where}")
    if state.next_night is not None:
        lines.append(f"next night: {state.next_night:%Y-%m-%d %H:%M}")
    if state.served_by is not None:
        lines.append(f"at work now: {state.served_by}")
    if state.last is not None:
        lines.append(f"last night ({state.last.night}): {state.last.headline()}")
        lines += [f"  {one.about()}: {one.decision}, {one.reason}" for one in state.last.decisions]
        lines += [f"  {remark}" for remark in state.last.remarks]
        if state.last.page is not None:
            lines.append(f"page: {state.last.page}")
    if state.problem is not None:
        lines += [f"PROBLEM: {state.problem}", f"log: {state.log}"]
    return lines


COMMANDS: dict[str, Callable[..., Outcome]] = {
    "schedule install": install_job,
    "schedule status": schedule_status,
    "schedule remove": remove_job,
    "schedule run": run_job,
}
