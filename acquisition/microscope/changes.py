"""What was changed at a microscope, and the way back.

Owns the order: the first value of each setting counts, and the last change goes back first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...errors import one_line

logger = logging.getLogger(__name__)


class Changes:
    """Changes of settings, each with what undoes it. Used from one thread."""

    def __init__(self) -> None:
        self._undo: list[tuple[str, Callable[[], None]]] = []

    def remember(self, name: str, undo: Callable[[], None]) -> None:
        """Keep what undoes the first change of `name`; later ones do not count."""
        if name not in {changed for changed, _ in self._undo}:
            self._undo.append((name, undo))

    @contextmanager
    def within(self) -> Iterator[None]:
        """Undo, at the end of the block, what was changed within it."""
        before, self._undo = self._undo, []
        try:
            yield
        finally:
            try:
                self.undo()
            finally:
                self._undo = before

    def undo(self) -> None:
        """Undo all changes; whoever interrupts this is heard when it is done."""
        interrupted: KeyboardInterrupt | None = None
        while self._undo:
            name, undo = self._undo.pop()
            try:
                undo()
            except KeyboardInterrupt as error:
                if interrupted is None:
                    self._undo.append((name, undo))  # once more: it may have stood half-way
                interrupted = error
            except Exception as error:  # a stuck device must not keep the others from going back
                logger.warning("%s could not be set back: %s", name, one_line(error))
        if interrupted is not None:
            raise interrupted
