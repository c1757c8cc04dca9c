"""What to acquire: pycro-manager's events from the settings of one run.

Owns the reading of position lists. The engine decides how events are carried out.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ..errors import AcquisitionError, MicroscopeError
from .bridge import strings
from .core import Microscope

Event = dict[str, Any]


def planned_events(microscope: Microscope, time_points: int) -> list[Event]:
    """Return the events of a run: time points × positions × channels × planes.

    Raises
    ------
    MicroscopeError
        If a channel is no preset of the channel group.
    AcquisitionError
        If the position list cannot be read.
    """
    from pycromanager import multi_d_acquisition_events

    settings = microscope.settings
    planned: dict[str, Any] = {
        "num_time_points": time_points,
        "time_interval_s": settings.interval_s,
    }
    if settings.z_um is not None:
        planned |= dict(zip(("z_start", "z_end", "z_step"), settings.z_um, strict=True))
    if settings.channels:
        group = _channel_group(microscope, settings.channels)
        planned |= {"channel_group": group, "channels": list(settings.channels)}
    if settings.positions is not None:
        planned["xy_positions"] = read_positions(settings.positions)
    events: list[Event] = multi_d_acquisition_events(**planned)
    return events


def read_positions(path: Path) -> list[tuple[float, float]]:
    """Read stage positions in µm: Micro-Manager's `.pos` file, or a CSV with x and y per line."""
    try:
        text = path.read_text(encoding="utf-8")
        found = _from_pos_file(json.loads(text)) if text.lstrip()[:1] == "{" else _from_csv(text)
    except OSError as error:
        raise AcquisitionError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise AcquisitionError(
            f"{path}: is no position list ({error}); save one in Micro-Manager's Stage Position "
            "List, or write x,y in µm on each line"
        ) from error
    if not found:
        raise AcquisitionError(f"{path}: holds no position; add one")
    return found


def _from_csv(text: str) -> list[tuple[float, float]]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]  # a header
    return [(float(row[0]), float(row[1])) for row in rows]


def _from_pos_file(content: dict[str, Any]) -> list[tuple[float, float]]:
    """Read the property map that Micro-Manager 2 writes."""
    positions = content["map"]["StagePositions"]["array"]
    found = []
    for position in positions:
        xy_stage = position["DefaultXYStage"]["scalar"]
        for device in position["DevicePositions"]["array"]:
            if device["Device"]["scalar"] == xy_stage:
                x, y = device["Position_um"]["array"]
                found.append((float(x), float(y)))
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _channel_group(microscope: Microscope, channels: tuple[str, ...]) -> str:
    core = microscope.core
    group = str(core.get_channel_group())
    presets = strings(core.get_available_configs(group)) if group else []
    unknown = [channel for channel in channels if channel not in presets]
    if unknown:
        raise MicroscopeError(
            f"--channel {unknown[0]}: the channel group {group or '(none)'} has "
            f"{', '.join(presets) or 'no presets'}; give one of them"
        )
    return group
