"""The `quietscope` command: one small group of commands per package, one way to answer.

Owns what all commands share: `--json`, `--debug`, the one-line error, the exit status. What a
command does is written in the `commands.py` of its package (and in `demo.py`, `doctor.py`).
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape

from . import __version__
from .acquisition.commands import COMMANDS as ACQUISITION
from .calibration.commands import COMMANDS as CALIBRATION
from .demo.commands import demo
from .doctor.commands import doctor
from .errors import QuietscopeError
from .inference.commands import COMMANDS as INFERENCE
from .inference.models_commands import COMMANDS as MODELS
from .reporting.console import Outcome, stderr
from .storage.atomic_output import jsonable
from .training.commands import COMMANDS as TRAINING

Command = Callable[..., Outcome]

EPILOG = "Exit status: 0 done, 1 failed (one line says why), 2 wrong usage."

app = typer.Typer(
    name="quietscope",
    help="Live denoising for Micro-Manager: see the clean image while the microscope runs.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"quietscope {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And leave.")
    ] = False,
) -> None:
    pass


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output, nothing else.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Log in detail; show tracebacks.")]


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
            format="%(levelname)s %(name)s: %(message)s",
        )
        try:
            outcome = command(*args, **kwargs)
        except QuietscopeError as error:
            if debug:
                raise
            stderr.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            stderr.print("stopped by the user; what was recorded so far is kept")
            raise typer.Exit(1) from error
        _print(outcome, as_json=as_json)

    signature = inspect.signature(command, eval_str=True)
    # Typer reads the signature; functools.wraps alone would show it the unwrapped one.
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *_shared_options()], return_annotation=None
    )
    return run


def _print(outcome: Outcome, *, as_json: bool) -> None:
    if not outcome.result:
        return  # a process that only helped others has nothing to say
    if as_json:
        sys.stdout.write(json.dumps(jsonable(outcome.result), ensure_ascii=False) + "\n")
        return
    for line in outcome.summary:
        typer.echo(line)


COMMANDS: dict[str, Command] = {
    "demo": demo,
    **ACQUISITION,
    **CALIBRATION,
    **TRAINING,
    **INFERENCE,
    **MODELS,
    "doctor": doctor,
}

GROUPS = {"models": "The models of a library: which are in use, and how that came about."}


def _add_commands(to: typer.Typer) -> None:
    """Add every command; one of two words belongs to a group of its first."""
    groups = {name: typer.Typer(help=text, no_args_is_help=True) for name, text in GROUPS.items()}
    for name, group in groups.items():
        to.add_typer(group, name=name)
    for name, command in COMMANDS.items():
        group_name, _, own = name.rpartition(" ")
        groups.get(group_name, to).command(own)(_with_shared_options(command))


_add_commands(app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
