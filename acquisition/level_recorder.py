"""Record one light level after the other within one acquisition of pycro-manager.

Owns the way of the frames from pycro-manager's thread to the stacks on disk, and the running
photon-transfer figures of the progress line. Which levels there are is chosen in `light_ladder`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..storage.open_stack import open_stack
from ..storage.stack import Stack
from .engine import open_engine, stop_engine
from .errors import AcquisitionError
from .microscope.core import Microscope

PATIENCE_S = 30.0
"""How long a frame may be overdue before the camera counts as stuck."""

_MARKS = "▁▂▃▄▅▆▇█"

Progress = Callable[[str, int, int], None]
"""Called with a line of text, frames done and frames in all."""


@dataclass(frozen=True, slots=True)
class RecordedLevel:
    """Running figures of one level, for the progress line."""

    setting: float | None
    mean_adu: float
    variance_adu2: float
    saturated_share: float


OnLevel = Callable[[str, RecordedLevel], None]


@dataclass(slots=True)
class _Inbox:
    """Frames of the level that is being recorded, from pycro-manager's thread to ours."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    take: Callable[[NDArray[Any]], None] | None = None
    arrived: int = 0
    error: BaseException | None = None


class LevelRecorder:
    """Records level after level within one pycro-manager acquisition."""

    def __init__(
        self,
        microscope: Microscope,
        directory: Path,
        frames: int,
        levels: int,
        on_progress: Progress | None,
        on_level: OnLevel | None = None,
    ) -> None:
        self.microscope = microscope
        self.directory = directory
        self.frames = frames
        self.levels = levels
        self.done: list[RecordedLevel] = []
        self._report = on_progress or (lambda line, done, total: None)
        self._tell_level = on_level or (lambda name, level: None)
        self._inbox = _Inbox()
        self._acquisition: Any = None
        self._sent = 0
        self._frames_done = 0
        self._stack: Path | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep one acquisition open for all levels."""
        # Port and display are for Micro-Manager's engine; that of this process has neither.
        self._acquisition = open_engine(
            image_process_fn=self._hook, port=self.microscope.settings.port, show_display=False
        )
        try:
            yield
        except BaseException:
            stop_engine(self._acquisition)
            raise
        else:
            self._acquisition.mark_finished()
        finally:
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
        self._tell_level(name, found)
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

    Each column is a stretch of brightness, its height the variance there; both are logarithmic, as
    the ladder is.
    """
    if not levels:
        return ""
    means = np.array([level.mean_adu for level in levels])
    variances = np.array([level.variance_adu2 for level in levels])
    place = _parts(np.log1p(means - means.min()), width)
    height = _parts(np.log(np.maximum(variances, 1e-3)), len(_MARKS))
    columns = np.full(width, -1)
    np.maximum.at(columns, place, height)
    drawn = "".join(" " if mark < 0 else _MARKS[mark] for mark in columns)
    if len(levels) < 3:
        return drawn
    slope = float(np.polyfit(means, variances, 1)[0])
    return f"{drawn} {slope:.3g} ADU/e⁻"


def _parts(values: NDArray[np.float64], parts: int) -> NDArray[np.intp]:
    """Return in which of so many equal parts of its range each value lies."""
    share = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    return np.asarray(np.minimum(share * parts, parts - 1), np.intp)
