"""What a calibration needs: dark frames and a ladder of light levels.

Owns the choice of levels and the search for saturation. How a level is recorded is written in
`level_recorder`, the command in `calibrate`; what the frames say about the camera is worked out by
`calibration`.

Light is varied by exposure time, by a property of a device (lamp, laser), or by hand.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..reporting.console import stderr
from ..storage.atomic_output import require_absent, require_space
from ..storage.directory_lock import owned
from ..storage.output_kinds import Kind
from ..storage.stack import Stack
from .errors import AcquisitionError, MicroscopeError
from .level_recorder import LevelRecorder, Progress, RecordedLevel
from .microscope.bridge import strings
from .microscope.core import Microscope

LEVELS = 12
FRAMES_PER_LEVEL = 50
LIGHT_SECONDS = 12.0
"""How long the camera may expose in all, when the brightest exposure is found by trial."""
TOP_SHARE = 0.85
"""How close to saturation the brightest level aims."""
SATURATED_SHARE = 1e-4
MEAN_OVER_TOP = 0.37
"""Mean exposure of the ladder over its longest one."""
LOWEST_SHARE = 1 / 256
"""The dimmest level, as a share of the brightest."""

LightSource = Literal["exposure", "property", "hand"]


@dataclass(frozen=True, slots=True)
class Light:
    """How the light is varied.

    Attributes
    ----------
    by
        'exposure' (time in ms), 'property' (of `device`), or 'hand' (a person, at a prompt).
    device, name
        The property, for example a lamp's 'Intensity'.
    low, high
        Its range; for exposures in ms. None: found by trial.
    """

    by: LightSource = "exposure"
    device: str | None = None
    name: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LadderRecording:
    """Dark frames and light levels on disk.

    Attributes
    ----------
    directory
        Where the stacks lie; removed afterwards unless it was asked to keep them.
    dark
        Repeats without light; None if there were none.
    levels
        Repeats of each unsaturated level, dim to bright.
    exposures_ms
        Exposure of each of them.
    saturated
        Levels that were recorded and left out.
    """

    directory: Path
    dark: Stack | None
    levels: tuple[Stack, ...]
    exposures_ms: tuple[float, ...]
    saturated: tuple[RecordedLevel, ...] = ()


@contextmanager
def record_ladder(
    microscope: Microscope,
    *,
    levels: int = LEVELS,
    frames_per_level: int = FRAMES_PER_LEVEL,
    light: Light | None = None,
    dark: bool = True,
    keep: Path | None = None,
    overwrite: bool = False,
    prompt: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
) -> Iterator[LadderRecording]:
    """Record a ladder of light levels and yield its stacks; settings are put back at the end.

    Parameters
    ----------
    microscope
        An open microscope with the ROI and binning of the experiment.
    levels, frames_per_level
        Size of the ladder.
    light
        How light is varied; by exposure time when not given.
    dark
        Whether dark frames are recorded first: with the shutter closed; on the demo camera, which
        has none, with an exposure of 0; at a prompt if light is varied by hand.
    keep
        Folder for the stacks (OME-Zarr); a temporary one when not given.
    prompt
        Shows a sentence and returns when the person is ready.
    on_progress
        Called with a line of text, frames done and frames in all.

    Raises
    ------
    AcquisitionError
        If frames stay away, or fewer than two levels are below saturation.
    """
    light = light or Light()
    with _folder(microscope, keep, (levels + 1) * frames_per_level, overwrite) as directory:
        restore = _prepare(microscope)
        try:
            recorder = LevelRecorder(microscope, directory, frames_per_level, levels, on_progress)
            with recorder.running():
                yield_value = _record(recorder, microscope, light, dark, prompt or wait_for_enter)
        finally:
            restore()
        yield yield_value


@contextmanager
def _folder(
    microscope: Microscope, keep: Path | None, frames: int, overwrite: bool
) -> Iterator[Path]:
    height, width = microscope.frame_shape
    size = frames * height * width * np.dtype(microscope.pixel_type).itemsize
    if keep is not None:
        require_space(keep, size)
        with owned(keep):
            require_absent(keep, overwrite=overwrite, kind=Kind.LIGHT_LEVELS)
            keep.mkdir(parents=True, exist_ok=True)
            yield keep
        return
    # On Windows a file that is still mapped cannot be removed at once; it is then left behind.
    with tempfile.TemporaryDirectory(prefix="quietscope-", ignore_cleanup_errors=True) as folder:
        require_space(Path(folder), size)
        yield Path(folder)


def _prepare(microscope: Microscope) -> Callable[[], None]:
    """Make ready for the ladder; returns what puts it back."""
    core = microscope.core
    exposure = microscope.exposure_ms
    shutter = core.get_auto_shutter()
    mode = microscope.property_or_none("Mode")
    if microscope.settings.simulated:
        # Its other modes are noise-free pictures.
        microscope.set_property("Mode", "Noise")

    def restore() -> None:
        core.set_exposure(exposure)
        core.set_auto_shutter(shutter)
        if microscope.settings.simulated and mode is not None:
            core.set_property(microscope.camera, "Mode", mode)

    return restore


def _record(
    recorder: LevelRecorder,
    microscope: Microscope,
    light: Light,
    with_dark: bool,
    prompt: Callable[[str], None],
) -> LadderRecording:
    dark = _record_dark(recorder, microscope, light, prompt) if with_dark else None
    rung = _rungs(recorder, microscope, light, dark, prompt)
    kept: list[tuple[Stack, float]] = []
    saturated: list[RecordedLevel] = []
    for number, setting in enumerate(rung):
        found = recorder.level(f"level-{number + 1:02d}", setting)
        if found.saturated_share > SATURATED_SHARE:
            saturated.append(found)
            if light.by != "hand":
                break  # brighter ones would be saturated as well
            continue
        kept.append((recorder.last_stack(), microscope.exposure_ms))
    if len(kept) < 2:
        raise AcquisitionError(
            f"light ladder: {len(kept)} levels below saturation ({len(saturated)} saturated), "
            "expected at least 2; use less light or shorter exposures"
        )
    return LadderRecording(
        directory=recorder.directory,
        dark=dark,
        levels=tuple(stack for stack, _ in kept),
        exposures_ms=tuple(exposure for _, exposure in kept),
        saturated=tuple(saturated),
    )


def _record_dark(
    recorder: LevelRecorder, microscope: Microscope, light: Light, prompt: Callable[[str], None]
) -> Stack:
    core = microscope.core
    if microscope.settings.simulated:
        before = microscope.exposure_ms
        microscope.exposure_ms = 0.0  # its shutter changes nothing
        recorder.level("dark", 0.0)
        microscope.exposure_ms = before
        return recorder.last_stack()
    shutter = str(core.get_shutter_device())
    automatic = bool(core.get_auto_shutter())
    if shutter:
        core.set_auto_shutter(False)
        core.set_shutter_open(False)
        core.wait_for_device(shutter)
    else:
        prompt("Dark frames: close the shutter or cover the camera")
    try:
        recorder.level("dark", None)
    finally:
        if shutter:
            core.set_auto_shutter(automatic)
            if not automatic:
                core.set_shutter_open(True)
    if not shutter:
        prompt("Light levels: open the shutter or uncover the camera")
    return recorder.last_stack()


# ------------------------------------------------------------------------------ the rungs


def _rungs(
    recorder: LevelRecorder,
    microscope: Microscope,
    light: Light,
    dark: Stack | None,
    prompt: Callable[[str], None],
) -> Iterator[float | None]:
    """Set one light level after the other, and yield its setting when the light is there."""
    if light.by == "hand":
        for number in range(recorder.levels):
            prompt(
                f"Light level {number + 1} of {recorder.levels}: set the light"
                + (" as dim as you will use it" if number == 0 else " brighter")
            )
            yield None
        return
    if light.by == "property":
        for value in _property_values(microscope, light, recorder.levels):
            microscope.set_property(_required(light.name), value, device=light.device)
            microscope.core.wait_for_device(light.device or microscope.camera)
            yield value
        return
    top = light.high or _brightest_exposure_ms(recorder, microscope, dark)
    for exposure in ladder_values(light.low or top * LOWEST_SHARE, top, recorder.levels):
        microscope.exposure_ms = exposure
        yield exposure


def ladder_values(low: float, high: float, count: int) -> list[float]:
    """Return `count` values from `low` to `high`, evenly spaced in their square root.

    So are the standard deviations of photon noise, which is what the ladder has to sample.
    """
    roots = np.linspace(math.sqrt(max(low, 0.0)), math.sqrt(high), count)
    return [float(root**2) for root in roots]


def _required(name: str | None) -> str:
    if name is None:
        raise MicroscopeError("light: no property was named; give --light DEVICE-PROPERTY")
    return name


def _property_values(microscope: Microscope, light: Light, count: int) -> list[float]:
    core, device = microscope.core, light.device or microscope.camera
    name = _required(light.name)
    if not core.has_property(device, name):
        raise MicroscopeError(
            f"light: {device} has no property {name}; it has "
            f"{', '.join(strings(core.get_device_property_names(device)))}"
        )
    low, high = light.low, light.high
    if core.has_property_limits(device, name):
        low = float(core.get_property_lower_limit(device, name)) if low is None else low
        high = float(core.get_property_upper_limit(device, name)) if high is None else high
    if low is None or high is None:
        raise MicroscopeError(
            f"light: {device}-{name} names no limits of its own; give --light-range LOW,HIGH"
        )
    return ladder_values(low, high, count)


def _brightest_exposure_ms(
    recorder: LevelRecorder, microscope: Microscope, dark: Stack | None
) -> float:
    """Find the exposure at which the camera is nearly full, by trial."""
    offset = float(np.mean(next(iter(dark)))) if dark is not None else 0.0
    exposure = max(microscope.exposure_ms, 1.0)
    for _ in range(8):
        microscope.exposure_ms = exposure
        bright = float(np.percentile(recorder.trial(), 99.9))
        if bright < microscope.saturation_adu * 0.95:
            break
        exposure /= 4
    light = max(bright - offset, 1.0)
    wanted = exposure * TOP_SHARE * (microscope.saturation_adu - offset) / light
    affordable = 1000 * LIGHT_SECONDS / (recorder.frames * recorder.levels * MEAN_OVER_TOP)
    return float(min(wanted, max(affordable, exposure)))


def wait_for_enter(sentence: str) -> None:
    """Show `sentence` and return when the person has pressed Enter."""
    stderr.print(f"{sentence}, then press Enter.")
    try:
        input()
    except EOFError as error:
        raise AcquisitionError(
            "light by hand needs a person at the keyboard; give --light DEVICE-PROPERTY, or vary "
            "the exposure"
        ) from error
