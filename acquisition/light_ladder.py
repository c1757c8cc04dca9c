"""What a calibration needs: dark frames and a ladder of light levels.

Owns the choice of levels and the search for saturation. How a level is recorded is written in
`level_recorder`, the command in `calibrate`; what the frames say about the camera is worked out by
`calibration`.

Light is varied by exposure time, by a property of a device (lamp, laser), or by hand.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..reporting.console import stderr
from ..reporting.told import ask, is_told
from ..storage.atomic_output import require_absent, require_space
from ..storage.directory_lock import owned
from ..storage.output_kinds import Kind
from ..storage.stack import Stack
from .errors import AcquisitionError, MicroscopeError
from .level_recorder import LevelRecorder, OnLevel, Progress, RecordedLevel
from .microscope.core import Microscope
from .microscope.demo_camera import show_even_field

LEVELS = 12
FRAMES_PER_LEVEL = 50
LIGHT_SECONDS = 30.0
"""How long the camera may expose in all, when the brightest exposure is found by trial."""
TOP_SHARE = 0.85
"""How close to saturation the brightest level aims."""
SATURATED_SHARE = 1e-4
LOWEST_SHARES = (1 / 4096, 1 / 64)
"""The dimmest exposure, as a share of the brightest: least and most."""
LOWEST_OVER_NOISE = 3.0
"""Light of the dimmest level over the noise without light: dimmer ones would tell nothing more."""
LIT_ADU, LIT_SHARE = 3.0, 0.02
"""Dark frames count as lit from this much above where the light levels' line begins, absolute and
as a share of the middle level's light: more than rounding and a camera's bend at its foot."""

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
    on_level: OnLevel | None = None,
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
    on_level
        Called with the name and the figures of a level once it was recorded.

    Raises
    ------
    AcquisitionError
        If frames stay away, fewer than two levels are below saturation, or dark frames are lit.
    MicroscopeError
        If another program is acquiring with the microscope.
    """
    light = light or Light()
    microscope.require_idle("a calibration")
    with _folder(microscope, keep, (levels + 1) * frames_per_level, overwrite) as directory:
        with microscope.temporarily():
            if microscope.settings.simulated:
                show_even_field(microscope)
            recorder = LevelRecorder(
                microscope, directory, frames_per_level, levels, on_progress, on_level
            )
            with recorder.running():
                recording = _record(recorder, microscope, light, dark, prompt or wait_for_enter)
        yield recording


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


def _record(
    recorder: LevelRecorder,
    microscope: Microscope,
    light: Light,
    with_dark: bool,
    prompt: Callable[[str], None],
) -> LadderRecording:
    dark = _record_dark(recorder, microscope, prompt) if with_dark else None
    dark_stack = recorder.last_stack() if dark is not None else None
    kept: list[tuple[Stack, float, RecordedLevel]] = []
    saturated: list[RecordedLevel] = []
    for number, setting in enumerate(_rungs(recorder, microscope, light, dark, prompt)):
        found = recorder.level(f"level-{number + 1:02d}", setting)
        if found.saturated_share > SATURATED_SHARE:
            saturated.append(found)
            if light.by != "hand":
                break  # brighter ones would be saturated as well
            continue
        kept.append((recorder.last_stack(), microscope.exposure_ms, found))
    if len(kept) < 2:
        raise AcquisitionError(
            f"light ladder: {len(kept)} levels below saturation ({len(saturated)} saturated), "
            "expected at least 2; use less light or shorter exposures"
        )
    stacks, exposures_ms, levels = zip(*kept, strict=True)
    if dark is not None:
        require_dark(
            dark.mean_adu,
            [level.mean_adu for level in levels],
            exposures_ms if light.by == "exposure" else None,
            shutter=microscope.shutter,
        )
    return LadderRecording(recorder.directory, dark_stack, stacks, exposures_ms, tuple(saturated))


def _record_dark(
    recorder: LevelRecorder, microscope: Microscope, prompt: Callable[[str], None]
) -> RecordedLevel:
    if microscope.settings.simulated:
        with microscope.temporarily():
            microscope.exposure_ms = 0.0  # its shutter changes nothing
            return recorder.level("dark", 0.0)
    if microscope.shutter:
        with microscope.darkness():
            return recorder.level("dark", None)
    prompt("Dark frames: cover the camera (Micro-Manager has no shutter in use)")
    dark = recorder.level("dark", None)
    prompt("Light levels: uncover the camera")
    return dark


