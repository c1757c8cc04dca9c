"""Whether Micro-Manager's circular buffer overflowed in this run.

Owns the distinction from an overflow of before: the core remembers one until the next sequence
begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class OverflowWatch:
    """Watches the core for one run.

    Parameters
    ----------
    own_core
        Returns the core of this process, None if there is none.
    attached_core
        The core of a Micro-Manager behind the bridge, asked where this process has none.
    """

    def __init__(self, own_core: Callable[[], Any], attached_core: Any) -> None:
        self._own_core = own_core
        self._attached_core = attached_core
        self._old = self._overflowed(self._attached_core)

    def note_first_frame(self) -> None:
        """Take note that a sequence has begun: it made the core forget what was before."""
        if self._old:
            self._old = self._overflowed(self._attached_core)

    def overflowed(self, *, ask_attached: bool) -> bool:
        """Whether images of this run were lost; a Micro-Manager that has failed is not asked."""
        return self._overflowed(self._attached_core if ask_attached else None) and not self._old

    def _overflowed(self, otherwise: Any) -> bool:
        core = self._own_core() or otherwise
        return core is not None and bool(core.is_buffer_overflowed())
