"""What every command that opens recordings says and asks about them.

Owns the options by which a person settles what a file leaves open, the remarks of a reader,
the count of absent frames, and the exit status of `--strict`. Opening is done in `storage`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..storage.open_options import OpenOptions
from ..storage.stack import Stack
from .console import Outcome, say

ABSENT_STATUS = 3
"""Exit status where frames are absent and `--strict` was given: done, but not all was there."""

SeriesOption = Annotated[
    str | None,
    typer.Option(help="Which of several stacks inside a file: its number from 0, or its name."),
]
AxesOption = Annotated[
    str | None,
    typer.Option(
        help="What the file's dimensions are, slowest first: tcyx, or repetition,exposure,y,x; "
        "s for colour samples."
    ),
]
PixelsOption = Annotated[
    Literal["uint8", "uint16", "float32"] | None,
    typer.Option(help="Read pixels of another type as this one; whole numbers have to fit."),
]
FillNanOption = Annotated[
    float | None, typer.Option(help="What stands for NaN and infinite pixels, ADU.")
]
MissingOption = Annotated[
    Literal["absent", "zeros"],
    typer.Option(help="Zarr: what a frame without a chunk is. Some writers leave out zeros."),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help=f"Exit with status {ABSENT_STATUS} where frames are absent."),
]


@dataclass
class StackOpener:
    """Opens the recordings of one command, and tells the person what there is to know of them."""

    options: OpenOptions
    strict: bool = False
    opened: list[Stack] = field(default_factory=list)

    def __call__(self, path: Path | str) -> Stack:
        """Open a recording; remarks go to standard error at once."""
        from ..storage.open_stack import open_stack

        stack = open_stack(path, self.options)
        self.opened.append(stack)
        absence = (stack.frames_there,) if stack.absent else ()
        for line in (*stack.remarks, *absence):
            say(f"{stack.path.name}: {line}")
        return stack

    def told(self, outcome: Outcome) -> Outcome:
        """Return what the command found, with what is known of its recordings."""
        inputs = [
            {
                "path": str(stack.path),
                "frames": len(stack) - stack.absent,
                "frames_absent": stack.absent,
                "remarks": list(stack.remarks),
            }
            for stack in self.opened
        ]
        absent = any(stack.absent for stack in self.opened)
        return replace(
            outcome,
            result={**outcome.result, "inputs": inputs},
            status=ABSENT_STATUS if self.strict and absent else outcome.status,
        )


def opens_stacks(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Give a command the options by which recordings are opened.

    Its parameter `open_with`, a `StackOpener`, is filled in and not shown.
    """

    @functools.wraps(command)
    def run(
        *args: Any,
        series: str | None = None,
        axes: str | None = None,
        pixels: Literal["uint8", "uint16", "float32"] | None = None,
        fill_nan: float | None = None,
        missing: Literal["absent", "zeros"] = "absent",
        strict: bool = False,
        **kwargs: Any,
    ) -> Outcome:
        opener = StackOpener(OpenOptions(series, axes, pixels, fill_nan, missing), strict)
        return opener.told(command(*args, open_with=opener, **kwargs))

    own = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in own.parameters.items() if name != "open_with"]
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, default, annotation in (
            ("series", None, SeriesOption),
            ("axes", None, AxesOption),
            ("pixels", None, PixelsOption),
            ("fill_nan", None, FillNanOption),
            ("missing", "absent", MissingOption),
            ("strict", False, StrictOption),
        )
    ]
    run.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return run
