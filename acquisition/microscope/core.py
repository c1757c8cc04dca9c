"""The running microscope: Micro-Manager's core, started or found, and left as it was.

Owns the one core of this process, what the camera says about itself, and the settings that are
changed for a while. Does not acquire: that is pycro-manager's engine.

One process holds one core, because pycro-manager's engine is one object per process. A core that
is running already is used; another installation or configuration replaces it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...calibration.fingerprint import CameraFingerprint
from ...errors import one_line
from ..errors import MicroscopeError
from .bridge import DEFAULT_PORT, remote_core, watched_server

logger = logging.getLogger(__name__)

BUFFER_MB = 1024
"""Micro-Manager's circular buffer: what absorbs a slow disk."""

PIXEL_TYPES = {1: "uint8", 2: "uint16"}

# Names that camera adapters give to one and the same thing. All that a camera has are compared.
_SERIAL = ("CameraID", "SerialNumber", "Serial Number", "Camera Serial", "Serial", "S/N")
_READOUT = (
    "ReadoutMode",
    "Readout Mode",
    "ReadoutRate",
    "Readout Rate",
    "PixelReadoutRate",
    "ScanMode",
    "SCAN MODE",
    "Sensitivity/DynamicRange",
    "SensitivityMode",
    "Output_Amplifier",
    "Port",
    "Speed",
)
_GAIN = (
    "Gain",
    "GAIN",
    "EMGain",
    "EM Gain",
    "EMSwitch",
    "MultiplierGain",
    "Pre-Amp-Gain",
    "PreAmpGain",
    "Conversion Gain",
    "Photon Conversion Factor",
)
_OFFSET = ("Offset", "CCDOffset", "BlackLevel", "Black Level", "Bias")


@dataclass(frozen=True)
class MicroscopeSettings:
    """Which microscope, and how it is set for one run.

    Attributes
    ----------
    demo
        The real core with Micro-Manager's demo camera, from PyPI; ignored with `mm_dir`,
        `config` or `attach`.
    mm_dir, config
        Folder of a Micro-Manager installation, and a configuration file of it.
    attach, port
        Use the Micro-Manager that is running on this computer, through its ZMQ server.
    exposure_ms, roi
        Set for the time of the run when given; `roi` is x, y, width, height as Micro-Manager
        counts them (binned pixels).
    channels
        Presets of the core's channel group.
    interval_s
        Least time between the starts of two time points.
    z_um
        Start, end and step in µm.
    positions
        A position list: Micro-Manager's `.pos` file or a CSV of x and y in µm.
    """

    demo: bool = True
    mm_dir: Path | None = None
    config: Path | None = None
    attach: bool = False
    port: int = DEFAULT_PORT
    exposure_ms: float | None = None
    roi: tuple[int, int, int, int] | None = None
    channels: tuple[str, ...] = ()
    interval_s: float = 0.0
    z_um: tuple[float, float, float] | None = None
    positions: Path | None = None

    @property
    def simulated(self) -> bool:
        """Whether the frames come from the demo camera of this package."""
        return not (self.attach or self.mm_dir or self.config)


