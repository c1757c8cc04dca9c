"""A stage of the stream: a named thread with a bounded inbox.

Owns how frames wait, how a stage ends, and what happens when it fails. What a stage does with a
frame is written in `recorder` and `denoise_stage`.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """What waits in front of a stage: at most so many items and so many bytes.

    One item always fits, however large. Any thread may put, one thread takes.
    """

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._ended = False
        self._abandoned = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item, size: int) -> bool:
        """Add `item`, or wait for room. False if nobody will ever take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._has_room(size))
            if self._abandoned or self._ended:
                return False
            self._append(item, size)
            return True

    def displace(self, item: Item, size: int) -> list[Item]:
        """Add `item` without waiting; return what had to go for it, oldest first."""
        displaced = []
        with self._changed:
            if self._abandoned or self._ended:
                return [item]
            while self._items and not self._has_room(size):
                displaced.append(self._pop())
            self._append(item, size)
        return displaced

    def take(self) -> Item | None:
        """Return the oldest item, or wait for one; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended)
            return self._pop() if self._items else None

    def end(self) -> None:
        """Say that nothing more will come; what waits is still taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Say that nothing more will be taken; whoever waits to put is let go."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        if not self._items:
            return True
        return len(self._items) < self._max_items and self._bytes + size <= self._max_bytes

    def _append(self, item: Item, size: int) -> None:
        self._items.append((item, size))
        self._bytes += size
        self._changed.notify_all()

    def _pop(self) -> Item:
        item, size = self._items.popleft()
        self._bytes -= size
        self._changed.notify_all()
        return item


class Stage(ABC, Generic[Item]):
    """A thread that handles items one after the other, in the order in which they came.

    The first exception ends the work and is kept in `error`; what waits then is dropped, and who
    puts more learns of it. `close` lets it finish what waits.

    Parameters
    ----------
    name
        Of the thread, as debuggers and crash reports show it.
    max_items, max_bytes
        Bounds of the inbox.
    may_hang
        The program may end without it: nothing is lost with what it does.
    """

    def __init__(
        self, name: str, *, max_items: int, max_bytes: int, may_hang: bool = False
    ) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._inbox: Inbox[Item] = Inbox(max_items=max_items, max_bytes=max_bytes)
        self._thread = threading.Thread(
            target=self._run, name=f"quietscope {name}", daemon=may_hang
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many items wait in the inbox."""
        return len(self._inbox)

    @property
    def running(self) -> bool:
        """Whether its thread is still at work."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the stage finish what waits, and wait for its thread. May be called again."""
        self._inbox.end()
        if self.running:
            self._thread.join()

    def closes_within(self, seconds: float) -> bool:
        """Let the stage finish what waits; return whether it did so in this time."""
        self._inbox.end()
        if self.running:
            self._thread.join(seconds)
        return not self.running

    def _begin(self) -> None:
        """Get ready, in the thread of this stage, before the first item."""

    @abstractmethod
    def _handle(self, item: Item) -> None:
        """Do the work of this stage on one item, in its thread."""

    def _run(self) -> None:
        try:
            self._begin()
            while (item := self._inbox.take()) is not None:
                self._handle(item)
                del item  # or the frame would stay in memory while the stage waits
        except BaseException as error:  # kept, and raised where the user sees it
            logger.debug("%s failed", self.name, exc_info=True)
            self.error = error
            self._inbox.abandon()
