"""Record what a calibration needs: dark frames and a ladder of light levels.

Owns the choice of levels, the recording through pycro-manager, the search for saturation, the
running photon-transfer figures, and the `calibrate` command. What the frames say about the camera
is worked out by `calibration`.

Light is varied by exposure time, by a property of a device (lamp, laser), or by hand.
"""

from __future__ import annotations

import logging
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from ..reporting.console import Outcome, progress, stderr
from ..storage.atomic_output import require_absent, require_space
from ..storage.stack import Stack, open_stack
from .errors import AcquisitionError, MicroscopeError
from .microscope.bridge import strings
from .microscope.core import Microscope, MicroscopeSettings, open_microscope

if TYPE_CHECKING:
    from ..calibration.fit_camera import Calibration

logger = logging.getLogger(__name__)

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
PATIENCE_S = 30.0
"""How long a frame may be overdue before the camera counts as stuck."""

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


@dataclass(frozen=True, slots=True)
class RecordedLevel:
    """Running figures of one level, for the progress line."""

    setting: float | None
    mean_adu: float
    variance_adu2: float
    saturated_share: float


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


Progress = Callable[[str, int, int], None]


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
            recorder = _LevelRecorder(microscope, directory, frames_per_level, levels, on_progress)
            with recorder.running():
                yield_value = _record(recorder, microscope, light, dark, prompt or _wait_for_enter)
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
        require_absent(keep, overwrite=overwrite)
        require_space(keep, size)
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
    recorder: _LevelRecorder,
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
    recorder: _LevelRecorder, microscope: Microscope, light: Light, prompt: Callable[[str], None]
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
    recorder: _LevelRecorder,
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
    recorder: _LevelRecorder, microscope: Microscope, dark: Stack | None
) -> float:
    """Find the exposure at which the camera is nearly full, by trial."""
    offset = float(np.mean(dark.frame(0))) if dark is not None else 0.0
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


# -------------------------------------------------------------------------- the recording


@dataclass(slots=True)
class _Inbox:
    """Frames of the level that is being recorded, from pycro-manager's thread to ours."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    take: Callable[[NDArray[Any]], None] | None = None
    arrived: int = 0
    error: BaseException | None = None


class _LevelRecorder:
    """Records level after level within one pycro-manager acquisition."""

    def __init__(
        self,
        microscope: Microscope,
        directory: Path,
        frames: int,
        levels: int,
        on_progress: Progress | None,
    ) -> None:
        self.microscope = microscope
        self.directory = directory
        self.frames = frames
        self.levels = levels
        self.done: list[RecordedLevel] = []
        self._report = on_progress or (lambda line, done, total: None)
        self._inbox = _Inbox()
        self._acquisition: Any = None
        self._sent = 0
        self._frames_done = 0
        self._stack: Path | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep one acquisition open for all levels."""
        from pycromanager import Acquisition

        # Port and display are for Micro-Manager's engine; that of this process has neither.
        self._acquisition = Acquisition(
            image_process_fn=self._hook, port=self.microscope.settings.port, show_display=False
        )
        try:
            yield
        except BaseException:
            self._acquisition.abort()
            raise
        finally:
            self._acquisition.mark_finished()
            self._acquisition.await_completion()

    def last_stack(self) -> Stack:
        """Return the stack that was recorded last."""
        if self._stack is None:
            raise AcquisitionError("light ladder: no level was recorded yet")
        return open_stack(self._stack)

    def trial(self) -> NDArray[Any]:
        """Take one frame that is not kept."""
        found: list[NDArray[Any]] = []
        self._acquire(1, lambda pixels: found.append(pixels.copy()))
        return found[0]

    def level(self, name: str, setting: float | None) -> RecordedLevel:
        """Record one level into its own OME-Zarr."""
        from ..storage.ome_zarr_writer import OmeZarrWriter

        figures = _RunningFigures(self.microscope.saturation_adu)
        self._stack = self.directory / f"{name}.ome.zarr"
        attributes = {
            "quietscope": {
                "exposure_ms": self.microscope.exposure_ms,
                "light_setting": setting,
                "camera": self.microscope.fingerprint().model_dump(mode="json"),
            }
        }
        total = (self.levels + 1) * self.frames
        with OmeZarrWriter(
            self._stack,
            frame_shape=self.microscope.frame_shape,
            dtype=self.microscope.pixel_type,
            pixel_size_um=self.microscope.pixel_size_um,
            attributes=attributes,
            overwrite=True,
        ) as writer:

            def take(pixels: NDArray[Any]) -> None:
                writer.write(pixels, {"time": figures.frames})
                figures.add(pixels)
                self._frames_done += 1
                self._report(self._line(name, figures), self._frames_done, total)

            self._acquire(self.frames, take)
        found = figures.result(setting)
        self.done.append(found)
        return found

    def _line(self, name: str, figures: _RunningFigures) -> str:
        points = [*self.done, figures.result(None)] if figures.frames > 1 else self.done
        return f"{name} {figures.mean:.0f} ADU {photon_transfer_sparkline(points)}"

    def _acquire(self, frames: int, take: Callable[[NDArray[Any]], None]) -> None:
        inbox = self._inbox
        with inbox.changed:
            inbox.take, inbox.arrived = take, 0
        events = [{"axes": {"time": self._sent + index}} for index in range(frames)]
        self._sent += frames
        self._acquisition.acquire(events)
        overdue = PATIENCE_S + self.microscope.exposure_ms / 1000
        with inbox.changed:
            while inbox.arrived < frames and inbox.error is None:
                before = inbox.arrived
                inbox.changed.wait(timeout=overdue)
                if inbox.arrived == before and inbox.error is None:
                    raise AcquisitionError(
                        f"{self.microscope.camera}: frame {before + 1} of {frames} did not arrive "
                        f"within {overdue:.0f} s; check the camera in Micro-Manager"
                    )
            inbox.take = None
        if inbox.error is not None:
            raise inbox.error

    def _hook(self, pixels: NDArray[Any], metadata: Mapping[str, Any]) -> None:
        # pycro-manager loses the type of what is raised here: it is kept for our own thread.
        inbox = self._inbox
        with inbox.changed:
            try:
                if inbox.take is not None and inbox.error is None:
                    inbox.take(pixels)
            except BaseException as error:  # re-raised where the user sees it
                inbox.error = error
            inbox.arrived += 1
            inbox.changed.notify_all()


