"""A job of systemd: a timer and a service of the user.

Owns the two unit files and how they are made known. `Persistent` starts a night late that the
computer slept through; whether there is still time for it is decided by the job itself. Quoting is
that of systemd.service(5) and systemd.syntax(7).
"""

from __future__ import annotations

from pathlib import Path

from .job import MARK, Job, Plan, Step

SYSTEMCTL = ("systemctl", "--user")


def units(job: Job, command: list[str]) -> dict[str, str]:
    """Return the unit files by name."""
    program, *arguments = command
    line = " ".join([_quoted(program), *(_quoted(word).replace("$", "$$") for word in arguments)])
    service = f"""# {MARK}
[Unit]
Description={job.description.replace("%", "%%")}

[Service]
Type=oneshot
ExecStart={line}
Nice=10
IOSchedulingClass=idle
"""
    timer = f"""# {MARK}
[Unit]
Description={job.description.replace("%", "%%")}

[Timer]
OnCalendar=*-*-* {job.at:%H:%M}:00
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"{job.name}.service": service, f"{job.name}.timer": timer}


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def installation(job: Job, folder: Path, *, user: str, lingers: bool) -> Plan:
    """Return how the job is set up; `folder` is that of the user's units."""
    remarks = (
        ()
        if lingers
        else (
            "nights are left out while you are logged out, until you allow them once with: "
            f"loginctl enable-linger {user}",
        )
    )
    return Plan(
        files={folder / name: text.encode() for name, text in units(job, job.command()).items()},
        steps=(
            Step((*SYSTEMCTL, "daemon-reload")),
            Step((*SYSTEMCTL, "enable", "--now", f"{job.name}.timer")),
        ),
        remarks=remarks,
    )


def removal(job: Job, folder: Path) -> Plan:
    """Return how the job is taken away."""
    return Plan(
        steps=(Step((*SYSTEMCTL, "disable", "--now", f"{job.name}.timer"), may_fail=True),),
        doomed=tuple(folder / f"{job.name}.{kind}" for kind in ("timer", "service")),
        afterwards=(Step((*SYSTEMCTL, "daemon-reload")),),
    )


def inquiry(job: Job) -> Step:
    """Return the command that succeeds if the job is there."""
    return Step((*SYSTEMCTL, "is-enabled", f"{job.name}.timer"))