class Microscope:
    """A core that answers. Built by `open_microscope`; used from the thread that opened it.

    Attributes
    ----------
    core
        The core itself, with method names in snake case (`core.get_exposure()`).
    settings
        What it was opened with.
    """

    def __init__(self, core: Any, settings: MicroscopeSettings) -> None:
        self.core = core
        self.settings = settings
        self._undo: list[tuple[str, Callable[[], None]]] = []
        self._changed: set[str] = set()

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
        before = self.exposure_ms
        self._remember("exposure", lambda: self.core.set_exposure(before))
        self._try(f"exposure {value} ms", lambda: self.core.set_exposure(float(value)))

    def set_roi(self, roi: tuple[int, int, int, int]) -> None:
        """Read a region (x, y, width, height in binned pixels) until the microscope is left."""
        before = _roi(self.core)
        self._remember("roi", lambda: self.core.set_roi(*before))
        self._try(f"region {roi}", lambda: self.core.set_roi(*roi))
        if _roi(self.core)[2:] != roi[2:]:
            raise MicroscopeError(
                f"{self.camera}: took the region {_roi(self.core)} where {roi} was asked for; "
                "give one that fits its sensor"
            )

    def set_property(self, name: str, value: str | float, *, device: str | None = None) -> None:
        """Set a property of the camera (or of `device`) until the microscope is left."""
        device = device or self.camera
        before = self._try(
            f"property {device}-{name}", lambda: self.core.get_property(device, name)
        )
        self._remember(f"{device}-{name}", lambda: self.core.set_property(device, name, before))
        self._try(
            f"property {device}-{name} = {value}",
            lambda: self.core.set_property(device, name, str(value)),
        )

    def property_or_none(self, name: str) -> str | None:
        """Return a property of the camera, None if it has none of that name."""
        camera = self.camera
        if not self.core.has_property(camera, name):
            return None
        return str(self.core.get_property(camera, name))

    @property
    def has_demo_camera(self) -> bool:
        """Whether the frames are simulated."""
        return str(self.core.get_device_library(self.camera)) == "DemoCamera"

    def fingerprint(self) -> CameraFingerprint:
        """Return what the camera's noise depends on, as it is set now."""
        camera = self.camera
        return CameraFingerprint(
            camera=self.property_or_none("CameraName") or str(self.core.get_device_name(camera)),
            serial=self._settings(_SERIAL, named=False),
            readout_mode=self._settings(_READOUT),
            pixel_type=self.pixel_type,
            bit_depth=self.bit_depth,
            binning=self.property_or_none("Binning"),
            gain_setting=self._settings(_GAIN),
            offset_setting=self._settings(_OFFSET),
            roi=self.roi,
        )

    def restore(self) -> None:
        """Set back what was changed, last change first."""
        while self._undo:
            name, undo = self._undo.pop()
            try:
                undo()
            except Exception as error:  # a stuck device must not keep the others from going back
                logger.warning("%s could not be set back: %s", name, error)
        self._changed.clear()

    def _settings(self, names: tuple[str, ...], *, named: bool = True) -> str | None:
        found = [(name, value) for name in names if (value := self.property_or_none(name))]
        return ", ".join(f"{n}={v}" if named else v for n, v in found) or None

    def _remember(self, name: str, undo: Callable[[], None]) -> None:
        if name not in self._changed:
            self._changed.add(name)
            self._undo.append((name, undo))

    def _try(self, what: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # the core raises its own types, over the bridge others
            raise MicroscopeError(
                f"{self.camera}: cannot take {what} ({one_line(error)}); "
                "check the value against the device's allowed ones"
            ) from error


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
    try:
        if settings.exposure_ms is not None:
            microscope.exposure_ms = settings.exposure_ms
        if settings.roi is not None:
            microscope.set_roi(settings.roi)
        _ = microscope.pixel_type  # refuses colour before anything starts
        yield microscope
    finally:
        microscope.restore()


def running_core() -> Any | None:
    """Return the core of this process if one was started here, by us or by the user's script."""
    from mmpycorex import Core, is_pymmcore_active

    return Core() if is_pymmcore_active() else None


def _reach(settings: MicroscopeSettings) -> Any:
    if settings.attach:
        return _attached(settings.port)
    folder, config = _installation(settings)
    core = running_core()
    if core is not None and _Started.by_us in {None, (folder, config)}:
        return core  # ours with the same configuration, or the user's own script's
    return _start(folder, config)


class _Started:
    """What the core of this process was started with; None if not by us."""

    by_us: tuple[Path, Path] | None = None


def _installation(settings: MicroscopeSettings) -> tuple[Path, Path]:
    if settings.simulated:
        from mm_test_adapters import device_adapter_path

        folder = Path(device_adapter_path())
        return folder, folder / "MMConfig_demo.cfg"
    if settings.mm_dir is None or settings.config is None:
        raise MicroscopeError(
            f"--mm-dir is {settings.mm_dir} and --config is {settings.config}; give both, or "
            "--attach for the Micro-Manager that is running, or --demo"
        )
    config = settings.config
    if not config.is_file() and (settings.mm_dir / config).is_file():
        config = settings.mm_dir / config
    for name, path, there in (
        ("--mm-dir", settings.mm_dir, settings.mm_dir.is_dir()),
        ("--config", config, config.is_file()),
    ):
        if not there:
            raise MicroscopeError(f"{name} {path}: is not there; check the path")
    return settings.mm_dir.absolute(), config.absolute()


def _start(folder: Path, config: Path) -> Any:
    from mmpycorex import Core
    from pycromanager import start_headless

    close_core()
    try:
        start_headless(str(folder), str(config), python_backend=True, buffer_size_mb=BUFFER_MB)
        core = Core()
        core.snap_image()  # the first use finds what is wrong, not the first frame of a run
    except Exception as error:  # the core, a device or a missing library
        close_core()
        raise MicroscopeError(
            f"{config}: Micro-Manager's core cannot be started with it ({one_line(error)}); "
            "check that Micro-Manager itself can load it, and that its device interface version "
            f"is that of pymmcore ({_interface_version()})"
        ) from error
    _Started.by_us = (folder, config)
    return core


def close_core() -> None:
    """Unload the core of this process, if there is one. Another one can be started then."""
    from mmpycorex import Core, is_pymmcore_active
    from pycromanager import stop_headless
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

    if is_pymmcore_active():
        # The core's object outlives this (it refers to itself), its buffer of 1 GB need not.
        Core().set_circular_buffer_memory_footprint(1)
        stop_headless()
    if hasattr(Engine, "singleton"):
        # The engine keeps its first core for ever otherwise, and its threads are shut down.
        del Engine.singleton
    _Started.by_us = None


def _attached(port: int) -> Any:
    if running_core() is not None:
        close_core()  # pycro-manager prefers a core of this process over the bridge
    return remote_core(port)


def _roi(core: Any) -> tuple[int, int, int, int]:
    region = core.get_roi()
    if not hasattr(region, "x"):  # pymmcore gives a list, the bridge a java.awt.Rectangle
        x, y, width, height = region
        return int(x), int(y), int(width), int(height)
    return int(region.x), int(region.y), int(region.width), int(region.height)


def _interface_version() -> str:
    import pymmcore

    return str(pymmcore.CMMCore().getAPIVersionInfo())
