"""Which microscope is meant, and how it is set for one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .bridge import DEFAULT_PORT

SPECIMEN_EXPOSURE_MS = 50.0
"""Where none is named: the simulated specimen takes longer to compute than the camera's 10 ms."""


@dataclass(frozen=True)
class MicroscopeSettings:
    """Which microscope, and how it is set for one run.

    Attributes
    ----------
    demo
        Whether the demo camera was asked for by name. It is also what is used without `mm_dir`,
        `config` and `attach`: the real core with Micro-Manager's demo camera, from PyPI.
    specimen
        With the demo camera: a simulated living specimen stands before it, see `demo_camera`.
        Whoever runs the acquisition puts it there.
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
        Start, end and step in µm, from the focus as it is when the microscope is opened.
    z_absolute
        Whether start and end are the focus drive's own coordinates instead.
    positions
        A position list: Micro-Manager's `.pos` file or a CSV of x and y in µm.
    """

    demo: bool = False
    specimen: bool = False
    mm_dir: Path | None = None
    config: Path | None = None
    attach: bool = False
    port: int = DEFAULT_PORT
    exposure_ms: float | None = None
    roi: tuple[int, int, int, int] | None = None
    channels: tuple[str, ...] = ()
    interval_s: float = 0.0
    z_um: tuple[float, float, float] | None = None
    z_absolute: bool = False
    positions: Path | None = None

    @property
    def simulated(self) -> bool:
        """Whether the frames come from the demo camera of this package."""
        return not (self.attach or self.mm_dir or self.config)

    @property
    def changed(self) -> list[str]:
        """The options given that change something at the microscope."""
        given = {
            "--exposure-ms": self.exposure_ms is not None,
            "--roi": self.roi is not None,
            "--channel": bool(self.channels),
            "--z": self.z_um is not None,
            "--positions": self.positions is not None,
        }
        return [option for option, there in given.items() if there]

    def as_words(self) -> list[str]:
        """Return the options that choose this camera and region, for a line to be typed next."""
        words = [] if self.roi is None else ["--roi", ",".join(map(str, self.roi))]
        if self.attach:
            port = [] if self.port == DEFAULT_PORT else ["--port", str(self.port)]
            return ["--attach", *port, *words]
        if self.simulated:
            return ["--demo", *words] if self.demo else words
        return ["--mm-dir", str(self.mm_dir), "--config", str(self.config), *words]
