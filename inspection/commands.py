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
from ..storage.output_kinds import Kind, kind_of

if TYPE_CHECKING:
    from ..calibration.fingerprint import CameraFingerprint
    from ..inference.bundle import Bundle
    from ..inference.library import InUse, Library
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
        Path | None,
        typer.Option(
            help="A library: do its models in use, and calibrations beside its runs, fit? "
            "Without, the one around the recording."
        ),
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
    shelf = _library(library, opened)
    noise_models = [*(noise_model or []), *([] if shelf is None else _noise_models(shelf.path))]
    calibrations = {str(path): _calibration_fit(path, single[0]) for path in noise_models}
    models = {} if shelf is None else _models(shelf, opened)
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


def _library(named: Path | None, stack: Stack) -> Library | None:
    from ..inference.library import Library, library_around

    if named is not None:
        return Library(named)
    return library_around(Path(stack.path)) if Path(stack.path).exists() else None


def _noise_models(library: Path) -> list[Path]:
    """Return the calibrations that lie in a library, beside its runs."""
    return [path for path in sorted(library.glob("*.npz")) if kind_of(path) is Kind.NOISE_MODEL]


def _models(library: Library, stack: Stack) -> dict[str, Any]:
    """Return for each model in use in a library whether it serves this recording, and why not."""
    from ..inference.bundle import open_bundle
    from ..inference.provenance import recorded_camera

    told: dict[str, Any] = {}
    try:
        for one in library.in_use():
            bundle = open_bundle(library.bundle(one.model))
            why = _why_not(one, bundle, stack, recorded_camera(stack))
            told[bundle.path.name] = {
                "fits": not why,
                "why": "; ".join(why),
                "channel": one.channel,
            }
    except QuietscopeError as error:  # a damaged library is told, and hides nothing else
        told[str(library.path)] = {"fits": False, "why": one_line(error), "channel": None}
    return told


def _why_not(one: InUse, bundle: Bundle, stack: Stack, running: CameraFingerprint) -> list[str]:
    from ..inference.bundle import NOISE_MODEL

    why = one.camera.differences(running)
    if one.channel is not None and one.channel not in stack.channel_labels:
        why.append(f"it serves the channel {one.channel}")
    if bundle.manifest.pixel_type != stack.dtype.name:
        why.append(f"it takes {bundle.manifest.pixel_type} pixels")
    calibration = _calibration_fit(bundle.path / NOISE_MODEL, stack)
    if not why and not calibration["fits"]:
        why.append(f"its calibration does not cover it: {calibration['why']}")
    return why


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
    elif any(found.too_small for found in figures):
        yield "next: as repeats of one scene they serve fit-noise; to train, record larger frames"
    elif len(stack) - stack.absent < FEW_FRAMES:
        yield "next: record more frames; a model learns from dozens"
    elif any(found.too_few_pixels for found in figures):
        yield "next: record more frames, or larger ones; these hold too few pixels to learn from"
    elif not any(found.noise_adu for found in figures):
        yield "next: give the camera's own frames; there is nothing to denoise in these"
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
        f"{width} × {height} pixels of {stack.dtype.name}, {_size_in_memory(stack)} in all",
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
        f"{found.mean_adu:.4g}; {_saturation(found)}"
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


def _saturation(found: ChannelFigures) -> str:
    if not found.saturated_pixels:
        return "none saturated"
    share = f" ({found.saturated_share:.2%})" if found.saturated_share >= 1e-4 else ""
    frames = f"{found.frames_sampled} frame{'s' if found.frames_sampled > 1 else ''}"
    return f"{found.saturated_pixels:,} saturated{share} in {frames}"


def _size_in_memory(stack: Stack) -> str:
    size = float(stack.bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}"


def _fits(told: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: fits" if found["fits"] else f"{name}: does not fit: {found['why']}"
        for name, found in told.items()
    ]


COMMANDS: dict[str, Callable[..., Outcome]] = {"inspect": inspect}
