"""The exception family of acquisition."""

from __future__ import annotations

from ..errors import QuietscopeError


class AcquisitionError(QuietscopeError, RuntimeError):
    """The core, the camera or the stream failed."""


class MicroscopeError(AcquisitionError):
    """Micro-Manager cannot be started, reached or configured."""


class MissingFramesError(AcquisitionError):
    """Frames that the camera counted never reached the recorder."""
