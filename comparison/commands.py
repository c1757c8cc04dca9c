"""The command `compare`, as a plain function that returns an Outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..inference.bundle import Preset
from ..reporting.console import Outcome, progress, say
from ..reporting.stack_options import StackOpener, opens_stacks
from ..storage.atomic_output import require_apart

if TYPE_CHECKING:
    from .compare import ComparisonProgress
    from .result import Comparison

SHOWN_ROWS = 12


@opens_stacks
def compare(
    stack: Annotated[str, typer.Argument(help="A noisy recording, in any format.")],
    out: Annotated[Path, typer.Option(help="A folder for models, result and page.")],
    truth: Annotated[
        str | None, typer.Option(help="The true signal: one frame, or one per frame.")
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Repeats of one scene: the others are the truth.")
    ] = False,
    methods: Annotated[
        str,
        typer.Option(help="all, filters, or names of filters and algorithms, by commas."),
    ] = "all",
    models: Annotated[
        str | None, typer.Option(help="Bundles, by commas; `general` is the model that ships.")
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, max=17, help="Also with so many frames; 1: single frames alone.")
    ] = 5,
    minutes: Annotated[float, typer.Option(help="Budget of each training.")] = 5.0,
    preset: Annotated[Preset, typer.Option(help="Size of the networks.")] = "live",
    test_frames: Annotated[int, typer.Option(min=1, help="Score so many frames at most.")] = 8,
    noise_model: Annotated[
        Path | None, typer.Option(help="Of the camera, for all; without it one is estimated.")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Name or number, if several.")] = None,
    seed: Annotated[int, typer.Option(help="Of each training.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a kill.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    *,
    open_with: StackOpener,
) -> Outcome:
    """Try every method on one recording, side by side, and say which one to take."""
    from ..calibration.noise_files import load_noise_model
    from .compare import ComparisonOptions
    from .compare import compare as run

    options = ComparisonOptions(
        methods=_names(methods),
        models=tuple(map(Path, _names(models or ""))),
        frames=frames,
        seconds=60 * minutes,
        preset=preset,
        seed=seed,
        most_scored=test_frames,
    )
    if noise_model is not None:
        require_apart(out, [noise_model])
    with _shown() as show:
        comparison = run(
            open_with(stack),
            out,
            options,
            truth=None if truth is None else open_with(truth),
            static=static,
            noise_model=None if noise_model is None else load_noise_model(noise_model),
            channel=channel,
            resume=resume,
            overwrite=overwrite,
            on_progress=show,
            on_remark=say,
        )
    return Outcome(comparison.result(), _lines(comparison))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@contextmanager
def _shown() -> Iterator[Callable[[ComparisonProgress], None]]:
    with progress() as shown:
        task = shown.add_task("comparing", total=None, note="")

        def show(state: ComparisonProgress) -> None:
            left = state.seconds_left / 60
            shown.update(
                task,
                description=state.name,
                completed=state.done,
                total=state.total,
                note=f"about {left:.0f} min left" if left >= 1 else "less than a minute left",
            )

        yield show


def _lines(comparison: Comparison) -> list[str]:
    rows = [row for row in comparison.rows if row.left_out is None]
    lines = [_line(row.name, row.figures) for row in rows[:SHOWN_ROWS]]
    if len(rows) > SHOWN_ROWS:
        lines.append(f"… and {len(rows) - SHOWN_ROWS} more on the page")
    left_out = [
        f"left out: {row.name} ({row.left_out})" for row in comparison.rows if row.left_out
    ]
    advised = [comparison.advice.sentence, comparison.advice.based_on, *comparison.remarks]
    return [*lines, *left_out, *advised, str(comparison.page)]


def _line(name: str, figures: Any) -> str:
    speed = f"{figures['ms_per_frame']:8.1f} ms"
    if "psnr_db" in figures:
        return (
            f"{name:32} {figures['psnr_db']:6.2f} dB, SSIM {figures['ssim_gaussian_11px']:.3f}"
            f"{speed}"
        )
    return f"{name:32} held-out error {figures['held_out_mse_adu2']:9.4g} ADU²{speed}"


COMMANDS: dict[str, Callable[..., Outcome]] = {"compare": compare}
