"""What to acquire: planes and pycro-manager's events from the settings of one run.

Owns the reading of position lists. The engine decides how events are carried out.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...storage.bounded_text import read_text
from ..errors import AcquisitionError, MicroscopeError
from .core import Microscope

MOST_BYTES = 16 * 2**20
"""Of a position list."""

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Planes:
    """Where the focus drive will stand, in its own coordinates, µm."""

    start_um: float
    step_um: float
    count: int
    focus_um: float

    @property
    def end_um(self) -> float:
        """The last plane."""
        return self.start_um + (self.count - 1) * self.step_um

    def __str__(self) -> str:
        return (
            f"focus: {self.count} planes from {self.start_um:g} to {self.end_um:g} µm, "
            f"{abs(self.step_um):g} µm apart; it stands at {self.focus_um:g} µm now and returns "
            "there"
        )


def planned_planes(microscope: Microscope) -> Planes | None:
    """Return the planes of a run, None if it has one.

    Raises
    ------
    MicroscopeError
        If there is no focus drive.
    """
    if microscope.settings.z_um is None:
        return None
    focus_um = microscope.focus_um
    if focus_um is None:
        raise MicroscopeError(
            "--z: Micro-Manager has no focus drive in use; choose one as Core-Focus in its "
            "configuration, or leave --z out"
        )
    start, end, step = microscope.settings.z_um
    origin = 0.0 if microscope.settings.z_absolute else focus_um
    count = 1 + math.floor((end - start) / step + 1e-6)
    return Planes(origin + start, step, count, focus_um)


def planned_events(
    microscope: Microscope, time_points: int, *, least_interval_s: float = 0.0
) -> list[Event]:
    """Return the events of a run: time points × positions × channels × planes.

    `least_interval_s` lies between two time points where a shorter interval was asked for.

    Raises
    ------
    MicroscopeError
        If a channel is no preset of the channel group, or there is no focus drive for planes.
    AcquisitionError
        If the position list cannot be read.
    """
    from pycromanager import multi_d_acquisition_events

    settings = microscope.settings
    planned: dict[str, Any] = {
        "num_time_points": time_points,
        "time_interval_s": max(settings.interval_s, least_interval_s),
    }
    planes = planned_planes(microscope)
    if planes is not None:
        # The engine's own count may take a plane too many, by rounding, and drive beyond the end.
        planned |= {
            "z_start": planes.start_um,
            "z_end": planes.start_um + (planes.count - 1.5) * planes.step_um,
            "z_step": planes.step_um,
        }
    if settings.channels:
        microscope.require_channels(settings.channels)
        channels = list(settings.channels)
        planned |= {"channel_group": microscope.channel_group, "channels": channels}
    if settings.positions is not None:
        planned["xy_positions"] = read_positions(settings.positions)
    events: list[Event] = multi_d_acquisition_events(**planned)
    return events


def read_positions(path: Path) -> list[tuple[float, float]]:
    """Read stage positions in µm: Micro-Manager's `.pos` file, or a CSV with x and y per line.

    Raises
    ------
    AcquisitionError
        If it cannot be read, or says of a position no finite numbers: a stage would be sent there.
    """
    try:
        text = read_text(path, most_bytes=MOST_BYTES)
        found = _from_pos_file(json.loads(text)) if text.lstrip()[:1] == "{" else _from_csv(text)
    except OSError as error:
        raise AcquisitionError(
            f"{path}: cannot be read ({error.strerror}); check the path of --positions"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise AcquisitionError(
            f"{path}: is no position list ({error}); save one in Micro-Manager's Stage Position "
            "List, or write x,y in µm on each line"
        ) from error
    if not found:
        raise AcquisitionError(f"{path}: holds no position; add one")
    for place, position in enumerate(found, start=1):
        if not all(map(math.isfinite, position)):
            raise AcquisitionError(
                f"{path}: position {place} is {position}, expected finite x and y in µm; mend it"
            )
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
