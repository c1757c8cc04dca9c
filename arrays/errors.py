"""What can be wrong with an array; see `quietscope.errors`."""

from __future__ import annotations

from ..errors import QuietscopeError


class ArrayError(QuietscopeError, ValueError):
    """An array that is no usable recording, or arguments that contradict each other."""


class ArrayTypeError(QuietscopeError, TypeError):
    """Something that is no array at all."""
