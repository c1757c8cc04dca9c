"""A `useq.MDASequence` as the events of pycro-manager's engine.

Owns the reading of its file, what of it that engine cannot do, and the start of what is relative:
planes and grids without a position of their own lie around where focus and stage stand now, as
those of `--z` do. pymmcore-plus, whose own engine does all of it, is not needed for this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ...errors import one_line, require_extra
from ...storage.bounded_text import read_text
from ..errors import AcquisitionError, MicroscopeError
from .core import Microscope
from .planned_events import Event

MOST_BYTES = 4 * 2**20
MOST_EVENTS = 1_000_000
"""Of a plan that is made before it begins; a longer one is made as it goes, by pymmcore-plus."""

_OWN_ENGINE = "run it with pymmcore-plus' own engine (mmc.run_mda(sequence, output=live))"
_AXES = {"t": "time", "p": "position", "g": "grid", "z": "z"}


def read_sequence(path: Path) -> Any:
    """Read a sequence from YAML or JSON.

    Raises
    ------
    MissingExtraError
        If this installation cannot.
    AcquisitionError
        If it is no sequence.
    """
    require_extra("pymmcore", f"--sequence {path}")
    import useq
    import yaml

    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise AcquisitionError(f"--sequence {path}: expected a file .yaml or .json of useq-schema")
    try:
        text = read_text(path, most_bytes=MOST_BYTES)
    except OSError as error:
        raise AcquisitionError(
            f"--sequence {path}: cannot be read ({error.strerror}); check the path"
        ) from error
    except ValueError as error:
        raise AcquisitionError(f"--sequence {path}: {error}; is it a sequence?") from error
    try:
        if path.suffix.lower() == ".json":
            return useq.MDASequence.model_validate_json(text)
        return useq.MDASequence.model_validate(yaml.safe_load(text))
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise AcquisitionError(
            f"--sequence {path}: is no sequence of useq-schema ({one_line(error)[:300]}); save it "
            "with MDASequence.yaml(), or in the window of pymmcore-gui or napari-micromanager"
        ) from error


def channels_of(sequence: Any) -> tuple[str, ...]:
    """Return the presets that a sequence switches to, its positions' own sequences included."""
    inner = [position.sequence for position in sequence.stage_positions]
    own = [channel.config for channel in sequence.channels]
    of_positions = [name for one in inner if one is not None for name in channels_of(one)]
    return tuple(dict.fromkeys([*own, *of_positions]))


def sequence_events(microscope: Microscope, sequence: Any) -> list[Event]:
    """Return the events of a `useq.MDASequence`.

    What it moves and sets goes back when the microscope is left.

    Parameters
    ----------
    microscope
        Which will run them.
    sequence
        A `useq.MDASequence`.

    Raises
    ------
    AcquisitionError
        If it asks for what the engine cannot do, is empty or has no end.
    MicroscopeError
        If a device or preset is not there.
    """
    from useq.pycromanager import to_pycromanager

    try:
        planned = list(islice(_around_here(microscope, sequence), MOST_EVENTS + 1))
    except (ArithmeticError, ValueError, MemoryError) as error:  # of useq, as it counts them out
        raise AcquisitionError(
            f"--sequence: its images cannot be counted ({one_line(error)}); give its times as "
            "interval and loops, and finite numbers for planes and grid"
        ) from error
    if len(planned) > MOST_EVENTS:
        raise AcquisitionError(
            f"--sequence: has more than {MOST_EVENTS:,} images; divide it, or {_OWN_ENGINE}"
        )
    if not planned:
        raise AcquisitionError("--sequence: takes no image; give it a time plan or channels")
    if sequence.setup is not None:
        raise _cannot("a setup event")
    timed = any(event.min_start_time for event in planned)
    if timed and any(event.reset_event_timer for event in planned[1:]):
        raise _cannot("times that are counted anew in mid-sequence (at each position, say)")
    events: list[Event] = []
    for event in planned:
        _require_possible(event)
        axes: dict[str, int | str] = {
            _AXES[axis]: int(place)
            for axis, place in event.index.items()
            if axis in _AXES  # that of the channel is its name
        }
        made: Event = {**to_pycromanager(event), "axes": axes}
        made.pop("keep_shutter_open", None)
        if event.channel is not None:
            axes["channel"] = str(event.channel.config)
        events.append(made)
    _require_channels(microscope, planned)
    _keep(microscope, planned)
    return events


def spaced(events: list[Event], *, least_interval_s: float) -> list[Event]:
    """Return events that leave so much between two images, where they ask for less."""
    if not least_interval_s:
        return events
    return [
        {**event, "min_start_time": max(event.get("min_start_time", 0.0), n * least_interval_s)}
        for n, event in enumerate(events)
    ]


def remarks(microscope: Microscope, sequence: Any) -> list[str]:
    """Say where what is relative begins, and what of a sequence is done otherwise."""
    found = []
    if _planes_are_relative(sequence) and microscope.focus_um is not None:
        found.append(
            f"focus: planes of the sequence lie around {microscope.focus_um:g} µm, where it "
            "stands now and returns"
        )
    if _grid_is_relative(sequence) and microscope.stage_um is not None:
        x, y = (at + 0.0 for at in microscope.stage_um)  # no -0
        found.append(f"stage: the sequence's grid lies around {x:g}, {y:g} µm, then back there")
    if sequence.keep_shutter_open_across:
        found.append("shutter: closes after every image; this engine keeps none open")
    return found


