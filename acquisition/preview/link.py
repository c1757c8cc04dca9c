"""The acquisition's end of the preview: starts the window's process and feeds its mailbox.

Owns that process, the throttle, and the knowledge whether anybody is looking. It imports no Qt
and draws nothing. The window is a process of its own because a frozen, crashed or closed window
must not cost the acquisition a single frame; it is a plain child process rather than one of
`multiprocessing`, because users' scripts have no `__main__` guard.
"""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ...reporting.told import is_told, tell
from ..errors import AcquisitionError
from .mailbox import MailboxWriter, ReaderState

logger = logging.getLogger(__name__)

SHORTEST_INTERVAL_S = 1 / 25
"""No eye needs more."""
JITTER_S = SHORTEST_INTERVAL_S / 4
COPY_SHARE = 0.05
"""At most this share of the caller's time goes into copying, whatever the frame size."""
PATIENCE_S = 0.25
"""A window that has not taken the last picture gets the next one only after this time."""
MAX_CHANNELS = 12
TURN_S = 1.0
"""For so long a channel whose frame was passed over has the next turn before the others."""
SNAPSHOT_TIMEOUT_S = 60.0

# Windows: no console window beside ours, and Ctrl-C does not reach it. Zero elsewhere.
_NO_CONSOLE: int = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(
    subprocess, "CREATE_NEW_PROCESS_GROUP", 0
)

_NO_SCREEN = (
    "no screen: neither DISPLAY nor WAYLAND_DISPLAY is set, so no preview window can be opened; "
    "the run itself is not affected"
)


class Snapshot(NamedTuple):
    """A picture of the preview window, or why there is none."""

    path: Path | None
    reason: str


