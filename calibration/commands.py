"""The commands of `calibration`, as plain functions that return an Outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..reporting.console import Outcome, progress
from ..reporting.stack_options import StackOpener, opens_stacks
from ..storage.atomic_output import require_absent, require_apart
from ..storage.output_kinds import Kind
from .errors import CalibrationError

if TYPE_CHECKING:
    from ..storage.stack import Stack


@opens_stacks
def fit_noise(
    stacks: Annotated[
        list[Path],
        typer.Argument(
            help="Repeats of one static scene: one stack per light level, or one stack of a scene "
            "with bright and dark parts. OME-Zarr, Zarr, TIFF or NDTiff."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The noise model to write (npz).")],
    dark: Annotated[Path | None, typer.Option(help="Repeats without light.")] = None,
    offset: Annotated[
        str | None,
        typer.Option(metavar="ADU|MAP.tif", help="Known offset instead of dark frames."),
    ] = None,
    dark_series: Annotated[
        list[Path] | None,
        typer.Option(help="Repeats without light at several exposures, for the dark current."),
    ] = None,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Ordinary noisy recordings instead of repeats.")
    ] = False,
    channel: Annotated[int, typer.Option(min=0, help="Channel of the stacks.")] = 0,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A recording to be denoised: is its range of intensities covered?"),
    ] = None,
    juglab: Annotated[
        Path | None, typer.Option(help="Write it for PPN2V, DivNoising and CAREamics as well.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The figure page; next to --out when not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    seed: Annotated[int, typer.Option(help="Of the draw of pixels.")] = 0,
    *,
    open_with: StackOpener,
) -> Outcome:
    """Fit a noise model to recorded repeats, or to ordinary data with --bootstrap."""
    from .noise_files import save_noise_model

    page = report or out.with_suffix(".html")
    open_channel = partial(_open, open_with, channel)
    opened = [open_channel(path) for path in stacks]
    inputs = [stack.path for stack in opened] + [path for path in (dark, offset) if path]
    _require_free(
        [(out, Kind.NOISE_MODEL), (page, Kind.PAGE), (juglab, Kind.NOISE_MODEL)],
        [*inputs, *(data or []), *(dark_series or [])],
        overwrite=overwrite,
    )
    if bootstrap:
        if dark is not None or offset is not None or dark_series:
            raise typer.BadParameter(
                "--bootstrap needs repeats for --dark, --dark-series or --offset; leave it"
            )
        result, summary, model = _bootstrapped(opened, seed)
    else:
        result, summary, model = _calibrated(
            opened, dark, offset, open_channel, seed, page, data, dark_series
        )
    save_noise_model(model, out, overwrite=overwrite)
    summary.append(f"noise model {out}" + ("" if bootstrap else f", figures {page}"))
    if juglab is not None:
        from .juglab_files import save_juglab_noise_model

        cost = save_juglab_noise_model(model, juglab, overwrite=overwrite)
        summary.append(f"for PPN2V and CAREamics {juglab} (differs by {cost:.2g} nats)")
    return Outcome({**result, "out": str(out)}, summary)


def _require_free(
    outputs: Sequence[tuple[Path | None, Kind]], inputs: Sequence[Path | str], *, overwrite: bool
) -> None:
    """Check outputs before any work: apart from inputs and each other, and replaceable."""
    before: list[Path] = []
    for path, kind in outputs:
        if path is None:
            continue
        require_apart(path, [*inputs, *before])
        require_absent(path, overwrite=overwrite, kind=kind)
        before.append(path)


def _open(open_with: StackOpener, channel: int, path: Path) -> Stack:
    stack = open_with(path)
    channels = stack.sizes.get("channel", 1)
    if channel >= channels:
        raise CalibrationError(
            f"{path}: has {channels} channels, --channel {channel} asks for another; count from 0"
        )
    return stack.channel(channel)


def _calibrated(
    stacks: list[Stack],
    dark: Path | None,
    offset: str | None,
    open_channel: Callable[[Path], Stack],
    seed: int,
    page: Path,
    data: list[Path] | None,
    dark_series: list[Path] | None,
) -> tuple[dict[str, Any], list[str], Any]:
    from .fit_camera import fit_camera
    from .report import write_report

    with progress() as bar:
        task = bar.add_task("reading frames", total=100, note="")
        calibration = fit_camera(
            stacks,
            dark=None if dark is None else open_channel(dark),
            offset_adu=None if offset is None else read_offset(offset),
            dark_series=[open_channel(path) for path in dark_series or []],
            data=[open_channel(path) for path in data or []],
            seed=seed,
            on_progress=lambda step, share: bar.update(
                task, description=step, completed=int(100 * share)
            ),
        )
    write_report(calibration, page)
    return (
        {**calibration.result(), "report": str(page)},
        calibration.summary(),
        calibration.noise_model,
    )


def _bootstrapped(stacks: list[Stack], seed: int) -> tuple[dict[str, Any], list[str], Any]:
    import time

    from .bootstrap import bootstrap_noise_model
    from .checks import gain_known

    begun = time.perf_counter()
    model = bootstrap_noise_model(stacks, seed=seed)
    law = model.photon_transfer
    low, high = model.signal_range_adu
    result: dict[str, Any] = {
        "gain_adu_per_e": law.gain_adu_per_e if law.gain_known else None,
        "offset_adu": None,
        "read_noise_e": None,
        "saturation_adu": law.saturation_adu,
        "source": model.source,
        "levels": [
            {"mean_adu": mean, "variance_adu2": variance, "model_variance_adu2": variance}
            for mean, variance in zip(
                model.signal_adu.tolist(), model.variance_adu2.tolist(), strict=True
            )
        ],
        "held_out_nll": {},
        "checks": [gain_known(law).result()],
        "seconds": time.perf_counter() - begun,
    }
    summary = [
        "bootstrapped from ordinary data, not calibrated: good enough to start, no offset known",
        f"gain          about {law.gain_adu_per_e:.3g} ADU/e⁻"
        if law.gain_known
        else "gain          not known: in these frames the noise does not grow with light",
        f"signals       {low:.0f} to {high:.0f} ADU, beyond it a straight line",
    ]
    return result, summary, model


def read_offset(text: str) -> Any:
    """Return --offset as a number, or as a map (Y, X) from a one-frame image file.

    Raises
    ------
    CalibrationError
        If it is neither.
    """
    import numpy as np

    from ..storage.open_stack import open_stack

    try:
        return float(text)
    except ValueError:
        pass
    stack = open_stack(text)
    if len(stack) != 1:
        raise CalibrationError(
            f"--offset {text}: holds {len(stack)} frames, expected one map of the offset; give "
            "repeats without light as --dark instead"
        )
    return stack.frame(0).astype(np.float64)


COMMANDS: dict[str, Callable[..., Outcome]] = {"fit-noise": fit_noise}
