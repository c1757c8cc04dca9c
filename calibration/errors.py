"""The exception family of calibration."""

from __future__ import annotations

from ..errors import QuietscopeError


class CalibrationError(QuietscopeError, ValueError):
    """Light levels, a noise model or a camera fingerprint that cannot be used."""


class CameraMismatchError(CalibrationError):
    """A noise model or a model bundle belongs to another camera or another setting of it."""


class TooFewPixelsError(CalibrationError):
    """Frames that hold too few pixels to tell their noise, whatever it is."""
