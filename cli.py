"""The `quietscope` command: one small group of commands per package, one way to answer.

Owns what all commands share: `--json`, `--debug`, the one-line error, the exit status. What a
command does is written in the `commands.py` of its package.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from .acquisition.commands import COMMANDS as ACQUISITION
from .calibration.commands import COMMANDS as CALIBRATION
from .comparison.commands import COMMANDS as COMPARISON
from .demo.commands import demo
from .doctor.commands import doctor
from .errors import QuietscopeError, one_line
from .gui.commands import COMMANDS as WINDOW
from .inference.commands import COMMANDS as INFERENCE
from .inference.models_commands import COMMANDS as MODELS
from .inspection.commands import COMMANDS as INSPECTION
from .reporting.console import Outcome, stderr
from .reporting.told import begin_telling, tell
from .storage.atomic_output import jsonable
from .training.commands import COMMANDS as TRAINING
from .version import __version__

Command = Callable[..., Outcome]

ENVIRONMENT = "QUIETSCOPE"
"""Begins the names of environment variables that stand for options."""

EPILOG = (
    "Exit status: 0 done, 1 failed (one line says why), 2 wrong usage, 3 done but frames "
    "are absent (--strict). Every option can be set in the environment as well, for "
    f"example {ENVIRONMENT}_RECORD_FRAMES=500 for record --frames."
)

app = typer.Typer(
    name="quietscope",
    help="Live denoising for Micro-Manager: see the clean image while the microscope runs.",
    epilog=EPILOG,
    context_settings={"auto_envvar_prefix": ENVIRONMENT},
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"quietscope {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            show_envvar=False,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        _open_window_or_help(context)


def _open_window_or_help(context: typer.Context) -> None:
    """Open the window, as nothing was asked for; where none can be opened, say what there is."""
    from .gui.window.application import no_window, open_window

    if no_window():
        typer.echo(context.get_help())
        return
    raise typer.Exit(open_window())


JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        show_envvar=False,
        help="Print one JSON object to standard output, nothing else.",
    ),
]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", show_envvar=False, help="Log in detail; show tracebacks."),
]


def _shared_options() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
        )
        for name, annotation in (("as_json", JsonOption), ("debug", DebugOption))
    ]


def _with_shared_options(command: Command) -> Callable[..., None]:
    """Give `command` the options that every command has, and print what it returns."""

    @functools.wraps(command)
    def run(*args: Any, as_json: bool, debug: bool, **kwargs: Any) -> None:
        logging.basicConfig(
            level=logging.DEBUG if debug else logging.WARNING,
            format="%(levelname)s %(name)s: %(message)s"
            if debug
            else "%(levelname)s: %(message)s",
        )
        _require_finite(kwargs)
        begin_telling()
        try:
            outcome = command(*args, **kwargs)
        except (QuietscopeError, OSError, MemoryError) as error:
            said = _in_one_line(error)
            tell("ended", status=1, error=said)
            if debug:
                raise
            stderr.print(f"[bold red]error:[/] {escape(said)}", soft_wrap=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            tell("ended", status=1, cancelled=True)
            stderr.print("stopped by the user; what was recorded so far is kept")
            raise typer.Exit(1) from error
        status = 1 if outcome.failed else outcome.status
        tell("ended", status=status, result=jsonable(outcome.result), summary=outcome.summary)
        _print(outcome, as_json=as_json)
        if status:
            raise typer.Exit(status)

    signature = inspect.signature(command, eval_str=True)
    for parameter in signature.parameters.values():
        for note in getattr(parameter.annotation, "__metadata__", ()):
            note.show_envvar = False  # all have one, and the epilog says how it is called
            if parameter.default is False and not note.param_decls:
                # What is off needs no switch to put it off.
                note.param_decls = (f"--{parameter.name.replace('_', '-')}",)
    # Typer reads the signature; functools.wraps alone would show it the unwrapped one.
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *_shared_options()], return_annotation=None
    )
    return run


def _require_finite(options: Mapping[str, Any]) -> None:
    """Refuse what Python takes for a number and no option has a meaning for."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} is {value}: expected a finite number"
            )


def _in_one_line(error: QuietscopeError | OSError | MemoryError) -> str:
    """Say what went wrong; of what the operating system refuses, what it was and why."""
    if isinstance(error, QuietscopeError):
        return str(error)
    if isinstance(error, MemoryError):
        return "this computer has too little memory for that; give smaller frames, or close others"
    if error.filename is not None and error.strerror:
        return f"{error.filename}: the operating system refuses it ({error.strerror})"
    return f"the operating system refuses something ({one_line(error)})"


def _print(outcome: Outcome, *, as_json: bool) -> None:
    if not outcome.result:
        return  # a process that only helped others has nothing to say
    if as_json:
        sys.stdout.write(json.dumps(jsonable(outcome.result), ensure_ascii=False) + "\n")
        return
    for line in outcome.summary:
        typer.echo(line)


PANELS: dict[str, Mapping[str, Command]] = {
    "Start here": {**WINDOW, "demo": demo, "doctor": doctor},
    "At the microscope": ACQUISITION,
    "From recordings of repeats": CALIBRATION,
    "Models": {**TRAINING, **MODELS},
    "Recordings, and how well and fast they are denoised": {
        **INSPECTION,
        **INFERENCE,
        **COMPARISON,
    },
}
"""Under which heading `--help` shows the commands of each package."""

GROUPS = {
    "models": "The models of a library: which are in use, and how that came about.",
    "schedule": "Retraining every night, as the operating system's own job.",
}


def _add_commands(to: typer.Typer) -> None:
    """Add every command; one of two words belongs to a group of its first."""
    groups: dict[str, typer.Typer] = {}
    for panel, commands in PANELS.items():
        for name, command in commands.items():
            group, _, own = name.rpartition(" ")
            if group and group not in groups:
                groups[group] = typer.Typer(help=GROUPS[group], no_args_is_help=True)
                to.add_typer(groups[group], name=group, rich_help_panel=panel)
            shown_in = None if group else panel
            place = groups[group] if group else to
            place.command(own, rich_help_panel=shown_in)(_with_shared_options(command))


_add_commands(app)


def main() -> None:
    """Run the command line."""
    # Threads that wait for work give their core away. Those that spin, which is OpenMP's default,
    # take it from the threads they wait for as soon as anything else runs on this computer, the
    # acquisition first of all (benchmarks/training_contention.py). GNU's may spin for some
    # microseconds all the same: to be woken takes about as long. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except KeyboardInterrupt:  # while the command line was read
        stderr.print("stopped by the user")
        sys.exit(1)


if __name__ == "__main__":
    main()