class _RunningFigures:
    """Mean, temporal variance and saturated share of the frames so far."""

    def __init__(self, saturation_adu: float) -> None:
        self.frames = 0
        self._saturation = saturation_adu
        self._sum = 0.0
        self._squares = 0.0
        self._saturated = 0.0
        self._previous: NDArray[np.float32] | None = None

    def add(self, pixels: NDArray[Any]) -> None:
        # Every other row and column is plenty for a progress line.
        frame = pixels[::2, ::2].astype(np.float32)
        self.frames += 1
        self._sum += float(frame.mean())
        self._saturated += float((pixels >= self._saturation).mean())
        if self._previous is not None:
            self._squares += float(((frame - self._previous) ** 2).mean()) / 2
        self._previous = frame

    @property
    def mean(self) -> float:
        return self._sum / max(self.frames, 1)

    def result(self, setting: float | None) -> RecordedLevel:
        return RecordedLevel(
            setting=setting,
            mean_adu=self.mean,
            variance_adu2=self._squares / max(self.frames - 1, 1),
            saturated_share=self._saturated / max(self.frames, 1),
        )


def photon_transfer_sparkline(levels: Sequence[RecordedLevel], *, width: int = 16) -> str:
    """Draw the photon-transfer curve so far in one line of text, with its slope.

    Each column is a stretch of brightness, its height the variance there.
    """
    if not levels:
        return ""
    means = np.array([level.mean_adu for level in levels])
    variances = np.array([level.variance_adu2 for level in levels])
    columns = np.full(width, np.nan)
    span = max(float(np.ptp(means)), 1e-9)
    place = np.minimum(((means - means.min()) / span * width).astype(int), width - 1)
    for column, variance in zip(place, variances, strict=True):
        columns[column] = np.nanmax([columns[column], variance])
    top = float(np.nanmax(columns)) or 1.0
    marks = "▁▂▃▄▅▆▇█"
    drawn = "".join(
        " " if np.isnan(v) else marks[min(int(v / top * len(marks)), len(marks) - 1)]
        for v in columns
    )
    if len(levels) < 3:
        return drawn
    slope = float(np.polyfit(means, variances, 1)[0])
    return f"{drawn} {slope:.3g} ADU/e⁻"


def _wait_for_enter(sentence: str) -> None:
    stderr.print(f"{sentence}, then press Enter.")
    try:
        input()
    except EOFError as error:
        raise AcquisitionError(
            "light by hand needs a person at the keyboard; give --light DEVICE-PROPERTY, or vary "
            "the exposure"
        ) from error


# ---------------------------------------------------------------------------- the command


