"""One program at a time writes a run, a store, a bundle or a library.

Owns the lock file and the sentence that names its holder. Ownership is a lock that the operating
system keeps (through `filelock`, on Windows as on POSIX) and takes back when its holder ends,
however it ends; what is written in a file decides nothing, nor does any clock. A lock file that
was left behind is a file that nobody has locked.

The file lies beside what it protects, under the name that this has: so the thing itself can be
moved aside, replaced and deleted while the lock is held, which an open file inside it would forbid
on Windows. It goes when the lock is released. Only where the folder around may not be written does
it lie inside.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from .atomic_output import OutputError, existing_parent
from .output_kinds import is_part_of_run

logger = logging.getLogger(__name__)

HANDOVER_S = 0.1
"""How long a lock is tried for: its holder may be just about to let it go."""

INSIDE = ".quietscope.lock"

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


class DirectoryLock:
    """Ownership of what is, or will be, at `path`. Used from any thread.

    Parameters
    ----------
    path
        A directory or file; it need not exist. A store inside a run directory belongs to whoever
        owns the run.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._held: FileLock | None = None

    def acquire(self, *, wait_s: float = HANDOVER_S) -> None:
        """Become the owner.

        Raises
        ------
        OutputError
            If another program is, or this one by another lock; or nothing may be written there.
        """
        protected = _protected(self.path)
        try:
            protected.parent.mkdir(parents=True, exist_ok=True)
            self._take(_beside(protected), wait_s)
        except OSError as error:
            if error.errno in _NOT_WRITABLE and protected.is_dir():
                self._take_inside(protected, wait_s)
            else:
                raise self._cannot(error) from error

    def release(self) -> None:
        """Let others write there. May be called more than once."""
        held, self._held = self._held, None
        if held is None:
            return
        if os.name != "nt":  # there filelock removes it, as nobody can while it is open
            # Before it is let go: whoever opened it meanwhile sees it gone, and tries anew.
            with suppress(OSError):
                Path(held.lock_file).unlink(missing_ok=True)
        with suppress(OSError):  # a disk that has gone away
            held.release()

    def _take_inside(self, protected: Path, wait_s: float) -> None:
        try:
            self._take(protected / INSIDE, wait_s)
        except OSError as error:
            raise self._cannot(error) from error

    def _take(self, file: Path, wait_s: float) -> None:
        lock = FileLock(str(file), thread_local=False)
        try:
            lock.acquire(timeout=wait_s, poll_interval=0.01)
        except Timeout:
            raise OutputError(
                f"{self.path}: is being written by {_holder(file)}; wait until it has ended, or "
                "choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning(
                "%s: this file system keeps no locks (%s); see to it that no other program "
                "writes there",
                self.path,
                error.strerror,
            )
            return
        self._held = lock
        _sign(file)

    def _cannot(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path}: cannot be written ({error.strerror}); choose a folder that you may "
            "write to"
        )


@contextmanager
def owned(*paths: Path | str, wait_s: float = HANDOVER_S) -> Iterator[None]:
    """Own what is, or will be, at `paths` for the length of a block; see `DirectoryLock`."""
    with ExitStack() as held:
        # Two stores of one run are one lock; always in one order, so that nobody waits in a ring.
        for _, path in sorted({_protected(Path(path)): Path(path) for path in paths}.items()):
            lock = DirectoryLock(path)
            lock.acquire(wait_s=wait_s)
            held.callback(lock.release)
        yield


def is_owned(path: Path | str) -> bool:
    """Whether a program writes there at this moment."""
    return holder_of(path) is not None


def holder_of(path: Path | str) -> str | None:
    """Return who writes there at this moment, in words; None if nobody does."""
    lock = DirectoryLock(path)
    try:
        lock.acquire(wait_s=0)
    except OutputError:
        protected = _protected(lock.path)
        inside = protected / INSIDE
        return _holder(inside if inside.is_file() else _beside(protected))
    lock.release()
    return None


def _protected(path: Path) -> Path:
    """Return whose lock it is, by its real name: links and spellings lead to one lock."""
    if is_part_of_run(path):
        path = path.parent
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise OutputError(
            f"{path}: its links lead nowhere ({error}); give the place itself"
        ) from error


def _beside(protected: Path) -> Path:
    existing_parent(protected)  # says it in a sentence where even the drive is missing
    if not protected.name:  # a whole drive
        return protected / INSIDE
    return protected.with_name(f".{protected.name}.lock")


# --------------------------------------------------------------- who holds it, for the message


def _sign(file: Path) -> None:
    """Write who holds the lock, after byte 0: nobody else can read what Windows has locked."""
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with suppress(OSError), file.open("r+b", buffering=0) as signed:
        signed.seek(1)
        signed.write(json.dumps(owner).encode())
        signed.truncate()


def _holder(file: Path) -> str:
    try:
        with file.open("rb", buffering=0) as signed:
            signed.seek(1)
            owner: Mapping[str, Any] = json.loads(signed.read().decode())
        pid, host = int(owner["pid"]), str(owner["host"])
        since = datetime.fromisoformat(owner["since"]).astimezone()
    except (OSError, ValueError, KeyError, TypeError):
        return "another program"
    here = host == socket.gethostname()
    if here and not psutil.pid_exists(pid):
        return "another program"  # which has not signed yet: this is left of the one before
    where = "" if here else f" on the computer {host}"
    return f"process {pid}{where} since {since:%Y-%m-%d %H:%M:%S}"