def require_dark(
    dark_adu: float,
    levels_adu: Sequence[float],
    exposures_ms: Sequence[float] | None,
    *,
    shutter: str,
) -> None:
    """Refuse dark frames that are lit.

    Parameters
    ----------
    dark_adu, levels_adu
        Means of the dark frames and of the light levels.
    exposures_ms
        Of the levels, where the exposure alone varied: their line then begins at the offset.
    shutter
        Its label, "" without one.

    Raises
    ------
    AcquisitionError
        If the dark frames are brighter than the dimmest level, or lie above the levels' line.
    """
    dimmest = min(levels_adu)
    why = ""
    if dark_adu > dimmest + LIT_ADU:
        why = f"the dimmest light level has only {dimmest:.0f} ADU"
    elif exposures_ms is not None and len(set(exposures_ms)) >= 3:
        begins = _where_the_line_begins(exposures_ms, levels_adu)
        tolerated = max(LIT_ADU, LIT_SHARE * (float(np.median(levels_adu)) - begins))
        if dark_adu > begins + tolerated:
            why = f"by the light levels it is {begins:.0f} ADU at no exposure"
    if why:
        cause = (
            f"the shutter {shutter} stayed open, or light leaks in" if shutter else "light came"
        )
        raise AcquisitionError(
            f"the dark frames are lit: {dark_adu:.0f} ADU on average, but {why}; {cause}. Cover "
            "the camera and calibrate again, or leave the dark frames out with --no-dark"
        )


def _where_the_line_begins(exposures_ms: Sequence[float], means_adu: Sequence[float]) -> float:
    """Return the mean at no exposure, by a line whose dim levels count as much as the bright."""
    exposures = np.asarray(exposures_ms)
    _, begins = np.polyfit(
        exposures, means_adu, 1, w=1 / np.maximum(exposures, exposures.max() / 1e4)
    )
    return float(begins)


# ------------------------------------------------------------------------------ the rungs


def _rungs(
    recorder: LevelRecorder,
    microscope: Microscope,
    light: Light,
    dark: RecordedLevel | None,
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
            microscope.wait_for(light.device or microscope.camera)
            yield value
        return
    low, high = light.low, light.high
    if low is None or high is None:
        dimmest, brightest = _exposures_by_trial_ms(recorder, microscope, dark)
        low, high = low or dimmest, high or brightest
    for exposure in ladder_values(low, high, recorder.levels):
        microscope.exposure_ms = exposure
        yield exposure


def ladder_values(low: float, high: float, count: int) -> list[float]:
    """Return `count` values from `low` to `high`, each the same multiple of the one before.

    So every brightness has a level near it, in proportion: images of living things lie at the foot
    of a camera's range, and a bright spot near its top. From 0 the values are evenly spaced in
    their square root instead, as the standard deviations of photon noise are.
    """
    if low > 0:
        return [float(value) for value in np.geomspace(low, high, count)]
    return [float(root**2) for root in np.linspace(0.0, math.sqrt(high), count)]


def _required(name: str | None) -> str:
    if name is None:
        raise MicroscopeError("light: no property was named; give --light DEVICE-PROPERTY")
    return name


def _property_values(microscope: Microscope, light: Light, count: int) -> list[float]:
    device, name = light.device or microscope.camera, _required(light.name)
    names = microscope.property_names(device)
    if name not in names:
        raise MicroscopeError(
            f"--light {device}-{name}: {device} has no property {name}; it has {', '.join(names)}"
        )
    limits = microscope.property_limits(name, device=device) or (light.low, light.high)
    low = limits[0] if light.low is None else light.low
    high = limits[1] if light.high is None else light.high
    if low is None or high is None:
        raise MicroscopeError(
            f"--light {device}-{name}: names no limits of its own; give --light-range LOW,HIGH"
        )
    return ladder_values(low, high, count)


def _exposures_by_trial_ms(
    recorder: LevelRecorder, microscope: Microscope, dark: RecordedLevel | None
) -> tuple[float, float]:
    """Find the dimmest exposure worth recording, and one at which the camera is nearly full."""
    offset = dark.mean_adu if dark is not None else 0.0
    exposure = max(microscope.exposure_ms, 1.0)
    for _ in range(8):
        microscope.exposure_ms = exposure
        bright = float(np.percentile(recorder.trial(), 99.9))
        if bright < microscope.saturation_adu * 0.95:
            break
        exposure /= 4
    light_per_ms = max(bright - offset, 1.0) / exposure
    wanted = TOP_SHARE * (microscope.saturation_adu - offset) / light_per_ms
    mean_over_top = float(np.mean(ladder_values(LOWEST_SHARES[0], 1.0, recorder.levels)))
    affordable = 1000 * LIGHT_SECONDS / (recorder.frames * recorder.levels * mean_over_top)
    brightest = min(wanted, max(affordable, exposure))
    noise = math.sqrt(dark.variance_adu2) if dark is not None else 0.0
    share = LOWEST_OVER_NOISE * noise / (light_per_ms * brightest)
    return brightest * min(max(share, LOWEST_SHARES[0]), LOWEST_SHARES[1]), brightest


def wait_for_enter(sentence: str) -> None:
    """Show `sentence` and return when the person has pressed Enter."""
    if is_told():
        ask(sentence)
        return
    stderr.print(f"{sentence}, then press Enter.")
    try:
        input()
    except EOFError as error:
        raise AcquisitionError(
            "light by hand needs a person at the keyboard; give --light DEVICE-PROPERTY, or vary "
            "the exposure"
        ) from error