def calibrate(
    *,
    out: Annotated[Path, typer.Option(help="The noise model to write (npz).")],
    microscope: MicroscopeSettings,
    levels: Annotated[int, typer.Option(min=3, help="Light levels.")] = LEVELS,
    frames_per_level: Annotated[int, typer.Option(min=4, help="Repeats of each level.")] = (
        FRAMES_PER_LEVEL
    ),
    light: Annotated[
        str,
        typer.Option(
            metavar="exposure|hand|DEVICE-PROPERTY",
            help="What varies the light: exposure time, a person, or a property of a device.",
        ),
    ] = "exposure",
    light_range: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Its range (exposure in ms); found by trial."),
    ] = None,
    dark: Annotated[
        bool, typer.Option(help="Record dark frames first, with the shutter closed.")
    ] = True,
    keep_stacks: Annotated[
        Path | None, typer.Option(help="Keep the recorded stacks in this folder (OME-Zarr).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The figure page; next to --out when not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    seed: Annotated[int, typer.Option(help="Of the draw of pixels.")] = 0,
) -> Outcome:
    """Measure the camera: dark frames, a ladder of light levels, noise model, checks."""
    source = parse_light(light, light_range)
    _refuse_what_has_no_use(microscope)
    require_absent(out, overwrite=overwrite)
    page = report or out.with_suffix(".html")
    require_absent(page, overwrite=overwrite)
    begun = time.perf_counter()
    with open_microscope(microscope) as opened, progress() as bar:
        _choose_channel(opened)
        task = bar.add_task("recording", total=(levels + 1) * frames_per_level, note="")

        def show(line: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, note=line)

        def ask(sentence: str) -> None:
            bar.stop()
            _wait_for_enter(sentence)
            bar.start()

        with record_ladder(
            opened,
            levels=levels,
            frames_per_level=frames_per_level,
            light=source,
            dark=dark,
            keep=keep_stacks,
            overwrite=overwrite,
            prompt=ask,
            on_progress=show,
        ) as ladder:
            bar.update(task, completed=levels * frames_per_level, visible=False)
            calibration = _fit(ladder, opened, seed, bar)
    calibration.noise_model.save(out, overwrite=overwrite)
    calibration.write_report(page)
    result = {
        **calibration.result(),
        "seconds": time.perf_counter() - begun,
        "out": str(out),
        "report": str(page),
        "saturated_levels": len(ladder.saturated),
        "stacks": None if keep_stacks is None else str(keep_stacks),
    }
    return Outcome(result, [*calibration.summary(), f"noise model {out}, figures {page}"])


def _refuse_what_has_no_use(microscope: MicroscopeSettings) -> None:
    """Refuse what moves or waits: a calibration looks at one still, even field."""
    for option, given in (
        ("--z", microscope.z_um),
        ("--positions", microscope.positions),
        ("--interval-s", microscope.interval_s),
        ("--channel", microscope.channels[1:]),
    ):
        if given:
            raise typer.BadParameter(
                f"{option} has no use here: a calibration looks at one even field"
                + (" in one channel" if option == "--channel" else "")
            )


def _choose_channel(microscope: Microscope) -> None:
    """Set the light path of the channel that was asked for."""
    core = microscope.core
    for preset in microscope.settings.channels:
        group = str(core.get_channel_group())
        known = strings(core.get_available_configs(group)) if group else []
        if preset not in known:
            raise MicroscopeError(
                f"--channel {preset}: the channel group {group or '(none)'} has "
                f"{', '.join(known) or 'no presets'}; choose one of them"
            )
        core.set_config(group, preset)
        core.wait_for_config(group, preset)


def _fit(ladder: LadderRecording, microscope: Microscope, seed: int, bar: Any) -> Calibration:
    from ..calibration.fit_camera import fit_camera

    task = bar.add_task("fitting", total=100, note="")
    calibration = fit_camera(
        ladder.levels,
        dark=ladder.dark,
        exposures_ms=ladder.exposures_ms,
        fingerprint=microscope.fingerprint(),
        seed=seed,
        on_progress=lambda step, share: bar.update(
            task, description=step, completed=int(100 * share)
        ),
    )
    bar.update(task, visible=False)
    return calibration


def parse_light(light: str, light_range: str | None) -> Light:
    """Turn --light and --light-range into a `Light`.

    Raises
    ------
    typer.BadParameter
        If they cannot be understood.
    """
    low, high = _range(light_range)
    if light == "hand":
        return Light("hand")
    if light == "exposure":
        return Light("exposure", low=low, high=high)
    device, dash, name = light.partition("-")
    if not (device and dash and name):
        raise typer.BadParameter(
            f"--light {light}: expected exposure, hand, or DEVICE-PROPERTY as Micro-Manager's "
            "device property browser lists it"
        )
    return Light("property", device=device, name=name, low=low, high=high)


def _range(text: str | None) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--light-range {text}: expected LOW,HIGH as numbers") from error
    if not 0 <= low < high:
        raise typer.BadParameter(f"--light-range {text}: expected 0 ≤ LOW < HIGH")
    return low, high
