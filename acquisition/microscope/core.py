"""The microscope: what Micro-Manager's core is asked and told, and set back afterwards.

Owns what the camera says about itself, the questions that the rest of the house has for a core,
and what is changed for a while. Does not acquire: that is pycro-manager's engine. How a core comes
to be is written in `loaded_core`, how one is reached in `bridge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from ...calibration.fingerprint import CameraFingerprint
from ...errors import one_line
from ..camera_properties import fingerprint_of
from ..errors import MicroscopeError
from .bridge import (
    Image,
    is_acquiring,
    newest_image,
    remote_core,
    settings_of,
    snapped_image,
    strings,
    watched_server,
)
from .changes import Changes
from .loaded_core import close_core, core_with, demo_installation, installation, running_core
from .settings import SPECIMEN_EXPOSURE_MS, MicroscopeSettings

__all__ = ["Microscope", "MicroscopeSettings", "close_core", "open_microscope", "running_core"]

PIXEL_TYPES = {1: "uint8", 2: "uint16"}


class Microscope:
    """A core that answers. Built by `open_microscope`; used from the thread that opened it.

    Attributes
    ----------
    core
        The core itself, with method names in snake case (`core.get_exposure()`). Whatever it
        refuses, here or over the bridge, is a MicroscopeError.
    settings
        What it was opened with.
    """

    def __init__(self, core: Any, settings: MicroscopeSettings) -> None:
        self.core: Any = _OneSentence(core)
        self.settings = settings
        self._changes = Changes()

    @property
    def camera(self) -> str:
        """Label of the camera in use."""
        label = str(self.core.get_camera_device())
        if not label:
            raise MicroscopeError(
                "Micro-Manager has no camera in use; choose one as Core-Camera in its "
                "configuration"
            )
        return label

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) in pixels, as set now."""
        return int(self.core.get_image_height()), int(self.core.get_image_width())

    @property
    def pixel_type(self) -> str:
        """`uint8` or `uint16`.

        Raises
        ------
        MicroscopeError
            For colour and 32-bit images.
        """
        size = int(self.core.get_bytes_per_pixel())
        if size not in PIXEL_TYPES or int(self.core.get_number_of_components()) != 1:
            raise MicroscopeError(
                f"{self.camera}: gives {8 * size}-bit images of "
                f"{self.core.get_number_of_components()} components, expected 8- or 16-bit grey; "
                "change its PixelType"
            )
        return PIXEL_TYPES[size]

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel in the specimen; None if Micro-Manager was not told."""
        size = float(self.core.get_pixel_size_um())
        return size if size > 0 else None

    @property
    def bit_depth(self) -> int:
        """Bits that the camera uses."""
        return int(self.core.get_image_bit_depth())

    @property
    def saturation_adu(self) -> float:
        """The largest number that a pixel can hold."""
        return float(2**self.bit_depth - 1)

    @property
    def roi(self) -> tuple[int, int, int, int]:
        """x, y, width and height in unbinned sensor pixels."""
        x, y, width, height = _roi(self.core)
        factor = self.binning
        return x * factor, y * factor, width * factor, height * factor

    @property
    def binning(self) -> int:
        """Edge of a bin in pixels (1 for a camera without binning)."""
        value = self.property_or_none("Binning")
        return int(value.lower().split("x")[0]) if value else 1

    @property
    def exposure_ms(self) -> float:
        """Exposure time; setting it is undone when the microscope is left."""
        return float(self.core.get_exposure())

    @exposure_ms.setter
    def exposure_ms(self, value: float) -> None:
        self.keep_exposure()
        self._try(f"exposure {value} ms", lambda: self.core.set_exposure(float(value)))

    def keep_exposure(self) -> None:
        """Put the exposure back when the microscope is left."""
        before = self.exposure_ms
        self._changes.remember("exposure", lambda: self.core.set_exposure(before))

    def set_roi(self, roi: tuple[int, int, int, int]) -> None:
        """Read a region (x, y, width, height in binned pixels) until the microscope is left."""
        before = _roi(self.core)
        self._changes.remember("roi", lambda: self.core.set_roi(*before))
        self._require_on_sensor(roi)
        self._try(f"region {roi}", lambda: self.core.set_roi(*roi))
        if _roi(self.core)[2:] != roi[2:]:
            raise MicroscopeError(
                f"{self.camera}: took the region {_roi(self.core)} where {roi} was asked for; "
                "give one that fits its sensor"
            )

    def _require_on_sensor(self, roi: tuple[int, int, int, int]) -> None:
        """Refuse a region that the sensor does not have; not every device adapter does."""
        try:
            self.core.clear_roi()
        except MicroscopeError:  # a camera that does not say how large it is, and looks after it
            return
        height, width = self.frame_shape
        x, y, across, down = roi
        if min(x, y) < 0 or min(across, down) < 1 or x + across > width or y + down > height:
            raise MicroscopeError(
                f"{self.camera}: region {','.join(map(str, roi))} (X,Y,W,H) is not on its sensor "
                f"of {width}×{height} pixels; give one that is"
            )

    def set_property(self, name: str, value: str | float, *, device: str | None = None) -> None:
        """Set a property of the camera (or of `device`) until the microscope is left."""
        device = device or self.camera
        self.keep_property(name, device=device)
        self._try(
            f"property {device}-{name} = {value}",
            lambda: self.core.set_property(device, name, str(value)),
        )

    def keep_property(self, name: str, *, device: str) -> None:
        """Put a property of `device` back when the microscope is left."""
        before = self._try(
            f"property {device}-{name}", lambda: self.core.get_property(device, name)
        )
        self._changes.remember(
            f"{device}-{name}", lambda: self.core.set_property(device, name, before)
        )

    def property_or_none(self, name: str) -> str | None:
        """Return a property of the camera, None if it has none of that name."""
        camera = self.camera
        if not self.core.has_property(camera, name):
            return None
        return str(self.core.get_property(camera, name))

    def property_names(self, device: str) -> list[str]:
        """Return the names of the properties of `device`."""
        return strings(self.core.get_device_property_names(device))

    def property_limits(self, name: str, *, device: str) -> tuple[float, float] | None:
        """Return the least and the greatest value of a property; None if it names none."""
        if not self.core.has_property_limits(device, name):
            return None
        low = self.core.get_property_lower_limit(device, name)
        return float(low), float(self.core.get_property_upper_limit(device, name))

    def wait_for(self, device: str) -> None:
        """Return when `device` has come to rest."""
        self.core.wait_for_device(device)

    # -------------------------------------------------------------- channel, focus, stage, light

    @property
    def channel_group(self) -> str:
        """The configuration group whose presets are the channels; "" without one."""
        return str(self.core.get_channel_group())

    def channel_presets(self) -> list[str]:
        """Return the channels that can be chosen."""
        return self.presets(self.channel_group)

    def presets(self, group: str) -> list[str]:
        """Return the presets of a configuration group; none if there is no such group."""
        if group not in strings(self.core.get_available_config_groups()):
            return []
        return strings(self.core.get_available_configs(group))

    def require_channels(self, channels: tuple[str, ...]) -> None:
        """Raise MicroscopeError if one of `channels` is no preset of the channel group."""
        known = self.channel_presets()
        for channel in channels:
            if channel not in known:
                raise MicroscopeError(
                    f"--channel {channel}: the channel group {self.channel_group or '(none)'} has "
                    f"{', '.join(known) or 'no presets'}; give one of them"
                )

    def set_channel(self, channel: str) -> None:
        """Set the light path of a channel until the microscope is left."""
        self.require_channels((channel,))
        self.keep_channel()
        group = self.channel_group
        self.core.set_config(group, channel)
        self.core.wait_for_config(group, channel)

    def keep_channel(self, group: str | None = None) -> None:
        """Put back, when the microscope is left, what the presets of a group set.

        Of the channel group where none is named.
        """
        group = self.channel_group if group is None else group
        if not group:
            return
        state = self.core.get_config_group_state(group)
        before = settings_of(state)

        def put_back() -> None:
            for device, name, value in before:
                self.core.set_property(device, name, value)

        self._changes.remember(f"channel {group}", put_back)

    @property
    def focus_um(self) -> float | None:
        """Where the focus drive stands, µm; None without one."""
        drive = str(self.core.get_focus_device())
        return float(self.core.get_position(drive)) if drive else None

    @property
    def stage_um(self) -> tuple[float, float] | None:
        """Where the stage stands, x and y in µm; None without one."""
        stage = str(self.core.get_xy_stage_device())
        if not stage:
            return None
        return float(self.core.get_x_position(stage)), float(self.core.get_y_position(stage))

    def keep_focus(self) -> None:
        """Drive the focus back when the microscope is left."""
        drive, before = str(self.core.get_focus_device()), self.focus_um

        def drive_back() -> None:
            self.core.set_position(drive, before)
            self.core.wait_for_device(drive)

        if before is not None:
            self._changes.remember("focus", drive_back)

    def keep_stage(self) -> None:
        """Drive the stage back when the microscope is left."""
        stage, before = str(self.core.get_xy_stage_device()), self.stage_um

        def drive_back() -> None:
            if before is not None:
                self.core.set_xy_position(stage, *before)
                self.core.wait_for_device(stage)

        if before is not None:
            self._changes.remember("stage", drive_back)

    @property
    def shutter(self) -> str:
        """Label of the shutter in use; "" without one."""
        return str(self.core.get_shutter_device())

    @contextmanager
    def darkness(self) -> Iterator[None]:
        """Keep the shutter closed within the block."""
        shutter = self.shutter
        automatic, was_open = (
            bool(self.core.get_auto_shutter()),
            bool(self.core.get_shutter_open()),
        )

        def as_before() -> None:
            self.core.set_auto_shutter(automatic)
            if not automatic:
                self.core.set_shutter_open(was_open)

        with self.temporarily():
            self._changes.remember("shutter", as_before)
            self.core.set_auto_shutter(False)
            self.core.set_shutter_open(False)
            self.wait_for(shutter)
            yield

    # ------------------------------------------------------------------- what the camera does

    @property
    def version(self) -> str:
        """The core's name and version."""
        return str(self.core.get_version_info())

    @property
    def is_sequence_running(self) -> bool:
        """Whether the camera runs, in live mode or in a sequence."""
        return bool(self.core.is_sequence_running())

    def snap(self) -> Image:
        """Take one image; returns pixels (Y, X) and tags."""
        self.core.snap_image()
        return self.snapped()

    def snapped(self) -> Image:
        """Return pixels (Y, X) and tags of the image that was snapped last."""
        if self.settings.attach:
            return snapped_image(self.core)
        return self.core.get_image(), {}

    def newest_live_image(self) -> Image | None:
        """Return pixels and tags of the newest image of an attached live mode; None without."""
        return newest_image(self.core)

    def require_idle(self, purpose: str) -> None:
        """Raise MicroscopeError if another program is acquiring with this microscope.

        `purpose` is what would disturb it.
        """
        busy = self.is_sequence_running
        if not busy and self.settings.attach:
            with suppress(Exception):  # a headless Micro-Manager has no window to ask
                busy = is_acquiring(self.settings.port)
        if busy:
            raise MicroscopeError(
                f"{self.camera}: somebody is acquiring with it (live mode or an acquisition), and "
                f"{purpose} would change those images; end that in Micro-Manager first, or follow "
                "it with --follow and without options that change the microscope"
            )

    @property
    def has_demo_camera(self) -> bool:
        """Whether the frames are simulated."""
        return str(self.core.get_device_library(self.camera)) == "DemoCamera"

    def fingerprint(self) -> CameraFingerprint:
        """Return what the camera's noise depends on, as it is set now."""
        return fingerprint_of(
            self.property_or_none,
            name=str(self.core.get_device_name(self.camera)),
            pixel_type=self.pixel_type,
            bit_depth=self.bit_depth,
            roi=self.roi,
        )

    def temporarily(self) -> AbstractContextManager[None]:
        """Set back, at the end of the block, what was changed within it."""
        return self._changes.within()

    def restore(self) -> None:
        """Set back what was changed, last change first."""
        self._changes.undo()

    def _try(self, what: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except MicroscopeError as error:
            raise MicroscopeError(
                f"{self.camera}: cannot take {what} ({one_line(error.__cause__ or error)}); "
                "check the value against the device's allowed ones"
            ) from error


class _OneSentence:
    """A core that refuses in one sentence, where its exceptions are bare or Java's whole stack."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._core, name)
        if not callable(asked):
            return asked

        def ask(*arguments: Any) -> Any:
            try:
                return asked(*arguments)
            except Exception as error:
                given = ", ".join(map(repr, arguments))
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                raise MicroscopeError(
                    f"Micro-Manager refused {name}({given}): {reason}; look at the device in "
                    "Micro-Manager, and try again"
                ) from error

        return ask


@contextmanager
def open_microscope(settings: MicroscopeSettings | None = None) -> Iterator[Microscope]:
    """Yield the microscope with the exposure and region of `settings`, and set it back at the end.

    The core stays loaded afterwards, so that opening it again is quick.

    Raises
    ------
    MicroscopeError
        If the core cannot be started or reached, has no grey-scale camera, or refuses a setting.
    """
    settings = settings or MicroscopeSettings()
    microscope = Microscope(_reach(settings), settings)
    with watched_server(settings.port, microscope.core) if settings.attach else nullcontext():
        yield from _as_set(microscope)


def _as_set(microscope: Microscope) -> Iterator[Microscope]:
    settings = microscope.settings
    if settings.changed:
        microscope.require_idle(" and ".join(settings.changed))
    try:
        exposure_ms = settings.exposure_ms
        if exposure_ms is None and settings.specimen:
            exposure_ms = SPECIMEN_EXPOSURE_MS
        if exposure_ms is not None:
            microscope.exposure_ms = exposure_ms
        if settings.roi is not None:
            microscope.set_roi(settings.roi)
        if settings.channels:
            microscope.keep_channel()
        if settings.z_um is not None:
            microscope.keep_focus()
        if settings.positions is not None:
            microscope.keep_stage()
        _ = microscope.pixel_type  # refuses colour before anything starts
        yield microscope
    finally:
        microscope.restore()


def _reach(settings: MicroscopeSettings) -> Any:
    if settings.attach:
        if running_core() is not None:
            close_core()  # pycro-manager prefers a core of this process over the bridge
        return remote_core(settings.port)
    if settings.simulated:
        return core_with(*demo_installation())
    if settings.mm_dir is None or settings.config is None:
        raise MicroscopeError(
            f"--mm-dir is {settings.mm_dir} and --config is {settings.config}; give both, or "
            "--attach for the Micro-Manager that is running, or --demo"
        )
    return core_with(*installation(settings.mm_dir, settings.config))


def _roi(core: Any) -> tuple[int, int, int, int]:
    region = core.get_roi()
    if not hasattr(region, "x"):  # pymmcore gives a list, the bridge a java.awt.Rectangle
        x, y, width, height = region
        return int(x), int(y), int(width), int(height)
    return int(region.x), int(region.y), int(region.width), int(region.height)
