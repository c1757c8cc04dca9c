"""The commands of `acquisition`, as plain functions that return an Outcome."""

from __future__ import annotations

from collections.abc import Callable

from ..console import Outcome

COMMANDS: dict[str, Callable[..., Outcome]] = {}
