"""What can keep the window from opening.

NoWindowError    also RuntimeError    no screen, or no Qt; says what to do
"""

from __future__ import annotations

from ..errors import QuietscopeError


class NoWindowError(QuietscopeError, RuntimeError):
    """No window can be opened here; says why and what to do."""
