"""The command line's MICROSCOPE options, the same for every command that needs one.

Owns their spelling and the refusal of contradictions (exit status 2). What they mean is written
in `settings`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ...reporting.console import Outcome
from .bridge import DEFAULT_PORT
from .core import MicroscopeSettings

PARAMETER = "microscope"
PANEL = "MICROSCOPE"
MOST_PLANES = 10_000

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "demo": (
        bool,
        typer.Option(
            False,
            "--demo",
            help="A simulation (the default): Micro-Manager's demo camera, and before it a "
            "simulated living specimen.",
        ),
    ),
    "specimen": (
        bool,
        typer.Option(
            True,
            "--specimen/--no-specimen",
            help="With the demo camera: the simulated specimen, or the camera's own pictures.",
        ),
    ),
    "mm_dir": (Path | None, typer.Option(None, help="Folder of a Micro-Manager installation.")),
    "config": (Path | None, typer.Option(None, help="Its hardware configuration file.")),
    "attach": (
        bool,
        typer.Option(False, "--attach", help="The Micro-Manager that is running here."),
    ),
    "port": (int, typer.Option(DEFAULT_PORT, min=1, max=65535, help="Its server's port.")),
    "exposure_ms": (float | None, typer.Option(None, min=0.0, help="Exposure time.")),
    "roi": (str | None, typer.Option(None, metavar="X,Y,W,H", help="Region of the sensor.")),
    "channel": (
        list[str] | None,
        typer.Option(None, metavar="NAME", help="Preset of the channel group; may be repeated."),
    ),
    "interval_s": (float, typer.Option(0.0, min=0.0, help="Least time between time points.")),
    "z": (
        str | None,
        typer.Option(
            None,
            metavar="START,END,STEP",
            help="Planes in µm from the present focus (-2,2,0.5: around it), which returns.",
        ),
    ),
    "z_absolute": (
        bool,
        typer.Option(
            False, "--z-absolute", help="START and END are the focus drive's own coordinates."
        ),
    ),
    "positions": (
        Path | None,
        typer.Option(None, help="Micro-Manager's .pos file, or a CSV of x,y in µm."),
    ),
}


def takes_microscope(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Give `command` the MICROSCOPE options in place of its parameter `microscope`.

    The command then looks like ``def record(*, out: …, microscope: MicroscopeSettings)``.
    """

    @functools.wraps(command)
    def run(**arguments: Any) -> Outcome:
        options = {name: arguments.pop(name, None) for name in _OPTIONS}
        return command(**arguments, **{PARAMETER: settings_from_options(**options)})

    signature = inspect.signature(command, eval_str=True)
    own = [p for name, p in signature.parameters.items() if name != PARAMETER]
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=Annotated[kind, _without_default(option)],
        )
        for name, (kind, option) in _OPTIONS.items()
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    )
    return run


def settings_from_options(
    *,
    demo: bool = False,
    specimen: bool = True,
    mm_dir: Path | None = None,
    config: Path | None = None,
    attach: bool = False,
    port: int = DEFAULT_PORT,
    exposure_ms: float | None = None,
    roi: str | None = None,
    channel: list[str] | None = None,
    interval_s: float = 0.0,
    z: str | None = None,
    z_absolute: bool = False,
    positions: Path | None = None,
) -> MicroscopeSettings:
    """Turn the options into settings.

    Raises
    ------
    typer.BadParameter
        If they contradict each other or a list of numbers is none.
    """
    if [demo, attach, mm_dir is not None or config is not None].count(True) > 1:
        raise typer.BadParameter("choose one of --demo, --mm-dir with --config, and --attach")
    if (mm_dir is None) != (config is None):
        raise typer.BadParameter("--mm-dir and --config belong together; give both")
    region = _numbers("--roi", roi, "X,Y,W,H", int)
    planes = _numbers("--z", z, "START,END,STEP", float)
    if planes and planes[2] == 0:
        raise typer.BadParameter(f"--z {z}: the step is 0; give the distance of two planes in µm")
    if planes and (planes[1] - planes[0]) / planes[2] < 0:
        raise typer.BadParameter(
            f"--z {z}: steps of {planes[2]:g} µm lead away from the end; give {-planes[2]:g}"
        )
    if planes and (planes[1] - planes[0]) / planes[2] >= MOST_PLANES:
        raise typer.BadParameter(
            f"--z {z}: more than {MOST_PLANES:,} planes; the step is given in µm"
        )
    twice = [name for name in channel or () if (channel or []).count(name) > 1]
    if twice:
        raise typer.BadParameter(f"--channel {twice[0]}: was given twice; leave one of them out")
    if z_absolute and z is None:
        raise typer.BadParameter("--z-absolute belongs to --z START,END,STEP; give both")
    return MicroscopeSettings(
        demo=demo,
        specimen=specimen is not False and not (attach or mm_dir),
        mm_dir=mm_dir,
        config=config,
        attach=attach,
        port=port or DEFAULT_PORT,
        exposure_ms=exposure_ms,
        roi=(region[0], region[1], region[2], region[3]) if region else None,
        channels=tuple(channel or ()),
        interval_s=interval_s or 0.0,
        z_um=(planes[0], planes[1], planes[2]) if planes else None,
        z_absolute=z_absolute or False,
        positions=positions,
    )


def _numbers(
    name: str, text: str | None, form: str, kind: Callable[[str], Any]
) -> list[Any] | None:
    if text is None:
        return None
    try:
        numbers = [kind(part) for part in text.split(",")]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{name} {text}: expected {form} as finite numbers") from error
    if len(numbers) != form.count(",") + 1:
        raise typer.BadParameter(f"{name} {text}: expected {form}")
    return numbers


def _without_default(option: Any) -> Any:
    """Typer wants the default in the signature, not in an Annotated option."""
    import copy

    bare = copy.copy(option)
    bare.default = ...
    bare.rich_help_panel = PANEL
    return bare
