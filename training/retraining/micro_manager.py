"""A Micro-Manager on this computer is watched while a night lasts.

Owns when the watching program runs: as long as somebody listens on pycro-manager's port. It is a
program of its own, of another room: nothing of the microscope is loaded here.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .supervision import own_command

PORT = 4827
"""Of pycro-manager's server, where nobody has chosen another."""
PROGRAM = "quietscope.acquisition.microscope.watch"
CONNECT_S = 0.2
AGAIN_S = 5.0
"""Between two looks whether a Micro-Manager is there, and two starts of a program that ended."""
LOOK_S = 0.2


@contextmanager
def micro_manager_watched(
    port: int = PORT, command: Sequence[str] | None = None
) -> Iterator[None]:
    """Let Micro-Manager's live mode and acquisitions be seen as live sessions, for a block."""
    over = threading.Event()
    watching = threading.Thread(
        target=_keep,
        args=(port, command or own_command(PROGRAM, str(port)), over),
        name="quietscope micro-manager",
    )
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _keep(port: int, command: Sequence[str], over: threading.Event) -> None:
    while not over.is_set():
        if _listens(port):
            _run(command, over)
        over.wait(AGAIN_S)


def _run(command: Sequence[str], over: threading.Event) -> None:
    program = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    while program.poll() is None and not over.wait(LOOK_S):
        pass
    if program.poll() is None:
        program.kill()
    program.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S):
            return True
    except OSError:
        return False
