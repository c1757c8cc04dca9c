"""The commands `gui` and `shortcut`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..reporting.console import Outcome
from .shortcut import write_shortcut


def gui() -> Outcome:
    """Open the window in which everything can be done by hand."""
    from .window.application import open_window

    return Outcome(result={}, status=open_window())


def shortcut(
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to put it; the desktop if not given.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the one that is there.")
    ] = False,
) -> Outcome:
    """Put an icon on the desktop that opens the window."""
    written = write_shortcut(folder, overwrite=overwrite)
    lines = [f"{path}:\n{text.rstrip()}" for path, text in written.items()]
    return Outcome({"written": [str(path) for path in written]}, lines)


COMMANDS: dict[str, Callable[..., Outcome]] = {"gui": gui, "shortcut": shortcut}
