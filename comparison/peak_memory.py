"""The most memory that this process held while something ran.

Owns the watching. What was loaded before counts as well: it is what the computer must have.
"""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

EVERY_S = 0.05


class PeakMemory:
    """Watches for the length of a `with` block; then `mb` is the peak of the resident memory."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._ended = threading.Event()
        self._process = psutil.Process()
        self._watcher = threading.Thread(target=self._watch, name="peak-memory")

    def __enter__(self) -> PeakMemory:
        self._look()
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        self.mb = max(self.mb, self._process.memory_info().rss / 2**20)