class PreviewLink:
    """The link to one preview window.

    Build it with `open`. `show` may be called from any one thread; `close` from any other.
    """

    def __init__(self, mailbox: MailboxWriter | None, reason: str = "") -> None:
        self._mailbox = mailbox
        self._reason = reason
        self._closed_by_user = False
        self._lock = threading.Lock()
        self._channels: list[str] = []
        self._turns = _Turns()
        self._costs_s: deque[float] = deque(maxlen=5)
        self._due = 0.0
        self._sent_at = 0.0
        self._window: _WindowProcess | None = None

    @classmethod
    def open(
        cls,
        *,
        frame_shape: tuple[int, int],
        pixel_type: str,
        title: str,
        saturation_adu: float | None = None,
        pixel_size_um: float | None = None,
        run: Path | None = None,
    ) -> PreviewLink:
        """Start the window's process and return at once; never raises.

        Parameters
        ----------
        frame_shape
            (Y, X) of the camera frames.
        pixel_type
            "uint8" or "uint16".
        title
            What the person at the microscope calls this run.
        saturation_adu
            The highest value that the camera can give; by default that of the pixel type.
        pixel_size_um
            Width of a pixel in the specimen, for the scale bar.
        run
            The run directory, where its frames are recorded, so that one can look back.
        """
        if not is_told() and (reason := missing_screen()):
            return cls(None, reason)
        about = {
            "title": title,
            "pixel_type": pixel_type,
            "saturation_adu": saturation_adu,
            "pixel_size_um": pixel_size_um,
            "run": None if run is None else str(run.absolute()),
        }
        mailbox = None
        try:
            mailbox = MailboxWriter.create(frame_shape, pixel_type, about)
            link = cls(mailbox)
            if is_told():  # the program that reads this has a window of its own
                tell("preview", mailbox=str(mailbox.path))
                return link
            link._window = _WindowProcess(window_command(mailbox.path))
        except Exception as error:  # whatever goes wrong here must not touch the run
            logger.debug("no preview", exc_info=True)
            if mailbox is not None:
                mailbox.close(remove=True)
            return cls(None, f"the preview window could not be started: {error}")
        return link

    @property
    def available(self) -> bool:
        """Whether pictures still go somewhere (also while the window is starting)."""
        self._look_after_window()
        return self._mailbox is not None

    @property
    def shown(self) -> bool:
        """Whether the window is on the screen."""
        self._look_after_window()
        with self._lock:
            mailbox = self._mailbox
            return mailbox is not None and mailbox.reader_state is ReaderState.SHOWN

    @property
    def closed_by_user(self) -> bool:
        """Whether the person at the screen closed the window."""
        self._look_after_window()
        return self._closed_by_user

    @property
    def reason(self) -> str:
        """Why there is no window, or what last went wrong with it; else empty."""
        self._look_after_window()
        return self._reason

    def show(
        self,
        raw: NDArray[Any],
        denoised: NDArray[Any] | None,
        figures: Mapping[str, Any],
        uncertainty: NDArray[Any] | None = None,
    ) -> None:
        """Offer a picture to the window: never waits, never raises, copies what it takes.

        Most calls return at once, because the window shows at most 25 pictures a second and
        copying takes at most a twentieth of the caller's time.

        Parameters
        ----------
        raw
            (Y, X) in the camera's pixel type, ADU.
        denoised, uncertainty
            (Y, X), ADU; None if there is none. The uncertainty is copied only while somebody
            looks at it.
        figures
            What is known of this frame, see docs/preview.md. In a run of several channels the
            window shows the first one until another is chosen there.
        """
        now = time.perf_counter()
        if self._mailbox is None or not self._lock.acquire(blocking=False):
            return
        try:
            # Before the throttle, which may be in step with the channels and see only one.
            channel = self._noted_channel(figures)
            self._turns.arrived(channel, now)
            if now >= self._due:
                self._show(now, channel, raw, denoised, figures, uncertainty)
        except Exception as error:  # the preview is never worth a frame
            level = logging.DEBUG if self._reason else logging.WARNING  # say it once
            self._reason = f"a picture could not be shown: {error}"
            logger.log(level, "preview: %s", self._reason)
        finally:
            self._lock.release()

    def _show(
        self,
        now: float,
        channel: str,
        raw: NDArray[Any],
        denoised: NDArray[Any] | None,
        figures: Mapping[str, Any],
        uncertainty: NDArray[Any] | None,
    ) -> None:
        if self._window is not None and self._window.gone:
            self._take_leave(self._window)
        mailbox = self._mailbox
        if mailbox is None or (not mailbox.taken and now - self._sent_at < PATIENCE_S):
            return
        if not self._wants(mailbox, channel, now):
            return
        # From when it was due, not from now: a camera of that very rate would lose every second
        # picture that comes a moment early.
        begun = max(self._due, now - JITTER_S)
        self._due = begun + SHORTEST_INTERVAL_S  # also where the copy fails
        wanted = uncertainty if mailbox.wants_uncertainty else None
        mailbox.put(raw, denoised, wanted, figures, self._channels)
        self._turns.sent(channel, now)
        self._sent_at = now
        # The median: one copy that a busy machine interrupted must not freeze the view.
        self._costs_s.append(time.perf_counter() - now)
        interval_s = max(SHORTEST_INTERVAL_S, statistics.median(self._costs_s) / COPY_SHARE)
        self._due = begun + interval_s

    def _wants(self, mailbox: MailboxWriter, channel: str, now: float) -> bool:
        if not self._channels:
            return True
        if mailbox.wants_all_channels:
            return self._turns.is_due(channel, now)
        # One channel alone: several in turns would flicker.
        return channel == (mailbox.wanted_channel or self._channels[0])

    def _noted_channel(self, figures: Mapping[str, Any]) -> str:
        channel = str(figures.get("channel") or "")
        if channel and channel not in self._channels and len(self._channels) < MAX_CHANNELS:
            self._channels.append(channel)
        return channel

    def finish(self) -> None:
        """Say that no further picture will come; figures may still be corrected by `close`."""
        if self._lock.acquire(timeout=0.5):
            try:
                if self._mailbox is not None:
                    self._mailbox.end()
            finally:
                self._lock.release()

    def close(
        self,
        *,
        keep_window: bool = True,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """Say that the run is over. The window stays with the last picture until it is closed.

        Parameters
        ----------
        keep_window
            False asks the window to go as well, without waiting for it.
        figures
            Final figures (counts of frames) to put beside the last picture.
        """
        if not self._lock.acquire(timeout=0.5):
            return
        try:
            if self._window is not None and self._window.gone:
                self._take_leave(self._window)
            mailbox, self._mailbox = self._mailbox, None
            if mailbox is not None:
                with contextlib.suppress(TypeError, ValueError):
                    mailbox.correct(figures or {})
                mailbox.end(please_close=not keep_window)
                mailbox.close(remove=False)  # the window still needs it, and removes it
        finally:
            self._lock.release()

    def wait_until_shown(self, timeout_s: float = 20.0) -> bool:
        """Wait for the window, for those who have time; False if it does not come."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.available:
            if self.shown:
                return True
            time.sleep(0.02)
        return self.shown

    def _look_after_window(self) -> None:
        window = self._window
        if self._mailbox is None or window is None or not window.gone:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._take_leave(window)
            finally:
                self._lock.release()

    def _take_leave(self, window: _WindowProcess) -> None:
        """Note how the window ended and drop the mailbox. The lock is held."""
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is None:
            return
        self._closed_by_user = mailbox.reader_state is ReaderState.CLOSED_BY_USER
        if self._closed_by_user:
            self._reason = "the preview window was closed"
        else:
            self._reason = mailbox.reader_reason or window.last_words()
        mailbox.close(remove=True)


class _Turns:
    """Whose turn it is where all channels are shown.

    The throttle may be in step with the channels and would then let only some of them through: of
    those that came lately, the one that was shown longest ago is next.
    """

    def __init__(self) -> None:
        self._arrived: dict[str, float] = {}
        self._sent: dict[str, float] = {}

    def arrived(self, channel: str, now: float) -> None:
        self._arrived[channel] = now

    def sent(self, channel: str, now: float) -> None:
        self._sent[channel] = now

    def is_due(self, channel: str, now: float) -> bool:
        lately = [name for name, at in self._arrived.items() if now - at < TURN_S]
        waits = [self._sent.get(name, -1.0) for name in lately if name != channel]
        return self._sent.get(channel, -1.0) <= min(waits, default=now)


def render_snapshot(
    raw: NDArray[Any],
    denoised: NDArray[Any] | None,
    figures: Mapping[str, Any],
    png_path: Path | str,
    *,
    uncertainty: NDArray[Any] | None = None,
    title: str = "",
    saturation_adu: float | None = None,
    pixel_size_um: float | None = None,
    size: tuple[int, int] = (1280, 720),
) -> Snapshot:
    """Draw the preview window into a PNG file, without a screen.

    The same window as in a run, drawn by the same code in a process of its own.

    Parameters
    ----------
    raw, denoised, uncertainty
        (Y, X), ADU. With an uncertainty the third image is shown too.
    figures
        As for `PreviewLink.show`.
    png_path
        Where to put the picture; replaced if it exists.
    size
        (width, height) of the window in pixels.

    Returns
    -------
    Snapshot
        The path, or None and the reason, for example a system library that Qt lacks.
    """
    about = {
        "title": title,
        "pixel_type": str(raw.dtype),
        "saturation_adu": saturation_adu,
        "pixel_size_um": pixel_size_um,
    }
    png_path = Path(png_path).absolute()
    try:
        mailbox = MailboxWriter.create((raw.shape[0], raw.shape[1]), str(raw.dtype), about)
    except (AcquisitionError, TypeError, IndexError) as error:
        return Snapshot(None, str(error))
    try:
        mailbox.put(raw, denoised, uncertainty, figures)
        width, height = size
        command = window_command(mailbox.path)
        command += ["--snapshot", str(png_path), "--size", f"{width}x{height}"]
        window = _WindowProcess(command, {"QT_QPA_PLATFORM": "offscreen"})
        if not window.wait(SNAPSHOT_TIMEOUT_S):
            window.kill()
            return Snapshot(None, f"the window was not drawn within {SNAPSHOT_TIMEOUT_S:.0f} s")
        if window.returncode == 0:
            return Snapshot(png_path, "")
        return Snapshot(None, mailbox.reader_reason or window.last_words())
    except (OSError, ValueError) as error:
        return Snapshot(None, f"the preview window could not be drawn: {error}")
    finally:
        mailbox.close(remove=True)


def missing_screen() -> str:
    """Return why no window can appear on this machine, or "" if one can."""
    if sys.platform != "linux":
        return ""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    return "" if any(os.environ.get(name) for name in names) else _NO_SCREEN


def window_command(mailbox: Path) -> list[str]:
    """Return the command that opens the window on `mailbox`."""
    # -P: a file named numpy.py in the user's working folder must not be imported.
    module = "quietscope.acquisition.preview.process"
    return [sys.executable, "-P", "-m", module, "--mailbox", str(mailbox)]


class _WindowProcess:
    """The child process, and a thread that waits for it and keeps the end of what it said."""

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        # One thread for numpy: the cores belong to the camera and the denoiser.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=tempfile.gettempdir(),  # the window must not keep a data folder in use
            env={**os.environ, **threads, **(environment or {})},
            # Ctrl-C in the terminal is for the acquisition; the window shows how that ends.
            process_group=None if sys.platform == "win32" else 0,
            creationflags=_NO_CONSOLE,
        )
        self._said: deque[bytes] = deque(maxlen=20)
        # A daemon: the window may outlive the run, and nothing is lost with this thread.
        self._watcher = threading.Thread(target=self._watch, name="preview-window", daemon=True)
        self._watcher.start()

    @property
    def gone(self) -> bool:
        return not self._watcher.is_alive()

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def wait(self, timeout_s: float) -> bool:
        self._watcher.join(timeout_s)
        return self.gone

    def kill(self) -> None:
        self._process.kill()
        self._watcher.join(5)

    def last_words(self) -> str:
        """Return one line on how the process ended."""
        said = b"".join(self._said).decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        ended = f"the preview window ended unexpectedly (status {self.returncode})"
        return f"{ended}: {last}" if last else ended

    def _watch(self) -> None:
        if (pipe := self._process.stderr) is not None:
            with pipe:
                while chunk := os.read(pipe.fileno(), 4096):
                    self._said.append(chunk)
                    logger.debug("preview window: %s", chunk.decode("utf-8", "replace").rstrip())
        self._process.wait()
