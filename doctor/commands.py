"""`quietscope doctor`: what this machine has, and what is missing for live denoising.

Owns the command and how its findings are told. The questions stand in `this_machine` and, for a
Micro-Manager that is running, in `attached`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import QuietscopeError
from ..reporting.console import Outcome, progress
from ..version import __version__
from .finding import Finding


def doctor(
    folder: Annotated[
        Path, typer.Option(help="Where runs would be recorded; its disk is examined.")
    ] = Path(),
    attach: Annotated[
        bool,
        typer.Option("--attach", help="Examine the Micro-Manager that is running here instead."),
    ] = False,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Its server's port, with --attach.")
    ] = 4827,
    test_acquisition: Annotated[
        bool,
        typer.Option("--test-acquisition", help="With --attach: take ten images through it."),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write what a bug report needs: findings and versions, no names or places.",
        ),
    ] = None,
) -> Outcome:
    """Examine this machine: core, camera, inference, training, screen and disk."""
    if test_acquisition and not attach:
        raise typer.BadParameter("--test-acquisition belongs to --attach; give both")
    found = list(_attached(port, test_acquisition=test_acquisition) if attach else _here(folder))
    if report is not None:
        from .report import write_report

        write_report(report, found)
    return _outcome(found)


def _outcome(found: Sequence[Finding]) -> Outcome:
    failed = [finding.name for finding in found if not finding.passed]
    verdict = (
        f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}"
        if failed
        else "nothing is in the way"
    )
    return Outcome(
        result={
            "version": __version__,
            "passed": not failed,
            "checks": [asdict(finding) for finding in found],
        },
        summary=[*(_line(finding) for finding in found), verdict],
        failed=bool(failed),
    )


def _attached(port: int, *, test_acquisition: bool) -> Iterator[Finding]:
    from .attached import QUESTIONS, examine

    answered = 0
    with progress() as bar:
        task = bar.add_task("asking Micro-Manager", total=len(QUESTIONS), note=QUESTIONS[0])
        try:
            for finding in examine(port, test_acquisition=test_acquisition):
                yield finding
                answered += 1
                bar.update(task, completed=answered, note=QUESTIONS[answered % len(QUESTIONS)])
        except Exception as error:  # the bridge raises bare exceptions, with Java's whole stack
            message = str(error).strip().split("\n")[0] or type(error).__name__
            advice = (
                "" if isinstance(error, QuietscopeError) else "restart Micro-Manager, ask again"
            )
            yield Finding(QUESTIONS[answered], False, message, advice)


def _here(folder: Path) -> Iterator[Finding]:
    from .this_machine import QUESTIONS, answer

    with progress() as bar:
        task = bar.add_task("examining", total=len(QUESTIONS), note="")
        for name in QUESTIONS:
            bar.update(task, note=name)
            yield answer(name, folder)
            bar.advance(task)


def _line(finding: Finding) -> str:
    mark = "ok  " if finding.passed else "FAIL"
    advice = f"\n     → {finding.advice}" if finding.advice else ""
    return f"{mark} {finding.name:<10} {finding.value}{advice}"
