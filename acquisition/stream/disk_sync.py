"""What a run wrote goes to the disk itself every second, so that a power cut costs no more.

Owns the thread that asks the operating system for it, and the errors that only then come to light.
A frame whose write has ended lies in the memory of the operating system, which puts it on the disk
some 30 seconds later. Asking frame by frame would halve the frame rate; asking for everything at
once, beside the stream, costs a few milliseconds of the disk's time.

Linux has a call for one file system (`syncfs`), which also tells of writes that failed. macOS has
one for all. Windows has none for an ordinary user: there its own cache decides.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ...storage.atomic_output import OutputError

INTERVAL_S = 1.0

LONGEST_END_S = 10.0
"""How long the end of a run waits for the disk, on which other programs may write as well."""

_DISK_FAILED = {errno.EIO, errno.ENOSPC, errno.EDQUOT}

Sync = Callable[[], None]


def open_sync(folder: Path) -> tuple[Sync, Callable[[], None]] | None:
    """Return what puts everything written to the disk of `folder`, and what releases it.

    Kept open for a whole run: the system tells each holder of errors since the opening, once.
    None where the system offers no such thing for this folder.
    """
    if sys.platform == "linux":
        import ctypes

        system = ctypes.CDLL(None, use_errno=True)  # lets other threads run meanwhile
        try:
            syncfs = system.syncfs
            descriptor = os.open(folder, os.O_RDONLY)
        except (AttributeError, OSError):  # a small C library, a folder that cannot be listed
            return None

        def sync() -> None:
            if syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))

        return sync, lambda: os.close(descriptor)
    elif sys.platform == "darwin":  # noqa: RET505 (mypy takes platforms in one statement)
        return os.sync, lambda: None
    else:
        return None


class DiskSync:
    """Put what is written to `folder` on its disk once a second until closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ending = threading.Event()
        self._error: OSError | None = None
        # A daemon: a disk that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="quietscope disk sync", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Put the rest on the disk.

        Raises
        ------
        OutputError
            If the disk failed to take something that had been written.
        """
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(LONGEST_END_S)
        if self._error is not None:
            raise OutputError(
                f"{self._folder}: the disk failed while frames were put on it "
                f"({self._error.strerror}), so some of them may be damaged; check the disk and "
                "record on another one"
            ) from self._error

    def _run(self) -> None:
        opened = open_sync(self._folder)
        if opened is None:
            return
        sync, release = opened
        try:
            while not self._ending.wait(INTERVAL_S):
                sync()
            sync()
        except OSError as error:
            if error.errno in _DISK_FAILED:  # others say that this disk cannot be asked
                self._error = error
        finally:
            release()