def _around_here(microscope: Microscope, sequence: Any) -> Iterator[Any]:
    """Yield the events of a sequence, what is relative added to where focus and stage stand."""
    sequence = sequence.model_copy(deep=True)
    _measure_grids(microscope, sequence)
    focus_um, stage_um = microscope.focus_um, microscope.stage_um
    if sequence.stage_positions:
        positions = [_filled(p, sequence, focus_um, stage_um) for p in sequence.stage_positions]
        yield from sequence.replace(stage_positions=positions)
        return
    z_from = focus_um if _planes_are_relative(sequence) else 0.0
    x_from, y_from = stage_um or (0.0, 0.0) if _grid_is_relative(sequence) else (0.0, 0.0)
    for event in sequence:
        moved = {"z_pos": z_from or 0.0, "x_pos": x_from, "y_pos": y_from}
        found = {name: getattr(event, name) for name in moved}
        yield event.model_copy(
            update={n: at + moved[n] for n, at in found.items() if at is not None}
        )


def _planes_are_relative(sequence: Any) -> bool:
    return sequence.z_plan is not None and bool(sequence.z_plan.is_relative)


def _grid_is_relative(sequence: Any) -> bool:
    return sequence.grid_plan is not None and bool(sequence.grid_plan.is_relative)


def _filled(
    position: Any,
    sequence: Any,
    focus_um: float | None,
    stage_um: tuple[float, float] | None,
) -> Any:
    """Return a position that says where its relative planes and its relative grid lie."""
    inner = [sequence] if position.sequence is None else [sequence, position.sequence]
    here: dict[str, float] = {}
    if position.z is None and focus_um is not None and any(map(_planes_are_relative, inner)):
        here["z"] = focus_um
    if stage_um is not None and any(map(_grid_is_relative, inner)):
        here |= {
            axis: at
            for axis, at in zip("xy", stage_um, strict=True)
            if getattr(position, axis) is None
        }
    return position.model_copy(update=here)


def _measure_grids(microscope: Microscope, sequence: Any) -> None:
    """Tell the grids of a sequence how large a field of view is, as pymmcore-plus does.

    Their own word counts only where Micro-Manager does not know.
    """
    inner = [position.sequence for position in sequence.stage_positions]
    for one in [sequence, *(inner_one for inner_one in inner if inner_one is not None)]:
        grid = one.grid_plan
        if grid is None:
            continue
        size_um = microscope.pixel_size_um
        if size_um is None and None in (grid.fov_width, grid.fov_height):
            raise MicroscopeError(
                "--sequence: has a grid, and Micro-Manager does not know the size of a pixel; "
                "calibrate it there, or give the grid fov_width and fov_height"
            )
        height, width = microscope.frame_shape
        if size_um is not None:
            grid.fov_width, grid.fov_height = width * size_um, height * size_um


def _require_possible(event: Any) -> None:
    if event.action is not None and event.action.type != "acquire_image":
        raise _cannot(f"the action {event.action.type}")
    for what, there in (
        ("a region of the camera for single events (give --roi)", event.roi),
        ("patterns of a light modulator", event.slm_image),
    ):
        if there is not None:
            raise _cannot(what)
    for name in ("x_pos", "y_pos", "z_pos", "exposure", "min_start_time"):
        value = getattr(event, name)
        if value is not None and not math.isfinite(value):
            raise AcquisitionError(
                f"--sequence: {name} is {value} in one of its events, expected a finite number"
            )


def _cannot(what: str) -> AcquisitionError:
    return AcquisitionError(
        f"--sequence: has {what}, which pycro-manager's engine cannot do; leave it out, or "
        f"{_OWN_ENGINE}"
    )


def _require_channels(microscope: Microscope, events: list[Any]) -> None:
    """Refuse presets that are not there, and one name for two of them."""
    wanted = {(str(e.channel.group), str(e.channel.config)) for e in events if e.channel}
    for group, preset in sorted(wanted):
        known = microscope.presets(group)
        if preset not in known:
            raise MicroscopeError(
                f"--sequence: channel {preset} of group {group}: Micro-Manager has "
                f"{', '.join(known) or 'no such group'}; give one of them"
            )
    if len({preset for _, preset in wanted}) < len(wanted):
        raise _cannot("presets of the same name in two groups")


def _keep(microscope: Microscope, events: list[Any]) -> None:
    """Have everything that the events set go back when the microscope is left."""
    for group in {str(event.channel.group) for event in events if event.channel}:
        microscope.keep_channel(group)
    for device, name in {(p[0], p[1]) for event in events for p in event.properties or ()}:
        microscope.keep_property(name, device=device)
    if any(event.exposure is not None for event in events):
        microscope.keep_exposure()
    if any(event.z_pos is not None for event in events):
        microscope.keep_focus()
    if any(event.x_pos is not None or event.y_pos is not None for event in events):
        microscope.keep_stage()
