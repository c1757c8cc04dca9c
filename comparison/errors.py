"""What can go wrong in a comparison; see `quietscope.errors`."""

from __future__ import annotations

from ..errors import QuietscopeError


class ComparisonError(QuietscopeError, RuntimeError):
    """Methods that are unknown, or a comparison that cannot begin or go on."""
