"""A user's script on Micro-Manager's own engine ends when Micro-Manager does.

Owns the watch over the Micro-Manager behind an acquisition that the script made itself, and lets
go of the script when it is gone. pycro-manager would wait for ever: for answers over its bridge,
and for its threads that wait for messages. How a bridge is released is written in
`microscope.bridge`.
"""

from __future__ import annotations

import importlib
import sys
import threading
from contextlib import ExitStack
from types import ModuleType
from typing import Any, ClassVar

from ..microscope.bridge import expect_server, has_ended, watched_server
from ..microscope.core import running_core

_CHECK_S = 0.1
_MODULES = ("java_backend_acquisitions", "acquisition_superclass")


class _Runs:
    """How many runs want it, and the ports of the Micro-Managers that they watch."""

    lock = threading.Lock()
    count = 0
    watched: ClassVar[set[int]] = set()


class JavaEngineWatch:
    """Watches during one run. Entered before the script makes its acquisition."""

    def __init__(self) -> None:
        self._watching = ExitStack()
        self._port: int | None = None
        self._looked = False

    def __enter__(self) -> JavaEngineWatch:
        _let_go_of_waiting_threads(+1)
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.close()
        _let_go_of_waiting_threads(-1)

    def note_image(self) -> None:
        """Begin to watch, with the first image, the Micro-Manager that it came from."""
        if self._looked:
            return
        self._looked = True
        self._port = _port_in_use()
        if self._port is not None:
            expect_server(self._port)
            _Runs.watched.add(self._port)
            self._watching.enter_context(watched_server(self._port, None))

    @property
    def ended(self) -> bool:
        """Whether Micro-Manager ended while the run lasted."""
        return self._port is not None and has_ended(self._port)


def _port_in_use() -> int | None:
    """Return the port of the Micro-Manager that this program talks to; None if to none."""
    bridges = sys.modules.get("pyjavaz.bridge")
    if bridges is None or running_core() is not None:
        return None
    # The first is the server itself, the others belong to single objects of it.
    return next(iter(bridges.Bridge._cached_bridges_by_port), None)


def _let_go_of_waiting_threads(runs: int) -> None:
    """Have pycro-manager make threads that nobody waits for once Micro-Manager is gone."""
    with _Runs.lock:
        before, _Runs.count = _Runs.count, _Runs.count + runs
        if bool(before) == bool(_Runs.count):
            return
        used: ModuleType = _Threading() if _Runs.count else threading
        _Runs.watched.clear()
        for name in _MODULES:
            vars(importlib.import_module(f"pycromanager.acquisition.{name}"))["threading"] = used


class _Thread(threading.Thread):
    """A thread of pycro-manager, which may wait for a message that will never come.

    It neither keeps the program from ending, nor anybody who joins it, once Micro-Manager is gone.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "daemon": True})

    def join(self, timeout: float | None = None) -> None:
        if timeout is not None:
            super().join(timeout)
            return
        while self.is_alive() and not any(map(has_ended, _Runs.watched)):
            super().join(_CHECK_S)


class _Threading(ModuleType):
    """The module `threading` as pycro-manager sees it."""

    Thread = _Thread

    def __init__(self) -> None:
        super().__init__("threading")

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)
