"""`quietscope inspect`: what the product sees in a file, and what to do next.

Owns the command and its words. It stands above `inference`, because it asks the models of a
library whether they fit, and beside `doctor`, which examines the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import QuietscopeError, one_line
from ..reporting.console import Outcome, command_line
from ..reporting.stack_options import StackOpener, opens_stacks

if TYPE_CHECKING:
    from ..storage.stack import Stack
    from .channel_figures import ChannelFigures

FEW_FRAMES = 4
"""A model can be trained on fewer, and is not worth it."""


@opens_stacks
def inspect(
    stack: Annotated[
        str, typer.Argument(help="A recording in any format, a recorded run, or a URL of one.")
    ],
    noise_model: Annotated[
        list[Path] | None, typer.Option(help="A calibration: does it fit this recording?")
    ] = None,
    library: Annotated[
        Path | None, typer.Option(help="A library: do the models in use fit this recording?")
    ] = None,
    *,
    open_with: StackOpener,
) -> Outcome:
    """Show what is in a recording: axes, frames, pixels, noise, and what to do next."""
    from .channel_figures import channel_figures

    opened = open_with(stack)
    count = opened.sizes.get("channel", 1)
    single = [opened.channel(number) for number in range(count)]
    figures = [
        channel_figures(one, name)
        for one, name in zip(single, _labels(opened), strict=False)
        if one.absent < len(one)
    ]
    calibrations = {str(path): _calibration_fit(path, single[0]) for path in noise_model or []}
    models = {} if library is None else _models(library, opened)
    advice = [*_advice(stack, opened, figures, calibrations, models)]
    result = {
        **_facts(opened),
        "figures": [found.result() for found in figures],
        "calibrations": calibrations,
        "models": models,
        "advice": advice,
    }
    return Outcome(result, [*_lines(opened, figures), *_fits(calibrations | models), *advice])


def _labels(stack: Stack) -> tuple[str, ...]:
    """Return what to call the channels; one without a name is simply its pixels."""
    alone = stack.sizes.get("channel", 1) == 1 and not any(stack.channel_names)
    return ("pixels",) if alone else stack.channel_labels


def _facts(stack: Stack) -> dict[str, Any]:
    return {
        "path": str(stack.path),
        "axes": dict(stack.sizes),
        "frames": len(stack) - stack.absent,
        "frames_absent": stack.absent,
        "frame_shape": list(stack.frame_shape),
        "pixel_type": stack.dtype.name,
        "bytes": stack.bytes,
        "pixel_size_yx_um": stack.pixel_size_yx_um,
        "z_step_um": stack.z_step_um,
        "time_interval_s": stack.time_interval_s,
        "channels": list(stack.channel_names),
        "axis_values": {name: list(values) for name, values in stack.axis_values.items()},
        "camera": stack.camera,
        "exposure_ms": stack.exposure_ms,
        "remarks": list(stack.remarks),
    }


def _calibration_fit(path: Path, stack: Stack) -> dict[str, Any]:
    """Return whether a noise model belongs to a recording, and why not."""
    from ..calibration.checks import coverage_of_data
    from ..calibration.noise_files import load_noise_model
    from ..inference.provenance import recorded_camera

    try:
        model = load_noise_model(path)
        differences = model.fingerprint.differences(recorded_camera(stack))
        coverage = coverage_of_data(model, stack)
    except QuietscopeError as error:
        return {"fits": False, "why": one_line(error)}
    why = [*differences, *([] if coverage.passed else [coverage.says])]
    return {"fits": not why, "why": "; ".join(why), "pixels_outside": coverage.value}


def _models(library: Path, stack: Stack) -> dict[str, Any]:
    """Return which models of a library serve this recording; another pixel type is told."""
    from ..inference.bundle import open_bundle
    from ..inference.library import Library
    from ..inference.provenance import recorded_camera

    found = Library(library).serving(recorded_camera(stack), stack.channel_labels)
    told = {}
    for channel, path in found.items():
        taken = open_bundle(path).manifest.pixel_type
        why = "" if taken == stack.dtype.name else f"it takes {taken} pixels"
        told[path.name] = {"fits": not why, "why": why, "channel": channel}
    return told


def _advice(
    given: str,
    stack: Stack,
    figures: list[ChannelFigures],
    calibrations: Mapping[str, Any],
    models: Mapping[str, Any],
) -> Iterator[str]:
    for found in figures:
        yield from found.advice()
    if stack.pixel_size_um is None:
        yield "no pixel size is known: results carry none; set it in Micro-Manager, or in the file"
    usable = next((name for name, told in models.items() if told["fits"]), None)
    if usable is not None:
        yield f"next: {command_line('denoise', given, '--out', 'denoised.ome.zarr')} by {usable}"
    elif len(stack) - stack.absent < FEW_FRAMES:
        yield "next: record more frames; a model learns from dozens"
    else:
        fitting = next((name for name, told in calibrations.items() if told["fits"]), None)
        with_model = ["--noise-model", fitting] if fitting else []
        channel = (
            ["--channel", stack.channel_labels[0]] if stack.sizes.get("channel", 1) > 1 else []
        )
        words = ["train", given, *channel, *with_model, "--out", "model"]
        yield f"next: {command_line(*words)}"


def _lines(stack: Stack, figures: list[ChannelFigures]) -> list[str]:
    height, width = stack.frame_shape
    axes = " × ".join(f"{name} {size}" for name, size in stack.sizes.items())
    lines = [
        f"{stack.frames_there}: {axes}",
        f"{width} × {height} pixels of {stack.dtype.name}, {stack.bytes / 2**20:,.0f} MiB in all",
        _physical(stack),
    ]
    for name, values in stack.axis_values.items():
        shown = ", ".join(str(value) for value in values[:8])
        lines.append(f"{name}: {shown}{' …' if len(values) > 8 else ''}")
    for found in figures:
        lines += _channel_lines(found)
    return [line for line in lines if line]


def _physical(stack: Stack) -> str:
    known = (
        (stack.pixel_size_um, "pixel {:g} µm"),
        (stack.z_step_um, "z step {:g} µm"),
        (stack.time_interval_s, "every {:g} s"),
        (stack.exposure_ms, "exposure {:g} ms"),
        (stack.camera, "camera {}"),
    )
    return ", ".join(words.format(value) for value, words in known if value is not None)


def _channel_lines(found: ChannelFigures) -> list[str]:
    lines = [
        f"{found.channel}: {found.lowest_adu:g} to {found.highest_adu:g} ADU, mean "
        f"{found.mean_adu:.4g}; {found.saturated_share:.2%} saturated"
    ]
    if found.noise_adu is not None:
        gain = found.gain_adu_per_e
        lines.append(
            f"  noise about {found.noise_adu:.3g} ADU at the mean"
            + (f", gain about {gain:.3g} ADU/e⁻" if gain else "")
            + " (bootstrapped)"
        )
    if found.noise_correlation_xy is not None:
        x, y = found.noise_correlation_xy
        moved = "rests" if not found.moved_share else f"moves ({found.moved_share:.2g})"
        lines.append(f"  neighbours correlate {x:.3f} along x, {y:.3f} along y; the scene {moved}")
    return lines


def _fits(told: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: fits" if found["fits"] else f"{name}: does not fit: {found['why']}"
        for name, found in told.items()
    ]


COMMANDS: dict[str, Callable[..., Outcome]] = {"inspect": inspect}
