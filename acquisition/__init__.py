"""The microscope, the stream of frames, and what a person sees while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .live import LiveDenoiser

__all__ = ["LiveDenoiser"]


def __getattr__(name: str) -> Any:
    """Import the stream only when it is asked for: `quietscope --help` needs none of it."""
    if name == "LiveDenoiser":
        from .live import LiveDenoiser

        return LiveDenoiser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
