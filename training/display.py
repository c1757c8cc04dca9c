"""How a run looks in a terminal while it goes on: time left, losses, and a tile before and after.

Owns the drawing; nothing of it appears where standard error is no terminal.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ..reporting.console import progress, stderr
from ..reporting.told import is_told, tell

if TYPE_CHECKING:
    from .output.preview import Preview
    from .progress import TrainingProgress

UPPER_HALF = "▀"
"""One character is two pixels: its upper half in the foreground colour, its lower one behind."""
LINES_AROUND = 6
WITH_GREYS = ("256", "truecolor")


@contextmanager
def shown(description: str) -> Iterator[Callable[[TrainingProgress], None]]:
    """Show a run for the length of the block; yield what to call with its progress."""
    if is_told():
        tell("progress", task="reading the recordings", completed=0, total=100, note="")
        yield _Teller(description)
        return
    if not stderr.is_terminal or os.environ.get("RANK", "0") != "0":
        yield lambda state: None  # a log file, or a process that only helps under torchrun
        return
    bar = progress()
    task = bar.add_task("reading the recordings", total=100, note="")
    with Live(bar, console=stderr, transient=True, refresh_per_second=4) as live:

        def show(state: TrainingProgress) -> None:
            bar.update(
                task,
                description=description,
                completed=int(100 * state.progress),
                note=losses_in_words(state),
            )
            if state.preview is not None:
                live.update(Group(bar, tile(state.preview, stderr)))

        yield show


class _Teller:
    """Tells the program that started the command how far a run is; each tile once."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._preview: Preview | None = None

    def __call__(self, state: TrainingProgress) -> None:
        tell(
            "training",
            step=state.step,
            progress=state.progress,
            seconds_left=state.seconds_left,
            loss=_finite(state.loss),
            validation_loss=_finite(state.validation_loss),
        )
        tell(
            "progress",
            task=self._description,
            completed=100 * state.progress,
            total=100,
            note=f"step {state.step}" + (f" ({state.part})" if state.part else ""),
        )
        if state.preview is not None and state.preview is not self._preview:
            self._preview = state.preview
            tell(
                "tile",
                step=state.step,
                shape=state.preview.raw.shape,
                raw=_as_text(state.preview.raw),
                denoised=_as_text(state.preview.denoised),
            )


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else value


def _as_text(image: NDArray[Any]) -> str:
    """Return an image as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(image, "<f4").tobytes()).decode("ascii")


def losses_in_words(state: TrainingProgress) -> str:
    """Return step and losses in one line."""
    part = "" if state.part is None else f"{state.part}: "
    validation = state.validation_loss
    held_out = "" if validation is None else f", held out {validation:.4f}"
    return f"{part}step {state.step}, loss {state.loss:.4f}{held_out}"


def tile(preview: Preview, console: Console) -> RenderableType:
    """Draw raw and denoised side by side, as large as the terminal allows.

    Every pixel is drawn as it is: binning would denoise as well, and make raw look too good.
    Empty where the terminal has no greys or no room.
    """
    if console.color_system not in WITH_GREYS or not console.encoding.startswith("utf"):
        return ""
    height, width = preview.raw.shape
    columns = min(width, (console.width - 2) // 2)
    rows = min(height, 2 * (console.height - LINES_AROUND)) // 2 * 2
    if columns < 16 or rows < 16:
        return ""
    middle = tuple(
        slice((edge - shown) // 2, (edge - shown) // 2 + shown)
        for edge, shown in zip((height, width), (rows, columns), strict=True)
    )
    low, high = preview.range_adu()
    table = Table.grid(padding=(0, 1))
    table.add_row(Text("raw", "dim"), Text("denoised", "dim"))
    table.add_row(*(_grey(image[middle], low, high) for image in (preview.raw, preview.denoised)))
    return table


def _grey(image: NDArray[Any], low: float, high: float) -> Text:
    levels = np.clip(255 * (image.astype(np.float64) - low) / (high - low), 0, 255).astype(int)
    picture = Text(no_wrap=True)
    for upper, lower in zip(levels[::2].tolist(), levels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            style = Style(
                color=Color.from_rgb(above, above, above),
                bgcolor=Color.from_rgb(below, below, below),
            )
            picture.append(UPPER_HALF, style)
        picture.append("\n")
    picture.right_crop(1)
    return picture
