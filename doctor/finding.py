"""What an examination finds: one answer, in words and in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer: what was found, whether live denoising can work with it, and what to do.

    `figures` are what was measured, for programs.
    """

    name: str
    passed: bool
    value: str
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
