"""Metadata of a frame in a form that the frame log can hold.

Owns what becomes of values that JSON has no form for. An image's tags come from device adapters
and from users' scripts, so anything may be among them; the pixels are recorded all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_DEPTH = 16
MAX_VALUES = 4096
"""Of an array or list: a tag is no place for an image."""


def storable(metadata: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return metadata that JSON can hold, and the names of those that were changed or left out.

    Keys become words; NaN and infinity null; half a surrogate pair its escape; numbers of NumPy
    plain ones. What contains itself, is nested too deep or too long, or cannot be put in words is
    left out.
    """
    kept: dict[str, Any] = {}
    altered: list[str] = []
    for key, value in metadata.items():
        try:
            name = text(key)
        except _Unstorable:
            altered.append(f"a {type(key).__name__}")
            continue
        try:
            kept[name] = _plain(value, ())
        except _Unstorable:
            altered.append(name)
            continue
        if kept[name] != value or name != key:
            altered.append(name)
    return kept, altered


def text(value: Any) -> str:
    """Return any value in words that can be written as UTF-8."""
    try:
        words = value if isinstance(value, str) else str(value)
    except Exception as error:  # somebody else's __str__
        raise _Unstorable from error
    return words.encode("utf-8", "backslashreplace").decode("utf-8")


class _Unstorable(ValueError):
    """A value that JSON has no form for."""


def _plain(value: Any, around: tuple[int, ...]) -> Any:
    """Return a value in JSON's own types; `around` are the containers that it lies in."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist() if value.size <= MAX_VALUES else _too_long(), around)
    if isinstance(value, Mapping | list | tuple):
        if id(value) in around or len(around) >= MAX_DEPTH or len(value) > MAX_VALUES:
            raise _Unstorable
        inside = (*around, id(value))
        if isinstance(value, Mapping):
            return {text(key): _plain(item, inside) for key, item in value.items()}
        return [_plain(item, inside) for item in value]
    return text(value)


def _too_long() -> Any:
    raise _Unstorable
