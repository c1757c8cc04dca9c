"""Micro-Manager's own live mode and acquisitions, made to be seen as live sessions.

Owns a program that looks at a running Micro-Manager and holds the signal of a live session while
it images, so that training on this computer gives way to people who do not use quietscope at the
moment. It ends when Micro-Manager does or does not answer; whoever wants it watched starts it
again::

    python -m quietscope.acquisition.microscope.watch 4827
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

from ...errors import QuietscopeError
from ...storage.live_sessions import live_session
from .bridge import is_acquiring, remote_core, watched_server

LOOK_EVERY_S = 0.5
HANG_S = 10.0
"""Without an answer: pycro-manager waits for ever for a Java that has gone."""


def watch(port: int) -> None:
    """Look until Micro-Manager ends.

    Raises
    ------
    MicroscopeError
        If none answers, or it has ended.
    """
    answered = [time.monotonic()]
    threading.Thread(target=_leave_if_silent, args=(answered,), daemon=True).start()
    core = remote_core(port)
    with watched_server(port, core), ExitStack() as session:
        seen = False
        while True:
            images = _images(core, port)
            answered[0] = time.monotonic()
            if images and not seen:
                session.enter_context(live_session())
            elif seen and not images:
                session.close()
            seen = images
            time.sleep(LOOK_EVERY_S)


def _images(core: Any, port: int) -> bool:
    return bool(core.is_sequence_running()) or is_acquiring(port)


def _leave_if_silent(answered: list[float]) -> None:
    while time.monotonic() - answered[0] < HANG_S:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)  # the signal goes with the process


def main() -> int:
    """Watch the Micro-Manager on the port that the command line names."""
    try:
        watch(int(sys.argv[1]))
    except QuietscopeError as error:
        sys.stderr.write(f"{error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
