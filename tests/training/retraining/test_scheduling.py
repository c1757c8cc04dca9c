"""The job files are what each system takes, and only ours are ever taken away."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import socket
import subprocess
import sys
from datetime import date, datetime, time
from pathlib import Path, PurePosixPath, PureWindowsPath
from xml.etree import ElementTree

import pytest

from quietscope.training.errors import TrainingError
from quietscope.training.retraining.night_record import NightRecord, write_record
from quietscope.training.retraining.schedule_commands import (
    install_job,
    remove_job,
    schedule_status,
)
from quietscope.training.retraining.scheduling import (
    crontab,
    installation,
    launchd,
    systemd,
    task_scheduler,
)
from quietscope.training.retraining.scheduling.job import MARK, Job
from quietscope.training.retraining.service import serving

ODD = '/data/50% of $HOME\'s "cells" \\ & <more>'
JOB = Job(PurePosixPath(ODD), time(22), time(6, 30), notify="mail -s 'a night' me")


def test_two_libraries_of_one_name_are_two_jobs():
    names = {Job(PurePosixPath(p), time(22), time(6)).name for p in ("/a/lab", "/b/lab")}
    assert len(names) == 2
    assert all(name.startswith("quietscope-lab-") for name in names)


def test_what_would_break_a_line_of_a_job_file_is_refused():
    with pytest.raises(TrainingError, match="line breaks"):
        Job(PurePosixPath("/data/a\nExecStart=rm"), time(22), time(6))


# ------------------------------------------------------------------------------- systemd


def test_systemd_takes_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    for name, text in systemd.units(JOB, JOB.command()).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--user", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"},
    )
    ours = [line for line in checked.stderr.splitlines() if JOB.name in line]
    assert ours == []
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", "*-*-* 22:00:00"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Next elapse" in calendar.stdout


def test_systemd_starts_the_very_command(tmp_path):
    service, timer = systemd.units(JOB, JOB.command()).values()
    (line,) = (row for row in service.splitlines() if row.startswith("ExecStart="))
    assert _as_systemd_reads(line.removeprefix("ExecStart=")) == JOB.command()
    assert "OnCalendar=*-*-* 22:00:00" in timer
    assert "Persistent=true" in timer


def _as_systemd_reads(line):
    """Undo what systemd.service(5) undoes: quotes, escapes, specifiers, variables."""
    words = shlex.split(line)
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


def test_lingering_is_said_where_it_is_off(tmp_path):
    off = systemd.installation(JOB, tmp_path, user="ada", lingers=False)
    assert "loginctl enable-linger ada" in off.remarks[0]
    assert systemd.installation(JOB, tmp_path, user="ada", lingers=True).remarks == ()


# ------------------------------------------------------------------------------- Windows

# The elements of version 1.2 that are used, in the schema's order where it has one:
# https://learn.microsoft.com/windows/win32/taskschd/task-scheduler-schema
SCHEMA = {
    "Task": ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"],
    "RegistrationInfo": ["Description"],
    "Triggers": ["CalendarTrigger"],
    "CalendarTrigger": ["Enabled", "StartBoundary", "ScheduleByDay"],
    "ScheduleByDay": ["DaysInterval"],
    "Principals": ["Principal"],
    "Principal": ["UserId", "LogonType", "RunLevel"],
    "Settings": [
        "AllowStartOnDemand", "RestartOnFailure", "MultipleInstancesPolicy",
        "DisallowStartIfOnBatteries", "StopIfGoingOnBatteries", "AllowHardTerminate",
        "StartWhenAvailable", "NetworkProfileName", "RunOnlyIfNetworkAvailable", "WakeToRun",
        "Enabled", "Hidden", "DeleteExpiredTaskAfter", "IdleSettings", "NetworkSettings",
        "ExecutionTimeLimit", "Priority", "RunOnlyIfIdle",
    ],
    "Actions": ["Exec"],
    "Exec": ["Command", "Arguments", "WorkingDirectory"],
}  # fmt: skip
ANY_ORDER = {"Task", "Settings", "RegistrationInfo", "Principal"}
VALUES = {
    "LogonType": {"S4U", "Password", "InteractiveToken", "InteractiveTokenOrPassword"},
    "RunLevel": {"LeastPrivilege", "HighestAvailable"},
    "MultipleInstancesPolicy": {"Parallel", "Queue", "IgnoreNew", "StopExisting"},
}


def _check(element):
    name = element.tag.removeprefix(f"{{{task_scheduler.NAMESPACE}}}")
    children = [child.tag.removeprefix(f"{{{task_scheduler.NAMESPACE}}}") for child in element]
    if name in VALUES:
        assert element.text in VALUES[name]
    if not children:
        assert element.text
        return
    allowed = SCHEMA[name]
    assert set(children) <= set(allowed), name
    assert len(set(children)) == len(children)
    if name not in ANY_ORDER:
        assert children == [child for child in allowed if child in children]
    for child in element:
        _check(child)


def test_task_scheduler_takes_the_task():
    job = Job(PureWindowsPath(r"D:\my lab & co\runs 50%"), time(22), time(6, 30))
    python = [r"C:\Program Files\Python\python.exe", "-P", "-m", "quietscope.cli"]
    written = task_scheduler.task_xml(
        job, job.command(python), user=r"LAB\ada", first=date(2026, 3, 1)
    )
    assert written[:2] in (b"\xff\xfe", b"\xfe\xff")
    task = ElementTree.fromstring(written)
    assert task.tag == f"{{{task_scheduler.NAMESPACE}}}Task"
    assert task.get("version") == "1.2"
    _check(task)
    found = {e.tag.rpartition("}")[2]: e.text for e in task.iter()}
    assert found["Command"] == python[0]
    assert '--library "D:\\my lab & co\\runs 50%"' in found["Arguments"]
    assert found["StartBoundary"] == "2026-03-01T22:00:00"
    assert found["StartWhenAvailable"] == "true"
    assert found["UserId"] == r"LAB\ada"
    ids = [e.get("id") for e in task.iter() if e.get("id")]
    assert [e.get("Context") for e in task.iter() if e.get("Context")] == ids


# --------------------------------------------------------------------------------- macOS


def test_launchd_takes_the_property_list(tmp_path):
    found = plistlib.loads(launchd.property_list(JOB, JOB.command()))
    assert found["ProgramArguments"] == JOB.command()
    assert found["StartCalendarInterval"] == {"Hour": 22, "Minute": 0}
    assert found["Label"] == f"org.quietscope.{JOB.name}"
    plan = launchd.installation(JOB, tmp_path, uid=501)
    assert [step.command[1] for step in plan.steps] == ["bootout", "bootstrap"]
    (content,) = plan.files.values()
    assert MARK.encode() in content


# ---------------------------------------------------------------------------------- cron


def test_cron_runs_the_very_command_and_other_lines_stay():
    table = "MAILTO=ada\n5 4 * * * backup # quietscope\n"
    new = crontab.installation(JOB, table).steps[0].given
    assert new.startswith(table)
    nightly, at_boot = new.splitlines()[-2:]
    assert nightly.split()[:5] == ["0", "22", "*", "*", "*"]
    # cron takes an unescaped percent sign for the end, and "\%" for one of the command.
    command = nightly.split(None, 5)[5].replace("\\%", "%")
    assert shlex.split(command, comments=True) == JOB.command()
    assert at_boot.startswith("@reboot ")
    assert crontab.installation(JOB, new).steps[0].given == new, "installed twice, it stands once"
    assert crontab.removal(JOB, new).steps[0].given == table
    assert crontab.removal(JOB, table).steps == ()


def test_other_lines_of_a_table_stay_to_the_last_byte():
    table = "1 2 * * * one\x0ctwo\u2028three\n\n# latin \udce9\n"
    assert (
        crontab.removal(JOB, crontab.installation(JOB, table).steps[0].given).steps[0].given
        == table
    )


# --------------------------------------------------------------- what a person does with it


@pytest.fixture
def computer(tmp_path, monkeypatch):
    """A computer with cron, and a library on it. Its `crontab` is a program that keeps a file."""
    programs = tmp_path / "bin"
    programs.mkdir()
    table = tmp_path / "table"
    program = programs / "crontab"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = -l ]; then cat "{table}"; else cat > "{table}"; fi\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(installation, "this_system", lambda: "cron")
    monkeypatch.setattr(
        sys.modules["quietscope.training.retraining.schedule_commands"],
        "this_system",
        lambda: "cron",
    )
    (tmp_path / "my library").mkdir()
    table.write_text("5 4 * * * backup\n", encoding="utf-8")
    return table


posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no cron")


@posix
def test_a_job_is_shown_set_up_asked_about_and_taken_away(computer, tmp_path):
    library, before = tmp_path / "my library", computer.read_text("utf-8")
    shown = install_job(library, "22:00", "06:30", show=True)
    assert not shown.result["installed"]
    assert any("--until 06:30" in line for line in shown.summary)
    assert computer.read_text("utf-8") == before, "it was only to be shown"

    with pytest.raises(TrainingError, match="pass --yes"):
        install_job(library, "22:00", "06:30")  # nobody is there to be asked
    assert computer.read_text("utf-8") == before

    assert install_job(library, "22:00", "06:30", yes=True).result["installed"]
    state = schedule_status(library)
    assert (state.result["is_there"], state.failed) == (True, False)
    assert state.result["next_night"] is not None

    computer.write_text(before, encoding="utf-8")  # somebody has emptied the table
    state = schedule_status(library)
    assert state.failed
    assert "install it again" in state.result["problem"]

    install_job(library, "23:00", "05:00", yes=True)
    assert remove_job(library, yes=True).result["removed"]
    assert computer.read_text("utf-8") == before
    assert schedule_status(library).result["installed"] is None
    assert not remove_job(library, yes=True).result["removed"]


@posix
def test_a_table_that_cannot_be_listed_is_not_taken_for_an_empty_one(computer, tmp_path):
    before = computer.read_bytes()
    program = tmp_path / "bin" / "crontab"
    listed = program.read_text("utf-8")
    program.write_text(listed.replace('cat "', 'echo "busy" >&2; exit 1; cat "'), "utf-8")
    with pytest.raises(TrainingError, match=r"crontab -l.*busy"):
        install_job(tmp_path / "my library", "22:00", "06:30", yes=True)
    assert computer.read_bytes() == before


@posix
def test_bytes_of_another_coding_come_through(computer, tmp_path):
    before = "5 4 * * * echo café\n".encode("latin-1")
    computer.write_bytes(before)
    install_job(tmp_path / "my library", "22:00", "06:30", yes=True)
    assert computer.read_bytes().startswith(before)
    remove_job(tmp_path / "my library", yes=True)
    assert computer.read_bytes() == before


@posix
def test_the_job_of_a_library_that_was_moved_is_found_and_taken_away(computer, tmp_path):
    before, moved = computer.read_text("utf-8"), tmp_path / "elsewhere"
    install_job(tmp_path / "my library", "22:00", "06:30", yes=True)
    (tmp_path / "my library").rename(moved)
    state = schedule_status(moved)
    assert state.failed
    assert "moved" in state.result["problem"]
    assert remove_job(moved, yes=True).result["removed"]
    assert computer.read_text("utf-8") == before


@posix
def test_of_another_computers_job_it_says_where_it_is(computer, tmp_path, monkeypatch):
    library = tmp_path / "my library"
    install_job(library, "22:00", "06:30", yes=True)
    here = socket.gethostname()
    monkeypatch.setattr(installation.socket, "gethostname", lambda: "another")
    state = schedule_status(library)
    assert state.result["is_there"] is None
    assert here in " ".join(state.summary)
    with pytest.raises(TrainingError, match=f"computer {here}; remove it there"):
        remove_job(library, yes=True)


def test_a_file_that_is_not_ours_stays(tmp_path):
    theirs = tmp_path / f"{JOB.name}.timer"
    theirs.write_text("[Timer]\n", encoding="utf-8")
    job = Job(tmp_path, time(22), time(6))
    plan = installation.Plan(doomed=(theirs,))
    installation.remove(job, plan)
    assert theirs.exists()
    with pytest.raises(TrainingError, match="not ours"):
        installation.install(job, "cron", installation.Plan(files={theirs: b"ours"}))
    assert theirs.read_text("utf-8") == "[Timer]\n"


@posix
def test_a_system_that_refuses_leaves_nothing_half_done(tmp_path):
    job, file = Job(tmp_path, time(22), time(6)), tmp_path / "job file"
    step = installation.Step(("sh", "-c", "echo access denied >&2; exit 5"))
    plan = installation.Plan(files={file: MARK.encode()}, steps=(step,))
    with pytest.raises(TrainingError, match="access denied"):
        installation.install(job, "systemd", plan)
    assert not file.exists()
    assert installation.installed_for(tmp_path) is None
    file.write_text(f"# {MARK}, of before", encoding="utf-8")
    with pytest.raises(TrainingError, match="access denied"):
        installation.install(job, "systemd", plan)
    assert file.read_text("utf-8") == f"# {MARK}, of before"


def test_all_systems_plan_without_one_another(tmp_path):
    job = Job(Path(tmp_path), time(22), time(6))
    for plan in (
        systemd.removal(job, tmp_path),
        task_scheduler.removal(job, tmp_path),
        launchd.removal(job, tmp_path, uid=1),
    ):
        assert all(job.name in str(file) for file in plan.doomed)
        assert all(job.name in " ".join(step.command) for step in plan.steps)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"state": "failed", "failure": "the disk is full"}, "failed: the disk is full"),
        ({"state": "running"}, "ended without a word"),
        ({"state": "unfinished"}, None),
        ({"state": "done"}, None),
    ],
)
def test_in_the_morning_it_says_what_failed(state, said, tmp_path):
    began = datetime(2026, 3, 1, 22).astimezone()
    write_record(tmp_path, NightRecord(night=began.date(), started=began, **state))
    found = schedule_status(tmp_path)
    assert found.failed == (said is not None)
    if said is not None:
        assert said in found.result["problem"]
    assert "2026-03-01" in " ".join(found.summary)
    with serving(tmp_path):
        assert "process" in schedule_status(tmp_path).result["served_by"]
