"""The command `models compare`: two models on the same held-out frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ...inference.library import Library
from ...inference.models_commands import LibraryOption, ModelArgument, place_of_model
from ...reporting.console import Outcome
from ...storage.atomic_output import require_absent, require_apart
from ...storage.output_kinds import Kind


def compare_two(
    a: ModelArgument,
    b: ModelArgument,
    library: LibraryOption,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with pictures.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --page.")] = False,
) -> Outcome:
    """Compare two models on the same held-out frames, without clean images."""
    from .model_comparison import compare_models, write_page

    shelf = Library(library)
    shelf.runs()
    places = [place_of_model(shelf, model) for model in (a, b)]
    if page is not None:
        require_absent(page, overwrite=overwrite, kind=Kind.PAGE)
        require_apart(page, [*places, *shelf.runs()])
    found = compare_models(shelf, *places)
    lines = [found.sentence()]
    lines += [
        f"{Path(row['run']).parent.name}: A {row['mse_a_adu2']:.4g}, B {row['mse_b_adu2']:.4g}, "
        f"as recorded {row['mse_raw_adu2']:.4g} ADU²"
        + (f"; {row['better']} is better" if row["better"] else "; no difference beyond chance")
        for row in found.result()["runs"]
    ]
    if page is not None:
        write_page(found, page)
        lines.append(f"page: {page}")
    return Outcome({**found.result(), "page": None if page is None else str(page)}, lines)


COMMANDS: dict[str, Callable[..., Outcome]] = {"models compare": compare_two}
