"""Sets the job up on this computer, takes it away, and asks whether it is there.

Owns which system this computer has, what is done by hand there, and the note in the library that
says what was set up. What is to be done is computed in the modules of the systems.

For whoever shows it: `state_of(library)` returns all there is to know, as plain data.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ....errors import QuietscopeError, one_line
from ....inference.library import Library
from ....storage.atomic_output import new_file, write_json
from ....storage.bounded_text import read_text
from ....storage.directory_lock import holder_of
from ....storage.live_sessions import state_folder
from ...errors import TrainingError
from ..night_record import LOG, NightRecord, last_night, nights_folder
from ..window import Window
from . import crontab, launchd, systemd, task_scheduler
from .job import MARK, Job, Plan, Step, printable

System = Literal["systemd", "cron", "launchd", "windows"]
NOTE = "schedule.json"
STEP_S = 60.0
LARGEST_OURS = 65_536
"""Bytes of a job file, of which a person's are no larger either."""


class Installed(BaseModel):
    """What was set up for a library, and where."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    system: System
    name: str
    at: str
    until: str
    notify: str | None = None
    computer: str


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """The schedule of a library, and what became of its last night.

    Attributes
    ----------
    installed
        What was set up; None for nothing.
    is_there
        Whether the system still has the job; None on another computer than that one.
    next_night
        When the job is started next.
    served_by
        The service that runs now; None for none.
    last
        The last night; None before the first.
    problem
        What a person should look at, in one line; None if all is well.
    """

    installed: Installed | None
    is_there: bool | None
    next_night: datetime | None
    served_by: str | None
    last: NightRecord | None
    problem: str | None
    log: Path


def this_system() -> System:
    """Return what starts jobs on this computer.

    Raises
    ------
    TrainingError
        If there is nothing.
    """
    if sys.platform == "win32":
        return "windows"
    if sys.platform == "darwin":
        return "launchd"
    if Path("/run/systemd/system").is_dir() and shutil.which("systemctl"):
        return "systemd"
    if shutil.which("crontab"):
        return "cron"
    raise TrainingError(
        "neither systemd nor cron runs on this computer; install cron, or keep "
        "`quietscope retrain --library DIR --at … --until …` running"
    )


def job_of(
    library: Path, window: Window, notify: str | None, *, known_as: str | None = None
) -> Job:
    """Return the job of a library; `known_as` is the name by which it was set up.

    Raises
    ------
    QuietscopeError
        If the library is none.
    """
    Library(library).runs()
    return Job(library.resolve(), window.start, window.end, notify, known_as)


def job_installed(library: Path, known: Installed) -> Job:
    """Return the job that was set up for a library, wherever that lay then."""
    window = Window.between(known.at, known.until)
    return job_of(library, window, known.notify, known_as=known.name)


def installation(job: Job, system: System) -> Plan:
    """Return what will be done to set the job up."""
    plans: dict[System, Callable[[], Plan]] = {
        "systemd": lambda: systemd.installation(
            job, _systemd_folder(), user=getpass.getuser(), lingers=_lingers()
        ),
        "cron": lambda: crontab.installation(job, _table()),
        "launchd": lambda: launchd.installation(job, _agents_folder(), uid=_uid()),
        "windows": lambda: task_scheduler.installation(
            job, _task_folder(), user=_windows_user(), first=datetime.now().date()
        ),
    }
    return plans[system]()


def removal(job: Job, system: System) -> Plan:
    """Return what will be done to take the job away."""
    plans: dict[System, Callable[[], Plan]] = {
        "systemd": lambda: systemd.removal(job, _systemd_folder()),
        "cron": lambda: crontab.removal(job, _table()),
        "launchd": lambda: launchd.removal(job, _agents_folder(), uid=_uid()),
        "windows": lambda: task_scheduler.removal(job, _task_folder()),
    }
    return plans[system]()


def is_there(job: Job, system: System) -> bool:
    """Whether the system has the job."""
    if system == "cron":
        return crontab.holds(_table(), job)
    asked: dict[System, Callable[[], Step]] = {
        "systemd": lambda: systemd.inquiry(job),
        "launchd": lambda: launchd.inquiry(job, uid=_uid()),
        "windows": lambda: task_scheduler.inquiry(job),
    }
    return _run(asked[system]()).returncode == 0


def install(job: Job, system: System, plan: Plan) -> None:
    """Do what the plan says, and note it in the library.

    Raises
    ------
    TrainingError
        If the system refuses; the files are then as they were before.
    """
    for file in plan.files:
        if file.exists() and not _is_ours(file):
            raise TrainingError(f"{file}: is there and not ours; move it away first")
    before = {file: file.read_bytes() for file in plan.files if file.exists()}
    try:
        for file, content in plan.files.items():
            _write(file, content)
        _carry_out(plan.steps)
    except QuietscopeError:
        for file in plan.files:
            if file in before:
                _write(file, before[file])
            else:
                file.unlink(missing_ok=True)
        raise
    note = Installed(
        system=system,
        name=job.name,
        at=f"{job.at:%H:%M}",
        until=f"{job.until:%H:%M}",
        notify=job.notify,
        computer=socket.gethostname(),
    )
    write_json(_note_of(Path(job.library)), note.model_dump())


def _write(file: Path, content: bytes) -> None:
    with new_file(file) as staging:
        staging.write_bytes(content)


def remove(job: Job, plan: Plan) -> None:
    """Do what the plan says; nothing that is not ours is touched.

    Raises
    ------
    TrainingError
        If the system refuses.
    """
    _carry_out(plan.steps)
    for file in plan.doomed:
        if _is_ours(file):
            file.unlink()
    _carry_out(plan.afterwards)
    _note_of(Path(job.library)).unlink(missing_ok=True)


def installed_for(library: Path) -> Installed | None:
    """Return what was set up for a library, None for nothing."""
    try:
        return Installed.model_validate_json(read_text(_note_of(library)))
    except (OSError, ValueError, ValidationError):
        return None


def state_of(library: Path, *, now: datetime | None = None) -> ScheduleState:
    """Return the schedule of a library and what became of its last night.

    Raises
    ------
    QuietscopeError
        If the library is none.
    """
    Library(library).runs()
    now = now or datetime.now()
    installed, last = installed_for(library), last_night(library)
    there, following = None, None
    if installed is not None:
        following = Window.between(installed.at, installed.until).next_start(now).astimezone()
        if installed.computer == socket.gethostname():
            there = is_there(job_installed(library, installed), installed.system)
    served_by = holder_of(nights_folder(library))
    return ScheduleState(
        installed=installed,
        is_there=there,
        next_night=following,
        served_by=served_by,
        last=last,
        problem=_moved(library, installed) or _problem(installed, there, served_by, last),
        log=nights_folder(library) / LOG,
    )


def _moved(library: Path, installed: Installed | None) -> str | None:
    """Return that the job looks for the library elsewhere, None if it does not."""
    if installed is None:
        return None
    window = Window.between(installed.at, installed.until)
    if job_of(library, window, installed.notify).name == installed.name:
        return None
    return (
        f"the library was moved since {installed.name} was set up, which looks for it at its old "
        "place; take it away with `quietscope schedule remove` and install it again"
    )


def _problem(
    installed: Installed | None,
    there: bool | None,
    served_by: str | None,
    last: NightRecord | None,
) -> str | None:
    if installed is not None and there is False:
        return f"{installed.system} has no job {installed.name} any more; install it again"
    if last is None:
        return None
    if last.state == "failed":
        return f"the night of {last.night} failed: {last.failure}"
    if last.state == "running" and served_by is None:
        return (
            f"the night of {last.night} ended without a word (killed, or the computer was "
            "switched off); the next one goes on from its last checkpoint"
        )
    return None


# ---------------------------------------------------------------------------- on this computer


def _carry_out(steps: tuple[Step, ...]) -> None:
    for step in steps:
        done = _run(step)
        if done.returncode and not step.may_fail:
            said = " ".join(printable(done.stderr or done.stdout).split())
            raise TrainingError(
                f"`{' '.join(step.command)}` failed: {said or f'status {done.returncode}'}; "
                "nothing was set up"
            )


def _run(step: Step) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            step.command,
            input=step.given,
            capture_output=True,
            text=True,
            encoding=None if sys.platform == "win32" else "utf-8",
            # A table of cron goes back byte by byte, in whatever coding its other lines are.
            errors="replace" if sys.platform == "win32" else "surrogateescape",
            timeout=STEP_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(step.command, 1, "", one_line(error))


def _is_ours(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_OURS)
    except OSError:
        return False
    return any(MARK.encode(coding) in content for coding in ("utf-8", "utf-16-le"))


def _note_of(library: Path) -> Path:
    return nights_folder(library) / NOTE


def _table() -> str:
    read = _run(crontab.READ)
    if read.returncode == 0:
        return read.stdout
    said = " ".join(printable(read.stderr).split())
    if not any(words in said.lower() for words in crontab.NO_TABLE):
        # It is written back as a whole: taken for empty, all other jobs would be lost.
        raise TrainingError(
            f"`crontab -l` failed: {said or f'status {read.returncode}'}; nothing was "
            "changed: see to it that it lists your jobs, and try again"
        )
    return ""


def _systemd_folder() -> Path:
    given = os.environ.get("XDG_CONFIG_HOME")
    return (Path(given) if given else Path.home() / ".config") / "systemd" / "user"


def _agents_folder() -> Path:
    return Path.home() / "Library" / "LaunchAgents"


def _task_folder() -> Path:
    return state_folder() / "jobs"


def _uid() -> int:
    return os.getuid() if sys.platform != "win32" else 0


def _windows_user() -> str:
    domain = os.environ.get("USERDOMAIN")
    return "\\".join(filter(None, [domain, getpass.getuser()]))


def _lingers() -> bool:
    asked = _run(Step(("loginctl", "show-user", getpass.getuser(), "--property=Linger")))
    return "Linger=yes" in asked.stdout


SYSTEMS: tuple[System, ...] = get_args(System)
